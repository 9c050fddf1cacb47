"""An exported file needs neither TensorFlow, Keras, scikit-learn nor pandas; the environment `onnx` of tox has none."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerastoolkit.exceptions import MissingPackageError
from kerastoolkit.serving import Client, app

HEAVY = ("tensorflow", "keras", "sklearn", "pandas", "scipy", "h5py", "joblib", "skops", "rich", "matplotlib", "PIL")
ROWS = [{"age": 40, "income (k)": None, "plan": "gold"}, {"age": 18, "income (k)": -3, "plan": "new"}]


def test_a_file_is_opened_and_served_without_them(files: dict[str, Path], run_python: Callable[..., Any]) -> None:
    program = f"""
import json, sys
for heavy in {HEAVY!r}:
    sys.modules[heavy] = None  # Python's own way to say: not to be found
import kerastoolkit.cli
from kerastoolkit import export, serving
path, rows = {str(files["churn"])!r}, json.loads({json.dumps(ROWS)!r})
model = export.load(path)
assert model.predict_proba(rows).shape == (2, 2)
assert serving.app(path).state.model.runtime == "onnxruntime"
print(model.predict(rows).tolist())
"""
    assert run_python(program).stdout.strip() == "['stays', 'leaves']"


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in HEAVY),
    reason="this environment has more than an exported file needs; tox -e onnx",
)
def test_the_command_and_the_client_without_them(
    start: Callable[..., Any], files: dict[str, Path], tmp_path: Path
) -> None:
    from kerastoolkit import export

    with start(files["churn"], tmp_path / "errors", "--log", str(tmp_path / "requests.db")) as server:
        client = Client(server.url)
        assert client.predict(ROWS).tolist() == ["stays", "leaves"]
        np.testing.assert_array_equal(client.predict_proba(ROWS), export.load(files["churn"]).predict_proba(ROWS))
    (tmp_path / "model.zip").write_bytes(b"what an estimator's `save` writes")
    with pytest.raises(MissingPackageError, match="Export it where it was trained"):
        app(tmp_path / "model.zip")
