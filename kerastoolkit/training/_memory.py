"""How much memory this process may still take: of the machine, of its container, and by its own limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory"]

# Where the system tells about itself; another folder in tests.
_ROOT = Path("/")


def free_memory() -> float:
    """Memory that is free for this process, in bytes; half of the machine's where that cannot be read.

    It is the least of what the machine has left, of what the control groups that a container sets leave (both versions
    of them, each group and those around it; files in memory that the system can drop count as free), and of what the
    process' own limits on its address space and data leave (`ulimit -v`, `ulimit -d`).
    """
    return max(0.0, min([_free_of_machine(), *_free_of_groups(), *_free_of_limits()]))


def _free_of_machine() -> float:
    try:
        lines = dict(line.split(":", 1) for line in (_ROOT / "proc/meminfo").read_text().splitlines())
        return float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1_000_000
        return float(pages * 4096 / 2)


def _free_of_groups() -> Iterator[float]:
    try:
        lines = (_ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, place = [*line.split(":", 2), "", "", ""][:3]
        if place and not kinds:  # the second version
            folder, limits, used, cache = "", ["memory.max", "memory.high"], "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            folder, limits, used = "memory", ["memory.limit_in_bytes"], "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        top = _ROOT / "sys/fs/cgroup" / folder
        # A container may see its own group as the top one, whatever name the host has for it.
        group = top / place.strip("/")
        for path in [group, *group.parents]:
            found = [number for name in limits if (number := _number_in(path / name)) is not None]
            taken = _number_in(path / used)
            if found and taken is not None:
                yield min(found) - taken + _droppable(path / "memory.stat", cache)
            if path == top:
                break


def _number_in(path: Path) -> float | None:
    """The number in a file; None where there is no such file, or no limit."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # "max"
        return None


def _droppable(path: Path, name: str) -> float:
    try:
        return float(dict(line.split() for line in path.read_text().splitlines())[name])
    except (OSError, KeyError, ValueError):
        return 0.0


def _free_of_limits() -> Iterator[float]:
    try:
        import resource

        pages = (_ROOT / "proc/self/statm").read_text().split()
        size = resource.getpagesize()
    except (ImportError, OSError):  # another system than Linux
        return
    for limit, taken in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield float(most - int(taken) * size)
