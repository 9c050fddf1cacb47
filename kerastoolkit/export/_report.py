"""What an export says: where the file is, what it takes and answers, how it was compared, what it does not hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from kerastoolkit.export._parity import Parity
from kerastoolkit.export._spec import Spec


@dataclasses.dataclass(frozen=True)
class Report:
    """What was exported. It prints as a few lines, and shows as a table in a notebook.

    Attributes:
        path: The file or folder.
        format: `"onnx"`, `"litert"`, `"tfjs"`, `"saved_model"` or `"openvino"`.
        n_bytes: Size of the file, or of all files of the folder.
        parity: How well it answers as the model that it came from.
        spec: What it takes and answers.
        notes: What was left out or done in another way, and why.
        quantization: Accuracy of `quantize=` beside float32, by name of a figure. Defaults to none.
    """

    path: Path
    format: str
    n_bytes: int
    parity: Parity
    spec: Spec
    notes: tuple[str, ...] = ()
    quantization: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}

    def _lines(self) -> list[tuple[str, str]]:
        takes = ", ".join(f"{one.name} ({one.kind})" for one in self.spec.inputs[:8])
        more = len(self.spec.inputs) - 8
        answers = ", ".join(one.name for one in self.spec.outputs)
        lines = [
            ("file", f"{self.path}, {self.n_bytes:,} bytes ({self.format})"),
            ("takes", takes + (f" and {more} more" if more > 0 else "")),
            ("answers", answers),
            ("compared", str(self.parity)),
            *((name, str(value)) for name, value in self.quantization.items()),
        ]
        return lines + [("note", note) for note in self.notes]

    def __str__(self) -> str:
        return "\n".join(f"{name:>9}: {text}" for name, text in self._lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self._lines())
        return f"<table>{rows}</table>"
