"""Every notebook, and the tour of the README, runs from top to bottom, and what the text says of its numbers holds.

`CLAIMS` has each sentence that leans on a number, as it stands in the text, with the number in the names of the
notebook and the range that keeps the sentence true. The ranges hold for seeds 0 to 4, which draw other rows and other
weights. One seed is run; `KERASTOOLKIT_TEST_SEEDS=5` runs five, and `-s` shows the numbers.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import runpy
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SEEDS = range(int(os.environ.get("KERASTOOLKIT_TEST_SEEDS", "1")))
TIME_LIMIT = 3600  # seconds for a cell, a net against what hangs


class Claim(NamedTuple):
    """A sentence, the number it leans on, and the range in which it is true."""

    sentence: str
    value: str
    low: float
    high: float


CLAIMS: dict[str, list[Claim]] = {
    "01_first_model": [
        Claim("For each of 569 tumours, thirty measurements", "len(X) * 1000 + X.shape[1]", 569_030, 569_030),
        Claim("a quarter of all rows", "len(y_test) / len(y)", 0.249, 0.253),
        Claim("The network has 3,201 weights", "network.model_.count_params()", 3201, 3201),
        Claim(
            "two running means for each weight, its step count and its learning rate",
            "sum(variable.numpy().size for variable in network.model_.optimizer.variables)",
            6404,
            6404,
        ),
        Claim(
            "Most of the fall comes in the first ten epochs",
            "((history.iloc[0] - history.iloc[9]) / (history.iloc[0] - history.iloc[-1]))[['loss', 'val_loss']].min()",
            0.5,
            1.1,
        ),
        Claim("Both reach more than 95 % accuracy", "folds.mean().min()", 0.95, 1),
        Claim(
            "their means differ by less than two in a hundred",
            "abs(folds['network'].mean() - folds['logistic regression'].mean())",
            0,
            0.02,
        ),
        Claim(
            "The best and the worst are less than two in a hundred apart",
            "results['mean_test_score'].max() - results['mean_test_score'].min()",
            0,
            0.02,
        ),
        Claim(
            "The winner is ahead of it by less than one in a hundred",
            "results['mean_test_score'].max() - results['mean_test_score'][0]",
            0,
            0.01,
        ),
        Claim("The accuracy is above 93 %", "accuracy", 0.93, 1),
        Claim("One tumour more or less is seven in a thousand", "1 / len(y_test)", 0.0065, 0.0075),
        Claim("predicts the same labels as before", "(again.predict(scaled) == best.predict(X_test)).mean()", 1, 1),
    ],
    "02_grid_search": [
        Claim("36 networks", "search.explain() == '36 fits trained together, as one program.'", 1, 1),
        Claim(
            "Its scores are the same, up to a row that rounding may tip over",
            "abs(scores['together'] - scores['one by one']).max()",
            0,
            0.004,
        ),
        Claim(
            "ends within two in a hundred of the same rate's score here",
            "abs(np.mean(by_hand_scores) - scores['together'].iloc[-1])",
            0,
            0.02,
        ),
        Claim(
            "in so few epochs the lowest stays behind the better ones",
            "scores['together'].max() - scores['together'].iloc[0]",
            0.02,
            0.7,
        ),
        Claim("which reach more than 96 % accuracy", "scores['together'].max()", 0.96, 1),
        Claim(
            "A fit with a callback that looks at every batch is trained by `Model.fit`",
            "'12 fits trained together, as 2 programs.\\n3 fits trained one by one by Model.fit' in partly.explain()",
            1,
            1,
        ),
        Claim("any scikit-learn tool are trained together", "'15 fits trained together' in report.explain()", 1, 1),
        Claim("Here that is nothing.", "again.explain() == 'No fits.'", 1, 1),
    ],
    "03_builders": [
        Claim("All six reach more than 94 % accuracy", "results['mean_test_score'].min()", 0.94, 1),
        Claim(
            "less than four in a hundred apart",
            "results['mean_test_score'].max() - results['mean_test_score'].min()",
            0,
            0.04,
        ),
        Claim("it reaches more than 95 % accuracy after a few seconds", "cnn_accuracy", 0.95, 1),
        Claim("the digit for more than 93 of 100 images", "right['digit']", 0.93, 1),
        Claim("even or odd for more than 96", "right['even']", 0.96, 1),
        Claim("the ink to within a tenth", "ink_error", 0, 0.1),
        Claim("In each of three folds more than 93 of 100 penguins", "by_species.min()", 0.93, 1),
        Claim("the network is less sure of the row that it is surest of", "surest[0] - surest[1]", 0.0005, 0.1),
        Claim("or with the focal loss", "surest[0] - surest[3]", 0.00001, 0.1),
    ],
    "04_transfer_learning": [
        Claim("it reaches more than 90 % accuracy on digits that it has not seen", "teacher_accuracy", 0.9, 1),
        Claim("even with random weights they are ahead of the pixels", "frozen.iloc[1].min() - from_pixels", 0.03, 0.5),
        Claim("clearly ahead of random weights, at either cut", "(frozen.iloc[0] - frozen.iloc[1]).min()", 0.05, 0.5),
        Claim("gets more out of the same features", "heads.best_score_ - frozen.iloc[0, 0]", 0.05, 0.5),
        Claim("trains as one program", "heads.explain() == '60 fits trained together, as one program.'", 1, 1),
        Claim("its accuracy is several in a hundred above that of the head alone", "after - before", 0.03, 0.5),
        Claim("which is enough here for more than 80 % accuracy", "on_photographs", 0.8, 1),
    ],
    "05_distribution": [
        Claim("leave a last batch of three rows", "len(X_train) % 32", 3, 3),
        Claim("up to the last digits of single precision", "difference", 0, 1e-5),
        Claim("Where the last batch is full, both are right.", "max(errors[0])", 0, 1e-5),
        Claim("Otherwise Keras alone is off in the second digit", "min(alone for alone, _ in errors[1:])", 0.005, 1),
        Claim("the prepared model is not", "max(prepared for _, prepared in errors)", 0, 1e-5),
        Claim("each device to take a full batch", "steps", 66, 66),
        Claim("A name can be pickled", "abs(again.predict_proba(X_test) - two.predict_proba(X_test)).max()", 0, 1e-6),
    ],
    "08_take_it_anywhere": [
        Claim("Labels and probabilities are those of the estimator", "same * (difference < 1e-5)", 1, 1),
        Claim("about a third as large", "small.n_bytes / whole.n_bytes", 0.25, 0.45),
        Claim("if fewer than 99 of 100 labels agree", "small.parity.agreement", 0.99, 1),
        Claim("Over HTTP the answers are the same", "over_http", 0, 1e-9),
    ],
    "README": [
        Claim(
            "12 fits trained together, as one program.",
            "search.explain() == '12 fits trained together, as one program.'",
            1,
            1,
        ),
        Claim("epochs trained, the history", "mine.n_iter_ == len(mine.history_['val_loss']) <= 50", 1, 1),
    ],
}


def words(text: str) -> str:
    """Text without the breaks of its lines."""
    return " ".join(text.split())


def prose(notebook: Any) -> str:
    return words(" ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown"))


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_seed(notebook: Any, seed: int) -> Any:
    """A copy that begins with another seed."""
    changed = copy.deepcopy(notebook)
    first = code(changed)[0]
    first.source, n_found = re.subn(r"^SEED = 0\b", f"SEED = {seed}", first.source, flags=re.MULTILINE)
    assert n_found == 1, "the first cell of code has no line `SEED = 0`"
    return changed


def executed(notebook: Any, claims: list[Claim], folder: Path) -> list[float]:
    """Runs a notebook in place, and looks up the numbers of the claims at its end."""
    asked = nbformat.v4.new_code_cell("[" + ", ".join(f"float({claim.value})" for claim in claims) + "]")
    notebook.cells.append(asked)
    resources = {"metadata": {"path": folder}}
    NotebookClient(notebook, timeout=TIME_LIMIT, kernel_name="python3", resources=resources).execute()
    notebook.cells.pop()
    values: list[float] = ast.literal_eval(asked.outputs[0].data["text/plain"])
    return values


def check(claims: list[Claim], values: list[float], text: str) -> None:
    for claim in claims:
        assert words(claim.sentence) in text, "the sentence is not in the text"
    lines = [
        f"{'holds' if low <= value <= high else 'BROKEN':7}{value:10.4g} in {low:g} to {high:g}: {sentence}"
        for (sentence, _, low, high), value in zip(claims, values, strict=True)
    ]
    print("", *lines, sep="\n")
    assert not [line for line in lines if line.startswith("BROKEN")]


def decimals(cell: Any) -> list[float]:
    """Numbers with a point in what a cell printed; not those of cells that say themselves that they vary."""
    if "varies" in cell.metadata.get("tags", []):
        return []
    return numbers_in(printed(cell))


def printed(cell: Any) -> str:
    """What a cell printed or ended with, without warnings and the like."""
    shown = [one for one in cell.outputs if one.get("name") != "stderr"]
    return "\n".join(one.text if one.output_type == "stream" else one.data.get("text/plain", "") for one in shown)


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


def test_there_are_notebooks_and_each_makes_claims() -> None:
    assert sorted([path.stem for path in NOTEBOOKS] + ["README"]) == sorted(CLAIMS)


@pytest.mark.timeout(7200)
# Its own child process and sockets are closed by the kernel's end, after pytest has looked.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_text_is_true(path: Path, seed: int) -> None:
    stored = nbformat.read(path, as_version=4)
    notebook = with_seed(stored, seed)
    values = executed(notebook, CLAIMS[path.stem], path.parent)
    check(CLAIMS[path.stem], values, prose(stored))
    if seed == 0:
        for then, now in zip(code(stored), code(notebook), strict=True):
            np.testing.assert_allclose(decimals(now), decimals(then), atol=0.15, err_msg=f"not as kept:\n{then.source}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_outputs(path: Path) -> None:
    cells = code(nbformat.read(path, as_version=4))
    assert any(cell.outputs for cell in cells)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


# -- the README -----------------------------------------------------------------------------------------------------


def tour(readme: str, seed: int) -> tuple[Any, int]:
    """The Python of the README as a notebook that ends with the cases of `benchmarks/what_breaks.py`; their number."""
    what_breaks = runpy.run_path(str(ROOT / "benchmarks" / "what_breaks.py"))
    ours = what_breaks["SETUP"].format(wrapper=what_breaks["WRAPPERS"]["kerastoolkit"])
    cases = [textwrap.indent(textwrap.dedent(case), "    ") for case in what_breaks["CASES"].values()]
    call = "try:\n    case()\nexcept ValueError as error:\n    print('refused:', error)"
    cases = [f"def case():\n{case}\n{call}" for case in cases]
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    sources = [re.sub(r"(random_state=|set_random_seed\()0", rf"\g<1>{seed}", one) for one in [*blocks, ours, *cases]]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), len(cases)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_tour_of_the_readme_runs_and_is_true(seed: int, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    notebook, n_cases = tour(readme, seed)
    check(CLAIMS["README"], executed(notebook, CLAIMS["README"], tmp_path), words(readme))
    table = re.findall(r"^\|.*\| ([^|]*) \|$", readme.split("## Why")[1], flags=re.MULTILINE)[2 : 2 + n_cases]
    for said, cell in zip(table, notebook.cells[-n_cases:], strict=True):
        answer = printed(cell)
        assert said.startswith("refused") == answer.startswith("refused"), answer
        if not said.startswith("refused"):
            np.testing.assert_allclose(numbers_in(answer), numbers_in(said), atol=0.06)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_page_on_extending_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(block) for block in blocks])
    claims = [
        Claim('@register_builder("gated")', "X.shape == (200, 5) and 'gated' in list_builders()", 1, 1),
        Claim("print(classifier.dna_.length) # 20", "classifier.dna_.length", 20, 20),
    ]
    notebook.cells[0].source = "from kerastoolkit.builders import list_builders\n" + notebook.cells[0].source
    check(claims, executed(notebook, claims, tmp_path), words(page))


def test_the_seconds_of_the_readme_are_those_of_the_benchmark() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    runs = json.loads((ROOT / "benchmarks" / "results" / "search.json").read_text(encoding="utf-8"))["runs"]
    rows = re.findall(r"^\| .*\|(.*)\|(.*)\| (.*) s \|$", readme, flags=re.MULTILINE)
    assert len(rows) == 5
    for row, case in zip(rows, "abgce", strict=True):
        for said, who in zip(row, ("scikeras", "sklearn-2", "ours"), strict=True):
            if said.strip():
                seconds = np.median([run["seconds"] * run["times"] for run in runs[case][who]])
                assert float(said.split()[0]) == pytest.approx(seconds, rel=0.06), (case, who)
