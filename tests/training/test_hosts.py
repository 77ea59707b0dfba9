"""Two hosts with a slow, lossy link between them, as network namespaces: `make faults` runs it, as root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest

import throughtime
from throughtime import recipe as recipes

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 100
SMALL = {
    "streams": {"lanes": 4, "window": 8},
    "model": {"hidden_size": 32, "cell": "gru"},
    "training": {"steps": 40, "validations": 2, "sample_tokens": 5, "threads": 1},
}
HOSTS = {"throughtime-a": "10.77.0.1", "throughtime-b": "10.77.0.2"}
QUEUE = ["tbf", "rate", "8mbit", "burst", "1600", "limit", "4000"]
"""Of a link: what comes faster waits, and what finds two packets waiting is lost."""


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts():
    """Two namespaces, an interface `wire` in each."""
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("needs root, ip and tc")
    first, second = HOSTS
    try:
        for name in HOSTS:
            with suppress(subprocess.CalledProcessError):  # left by a test that was killed
                ip("netns", "del", name)
            ip("netns", "add", name)
        ip("link", "add", "wire", "netns", first, "type", "veth", "peer", "name", "wire", "netns", second)
        for name, address in HOSTS.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
            ip("-n", name, "link", "set", "lo", "up")
            subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "wire", "root", *QUEUE], check=True)
        yield HOSTS
    finally:
        for name in HOSTS:
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


def lost(host):
    """Packets that the link of a host did not take."""
    told = subprocess.run(
        ["tc", "-n", host, "-s", "-j", "qdisc", "show", "dev", "wire"], check=True, capture_output=True
    )
    return json.loads(told.stdout)[0]["drops"]


def losses(run):
    entries = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    return [entry["nats_per_token"] for entry in entries if entry["event"] == "train"]


@pytest.mark.slow
def test_two_hosts_over_a_bad_link_come_to_the_same_as_one(hosts, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    recipe = recipes.build({**SMALL, "text": {"sources": [str(tmp_path / "text.txt")]}})
    (tmp_path / "mine.toml").write_text(recipes.to_toml(recipe))
    meeting = next(iter(hosts.values()))
    # Both namespaces have the machine's name, by which torchrun would tell who is host, and where it is.
    children = [
        subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes=2",
             "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}:29400", "--rdzv-id=one",
             f"--rdzv-conf=is_host={int(address == meeting)}", f"--local-addr={address}",
             "-m", "throughtime", "train", "--recipe", str(tmp_path / "mine.toml"), "--out", str(tmp_path / host)],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "wire"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for host, address in hosts.items()
    ]  # fmt: skip
    errors = [child.communicate(timeout=400)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert sum(map(lost, hosts)) > 0, "the link was as bad as it should be"
    assert sorted((tmp_path / host).exists() for host in hosts) == [False, True], "one host writes"
    run = next(tmp_path / host for host in hosts if (tmp_path / host).exists())
    alone = throughtime.train(recipe, tmp_path / "alone").folder
    assert losses(run) == pytest.approx(losses(alone), rel=1e-5)
