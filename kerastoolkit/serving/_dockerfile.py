"""A Dockerfile for an ONNX file: a small image with onnxruntime, and without TensorFlow."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from kerastoolkit import _files
from kerastoolkit._version import __version__
from kerastoolkit._words import quoted
from kerastoolkit.exceptions import ParameterError
from kerastoolkit.export._runtime import load

# What `kerastoolkit serve model.onnx` needs; the package itself is installed without what it needs for training.
PACKAGES = ("numpy", "onnxruntime", "fastapi", "pydantic", "prometheus-client", "uvicorn[standard]")

_TEXT = """\
# Serves {file} with kerastoolkit. Build and run, beside the model:
#     docker build -t {tag} .
#     docker run --rm -p 127.0.0.1:8000:8000 -e KERASTOOLKIT_TOKEN=secret {tag}
FROM python:3.12-slim
RUN pip install --no-cache-dir {packages} \\
 && pip install --no-cache-dir --no-deps kerastoolkit=={version} \\
 && useradd --create-home --uid 10001 server
USER server
WORKDIR /home/server
COPY --chown=server {source} model.onnx
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \\
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
CMD ["kerastoolkit", "serve", "model.onnx", "--host", "0.0.0.0", "--port", "8000"]
"""


def write_dockerfile(model: str | Path) -> Path:
    """Writes a file `Dockerfile` beside an ONNX file.

    Args:
        model: A file that `export.onnx` wrote.

    Returns:
        The path of the Dockerfile.

    Raises:
        ParameterError: There is one already, or the model is no ONNX file.
        SavedFileError: The model is damaged or is none of ours.
    """
    model = Path(model)
    if model.suffix.lower() != ".onnx":
        raise ParameterError(
            f"--dockerfile takes an ONNX file; got {quoted(model.name)}. Write one first: kerastoolkit export."
        )
    _files.regular_file(model)
    path = model.absolute().parent / "Dockerfile"
    if os.path.lexists(path):
        raise ParameterError(f"{quoted(path)} exists already, and nothing is overwritten. Move it away first.")
    load(model)
    tag = re.sub(r"[^a-z0-9]+", "-", model.stem.lower()).strip("-") or "model"
    text = _TEXT.format(
        file=quoted(model.name),
        tag=tag,
        packages=" ".join(f'"{name}"' if "[" in name else name for name in PACKAGES),
        version=__version__,
        source=json.dumps([model.name, "model.onnx"]) if " " in model.name else model.name,
    )
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return path
