"""Whatever happened to a file, or was done to it: an error of ours or a right result, and nothing else comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason='pip install "kerastoolkit[optuna]"')
pytest.importorskip("resource", reason="is about memory as POSIX tells it")

# 2000 and more for a thorough run, which takes minutes.
_DAMAGES = int(os.environ.get("KERASTOOLKIT_TEST_DAMAGES", "40"))


@pytest.mark.timeout(1_800 + 5 * _DAMAGES)
@pytest.mark.backend("tensorflow")  # the files are the same on all of them
def test_of_a_damaged_or_forged_file_comes_an_error_or_a_right_result(tmp_path: Path) -> None:
    """In a process of its own, in which nobody may start a process, talk to a network or open another file."""
    program = Path(__file__).with_name("stores.py")
    command = [sys.executable, str(program), str(tmp_path), str(_DAMAGES), str(_DAMAGES // 2), "0"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=1_500 + 5 * _DAMAGES, check=False)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert sum(sum(ends.values()) for ends in found["ends"].values()) == _DAMAGES + _DAMAGES // 2
    assert any("damage: error" in ends for ends in found["ends"].values())
    assert found["megabytes"] < 500
