"""A model that runs in both ways."""

from __future__ import annotations

import pytest

from throughtime import engine, runtime
from throughtime.runtime import network as networks


@pytest.fixture(params=["native", "reference"])
def model(request, place, monkeypatch):
    """The model in the folder that a file's fixture `place` gives, run by the kernels and by their twin in NumPy."""
    if request.param == "reference":
        for part in ("network", "sampler", "separator"):
            monkeypatch.setattr(networks.engine, part, lambda *_, **__: None)
    elif engine.level() is None:
        pytest.skip("there are no kernels here")
    return runtime.load(place)
