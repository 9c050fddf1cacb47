"""A search says how far it is: to programs by `on_progress`, to people by a line that is gone at the end."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris

from kerastoolkit import KerasClassifier
from kerastoolkit.search import FinishedFit, GridSearchCV, HalvingGridSearchCV, OptunaSearchCV, SearchProgress, searches
from kerastoolkit.search._progress import shown_line

X, Y = load_iris(return_X_y=True)
RATES = {"optimizer__learning_rate": [0.003, 0.03, 0.1]}


class Fails(ClassifierMixin, BaseEstimator):
    """Learns the class that it is given, or fails."""

    def __init__(self, label: int = 0) -> None:
        self.label = label

    def fit(self, X: Any, y: Any) -> Fails:
        if self.label < 0:
            raise ArithmeticError("there is no such class")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.label)


def network(**parameters: Any) -> KerasClassifier:
    return KerasClassifier(**{"hidden": (8,), "epochs": 4, "random_state": 0, **parameters})


# -- programs ---------------------------------------------------------------------------------------------------------


def test_every_fit_is_told_with_its_score() -> None:
    told: list[SearchProgress] = []
    search = GridSearchCV(network(), RATES, cv=2, on_progress=told.append).fit(X, Y)
    fits = [one.fit for one in told if one.fit is not None]
    assert sorted((fit.candidate, fit.split) for fit in fits) == [
        (one, split) for one in range(3) for split in range(2)
    ]
    for fit in fits:
        assert fit.parameters == search.cv_results_["params"][fit.candidate] and fit.error is None
        assert fit.score == search.cv_results_[f"split{fit.split}_test_score"][fit.candidate]
    last = told[-1]
    assert (last.n_fits_done, last.n_fits, last.seconds_left) == (6, 6, 0.0)
    assert last.best_score == pytest.approx(search.best_score_)
    assert last.results is not None and set(last.results) == set(search.cv_results_)
    assert [one.seconds for one in told] == sorted(one.seconds for one in told)


def test_training_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerastoolkit.search._progress._SECONDS_BETWEEN_UPDATES", -1.0)
    told: list[SearchProgress] = []
    GridSearchCV(network(), RATES, cv=2, on_progress=told.append, refit=False).fit(X, Y)
    training = [one.training for one in told if one.fit is None and not one.n_fits_done]
    assert training == sorted(training) and training[-1] == 1.0
    assert len(set(training)) >= 4  # an epoch each


@pytest.mark.filterwarnings("ignore")
def test_failures_are_told_with_their_reason() -> None:
    told: list[FinishedFit] = []

    def tell(progress: SearchProgress) -> None:
        if progress.fit is not None:
            told.append(progress.fit)

    GridSearchCV(Fails(), {"label": [1, -1]}, cv=2, on_progress=tell).fit(X, Y)
    assert [(fit.candidate, "no such class" in (fit.error or "")) for fit in told] == [
        (0, False), (0, False), (1, True), (1, True),
    ]  # fmt: skip
    assert all(np.isnan(fit.score) for fit in told if fit.candidate == 1 and fit.score is not None)


def test_results_grow_with_the_batches_of_a_timeout() -> None:
    told: list[SearchProgress] = []
    GridSearchCV(Fails(), {"label": [0, 1, 2]}, cv=2, on_progress=told.append, timeout=1000).fit(X, Y)
    lengths = [0 if one.results is None else len(one.results["params"]) for one in told]
    assert lengths == sorted(lengths) and set(lengths) == {0, 1, 3}
    assert all(one.seconds_left is None or one.seconds_left <= 1000 for one in told)


def test_iterations_of_halving_and_trials_of_a_study_are_counted() -> None:
    told: list[SearchProgress] = []
    halving = HalvingGridSearchCV(Fails(), {"label": [0, 1, 2]}, cv=2, min_resources=50, on_progress=told.append)
    assert told == [] and halving.fit(X, Y).n_candidates_ == [3, 1]
    assert (told[-1].n_fits_done, told[-1].n_fits) == (8, 8)
    assert {one.fit.candidate for one in told if one.fit is not None} == {0, 1, 2, 3}
    pytest.importorskip("optuna")
    told.clear()
    options = {"n_trials": 3, "batch_size": 2, "cv": 2, "storage": None, "random_state": 0}
    OptunaSearchCV(Fails(), {"label": [0, 1, 2]}, on_progress=told.append, **options).fit(X, Y)
    assert (told[-1].n_fits_done, told[-1].n_fits) == (6, 6)


@pytest.mark.filterwarnings("ignore")
def test_batches_that_fail_count_once() -> None:
    told: list[SearchProgress] = []
    grid = [{"label": [label]} for label in (-1, -2, -3, 1, 2, -4)]
    search = GridSearchCV(Fails(), grid, cv=2, timeout=1000, on_progress=told.append).fit(X, Y)
    fits = [(one.fit.candidate, one.fit.split) for one in told if one.fit is not None]
    assert fits == [(candidate, split) for candidate in range(6) for split in range(2)]
    assert (told[-1].n_fits_done, told[-1].n_fits) == (12, 12)
    assert told[-1].best_score == pytest.approx(search.best_score_)
    pytest.importorskip("optuna")
    told.clear()
    options = {"n_trials": 4, "batch_size": 1, "cv": 2, "storage": None, "random_state": 0, "error_score": 1.0}
    search = OptunaSearchCV(Fails(), {"label": [-1, 1]}, on_progress=told.append, **options).fit(X, Y)
    assert {trial.state.name for trial in search.study_.trials} == {"COMPLETE", "FAIL"}
    assert (told[-1].n_fits_done, told[-1].n_fits) == (8, 8)
    assert sum(one.fit is not None for one in told) == 8


@pytest.mark.parametrize("when", ["after a fit", "in training"])
def test_what_it_raises_ends_the_search(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerastoolkit.search._progress._SECONDS_BETWEEN_UPDATES", -1.0)

    def tell(progress: SearchProgress) -> None:
        if (progress.fit is None) == (when == "in training"):
            raise LookupError(when)

    search = GridSearchCV(network(), RATES, cv=2, on_progress=tell)
    with pytest.raises(LookupError, match=when):
        search.fit(X, Y)
    assert not hasattr(search, "cv_results_") and not hasattr(search, "_search_run")


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (SearchProgress(9, 0, 0.25, None, 3.0, None, None, None), "0 of 9 fits · training, 25%"),
        (SearchProgress(9, 3, 1.0, 0.5, 30.0, 60.0, None, None), "3 of 9 fits · best so far 0.5 · 1 min 0 s left"),
        (SearchProgress(9, 9, 0.0, 0.98765, 75.0, 0.0, None, None), "9 of 9 fits · best so far 0.9877 · 1 min 15 s"),
    ],
)
def test_in_words(progress: SearchProgress, text: str) -> None:
    assert str(progress) == text


# -- people -----------------------------------------------------------------------------------------------------------

DONE = SearchProgress(9, 3, 0.0, 0.5, 30.0, 60.0, None, None)


class Screen:
    """What a terminal shows of what was written to it: rows of text, and where the cursor is."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def console(self) -> Console:
        return Console(file=self.stream, force_terminal=True, width=100, _environ={"TERM": "xterm"})

    def rows(self) -> list[str]:
        rows, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.stream.getvalue()):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            elif part.startswith("\x1b"):
                if part.endswith("A"):
                    row = max(0, row - int(part[2:-1] or 1))
                elif part == "\x1b[2K":
                    rows[row] = ""
            else:
                rows[row] = rows[row][:column].ljust(column) + part + rows[row][column + len(part) :]
                column += len(part)
        return rows


