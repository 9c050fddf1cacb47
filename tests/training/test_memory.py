"""How much memory is free, in a machine that is made of files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kerastoolkit.training import _memory
from kerastoolkit.training._memory import free_memory

GB = 2**30


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Writes a file of a machine with 16 GB free."""
    monkeypatch.setattr(_memory, "_ROOT", tmp_path)

    def write(path: str, text: object) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")

    write("proc/meminfo", f"MemTotal: {32 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {16 * 2**20} kB")
    return write


def test_without_a_container_it_is_what_the_machine_has_left(write) -> None:  # type: ignore[no-untyped-def]
    assert free_memory() == 16 * GB
    write("proc/self/cgroup", "0::/user.slice")
    write("sys/fs/cgroup/user.slice/memory.max", "max")
    write("sys/fs/cgroup/user.slice/memory.current", GB)
    assert free_memory() == 16 * GB


@pytest.mark.parametrize("limit", ["memory.max", "memory.high"])
def test_a_container_leaves_what_its_limit_leaves(write, limit: str) -> None:  # type: ignore[no-untyped-def]
    write("proc/self/cgroup", "0::/")
    write(f"sys/fs/cgroup/{limit}", 4 * GB)
    write("sys/fs/cgroup/memory.current", 3 * GB)
    assert free_memory() == GB
    write("sys/fs/cgroup/memory.stat", f"anon 5\ninactive_file {GB // 2}\nfile 7")  # what the system can drop
    assert free_memory() == 1.5 * GB
    write("sys/fs/cgroup/memory.current", 6 * GB)  # just lowered
    assert free_memory() == 0


def test_a_limit_around_the_group_counts_as_well(write) -> None:  # type: ignore[no-untyped-def]
    write("proc/self/cgroup", "0::/pod/one")
    for group, limit in (("pod/one", 8 * GB), ("pod", 2 * GB)):
        write(f"sys/fs/cgroup/{group}/memory.max", limit)
        write(f"sys/fs/cgroup/{group}/memory.current", GB)
    assert free_memory() == GB


def test_a_container_that_sees_its_own_group_at_the_top_is_found(write) -> None:  # type: ignore[no-untyped-def]
    write("proc/self/cgroup", "0::/../../docker/abc")
    write("sys/fs/cgroup/memory.max", 4 * GB)
    write("sys/fs/cgroup/memory.current", GB)
    assert free_memory() == 3 * GB


def test_the_first_version_of_control_groups(write) -> None:  # type: ignore[no-untyped-def]
    write("proc/self/cgroup", "12:cpu,cpuacct:/docker/a\n5:memory:/docker/a\n1:name=systemd:/docker/a")
    write("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", 4 * GB)
    write("sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes", 3 * GB)
    write("sys/fs/cgroup/memory/docker/a/memory.stat", f"inactive_file 1\ntotal_inactive_file {GB}")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", 9 * GB)
    assert free_memory() == 2 * GB


def test_what_cannot_be_read_is_no_limit(write) -> None:  # type: ignore[no-untyped-def]
    for text in ("", "0:", "nonsense", "0::/gone"):
        write("proc/self/cgroup", text)
        assert free_memory() == 16 * GB


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limits are known on Linux alone")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_process_count(limit: str) -> None:
    code = (
        "import resource\n"
        "from kerastoolkit.training._memory import free_memory\n"
        f"resource.setrlimit(resource.{limit}, (8 * 2**30, 8 * 2**30))\n"
        "import numpy as np\n"
        "before = free_memory()\n"
        "rows = np.ones(2**27)\n"  # 1 GB
        "print(before / 2**30, free_memory() / 2**30)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = map(float, found.split())
    assert before < 8
    assert before - after == pytest.approx(1, abs=0.05)
