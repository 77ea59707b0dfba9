"""A small run of bytes, and the command line in this process."""

from __future__ import annotations

import pytest

from throughtime.cli.main import main

SMALL = """--hidden 8 --steps 6 --set streams.lanes=2 --set streams.window=8 --set training.validations=2
           --set training.sample_tokens=10 --set training.threads=1""".split()  # noqa: SIM905


@pytest.fixture
def call(capfd):
    """Run the command line in this process: exit code, standard output, standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "my.txt"
    path.write_text("Once upon a time there was a wörd.\n" * 50)
    return path


@pytest.fixture(scope="session")
def run_of_bytes(text):
    folder = text.parent / "bytes"
    with pytest.raises(SystemExit) as left:
        main(["train", str(text), "--tokens", "byte", "--out", str(folder), *SMALL])
    assert left.value.code == 0
    return folder