def test_the_line_is_shown_and_gone_at_the_end() -> None:
    screen = Screen()
    with shown_line(screen.console()) as line:
        assert line is not None
        line(DONE)
        with shown_line(screen.console()) as inner:
            assert inner is None  # a search inside a search shows none
    assert "3 of 9 fits · best so far 0.5" in screen.stream.getvalue()
    assert not any(row.strip() for row in screen.rows())


def test_the_line_is_gone_after_an_error() -> None:
    screen = Screen()
    with pytest.raises(KeyboardInterrupt), shown_line(screen.console()) as line:
        assert line is not None
        line(DONE)
        raise KeyboardInterrupt
    assert not any(row.strip() for row in screen.rows())
    with shown_line(screen.console()) as line:
        assert line is not None  # and the next one may be shown


def test_nothing_is_written_where_the_output_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    GridSearchCV(Fails(), {"label": [0, 1]}, cv=2, verbose=1).fit(X, Y)
    assert capfd.readouterr() == ("Fitting 2 folds for each of 2 candidates, totalling 4 fits\n", "")


@pytest.mark.parametrize(("verbose", "shown"), [(0, False), (1, True)])
def test_without_verbose_nothing_is_shown(verbose: int, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(searches, "shown_line", lambda: shown_line(screen.console()))
    GridSearchCV(Fails(), {"label": [0, 1]}, cv=2, verbose=verbose).fit(X, Y)
    assert ("of 4 fits" in screen.stream.getvalue()) == shown
    assert not any(row.strip() for row in screen.rows() if not row.startswith("Fitting"))


def test_in_a_notebook_the_line_is_a_display_that_ends_empty() -> None:
    pytest.importorskip("nbclient")
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell(
        """
        from sklearn.datasets import load_iris
        from sklearn.dummy import DummyClassifier
        from kerastoolkit.search import GridSearchCV

        X, y = load_iris(return_X_y=True)
        GridSearchCV(DummyClassifier(), {"strategy": ["prior", "uniform"]}, cv=2, verbose=1).fit(X, y)
        print("done")
        """
    )
    shown: list[str] = []

    class Client(NotebookClient):
        def process_message(self, message: Any, *others: Any) -> Any:
            if message["msg_type"] == "update_display_data":
                shown.append(message["content"]["data"]["text/plain"])
            return super().process_message(message, *others)

    Client(nbformat.v4.new_notebook(cells=[cell]), timeout=600).execute()
    assert shown[-1] == "" and any("of 4 fits" in text for text in shown)
    left = [output for output in cell.outputs if output.output_type == "display_data"]
    assert [output.data for output in left] == [{"text/plain": ""}]
    assert all(output.output_type != "stream" or output.name == "stdout" for output in cell.outputs)
