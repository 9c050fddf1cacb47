"""TensorFlow starts in silence, and nothing but its chatter is lost."""

from __future__ import annotations

import os

import pytest

from kerastoolkit._quiet import _without_chatter

CHATTER = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795308894.132298    5946 port.cc:153] oneDNN custom operations are on.
E0000 00:00:1795308728.269738    5635 cuda_dnn.cc:8310] Unable to register cuDNN factory
W0000 00:00:1795308792.533514    5720 computation_placer.cc:177] computation placer already registered.
2025-09-17 14:44:05.157831: I external/local_xla/xla/tsl/cuda/cudart_stub.cc:32] Could not find cuda drivers
"""
OF_INTEREST = """\
F0000 00:00:1795308894.132298    5946 cpu_feature_guard.cc:111] This binary needs instructions that are not there.
2025-09-17 14:44:05.157831: F tensorflow/core/platform/cpu_feature_guard.cc:111] This binary needs them.
Traceback (most recent call last):
ImportError: libtensorflow_framework.so.2: cannot open shared object file
"""


def test_tensorflow_loads_in_silence(run_python):
    program = "import kerastoolkit, tensorflow; print(tensorflow.constant(1).numpy())"
    finished = run_python(program, TF_CPP_MIN_LOG_LEVEL=None)
    assert (finished.stdout, finished.stderr) == ("1\n", "")


def test_a_log_level_of_the_user_stays(run_python):
    program = "import kerastoolkit, os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    assert run_python(program, TF_CPP_MIN_LOG_LEVEL="0").stdout == "0\n"
    assert run_python(program, TF_CPP_MIN_LOG_LEVEL=None).stdout == "3\n"


def test_python_finds_tensorflow_where_it_is(run_python):
    program = "import importlib.util; print(importlib.util.find_spec('tensorflow').origin)"
    assert run_python(f"import kerastoolkit; {program}").stdout == run_python(program).stdout


def test_only_chatter_is_dropped(capfd):
    with _without_chatter():
        os.write(2, (OF_INTEREST + CHATTER + OF_INTEREST).encode())
    assert capfd.readouterr().err == OF_INTEREST * 2


def test_standard_error_is_back_after_a_failure(capfd):
    with pytest.raises(ImportError, match="no such library"), _without_chatter():
        os.write(2, b"on the way\n")
        raise ImportError("no such library")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "on the way\nafterwards\n"
