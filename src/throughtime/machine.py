"""What this process runs on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def rank() -> int:
    """Which of the processes that torchrun started this is; 0 where it is alone."""
    told = os.environ.get("RANK", "0")
    return int(told) if told.isdecimal() else 0


def usable_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory() -> int | None:
    """Bytes of memory that this process may use; None where the system does not tell."""
    try:
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(installed, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit
        return installed


def processor() -> tuple[str, set[str]]:
    """The processor's name and the names of what it can do, from where Linux tells them; elsewhere the name alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", facts.get("Features", ""))
    return facts.get("model name", platform.machine()), set(flags.split())
