"""What a course meets today: the same few lines with scikeras, with Keras' own wrapper, and with kerastoolkit.

    python benchmarks/what_breaks.py [--markdown]

Each case runs in a process of its own with the packages that are installed, and says what came out. Nothing is
expected beforehand: a wrapper that is mended changes the table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import textwrap

WRAPPERS = {
    "scikeras": "from scikeras.wrappers import KerasClassifier",
    "Keras' SKLearnClassifier": "from keras.wrappers import SKLearnClassifier as KerasClassifier",
    "kerastoolkit": "from kerastoolkit import KerasClassifier",
}

SETUP = """
import warnings
warnings.simplefilter("ignore")
import keras, numpy as np
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import StandardScaler
{wrapper}

keras_own = KerasClassifier.__module__.startswith("keras.")

def network(inputs, units, classes):
    # Keras' own wrapper trains on one-hot rows that it makes itself, and wants a softmax and a loss for them.
    layers = keras.layers
    softmax = keras_own or classes > 2
    last = layers.Dense(classes, activation="softmax") if softmax else layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((inputs,)), layers.Dense(units, activation="relu"), last])
    sparse = "sparse_categorical_crossentropy" if softmax else "binary_crossentropy"
    model.compile("adam", "categorical_crossentropy" if keras_own else sparse)
    return model

def iris_model():
    return network(4, 32, 3)

def cancer_model(units=8):
    return network(30, units, 2)

keras.utils.set_random_seed(0)
adapt = (lambda f: (lambda X, y, **k: f(**k))) if keras_own else (lambda f: f)
train = {{"fit_kwargs": dict(epochs=100, verbose=0)}} if keras_own else dict(epochs=100, verbose=0)
iris = load_iris(return_X_y=True)
iris = StandardScaler().fit_transform(iris[0]), iris[1]
cancer = load_breast_cancer(return_X_y=True)
cancer = StandardScaler().fit_transform(cancer[0]), cancer[1]

def fitted(estimator):
    return getattr(estimator, "model_")
"""

# One case: a question, the lines, and how the answer is shown.
CASES = {
    "Accuracy on iris in three folds, `cv=3` (labels sorted)": """
        X, y = iris
        estimator = KerasClassifier(adapt(iris_model), **train)
        print([round(float(s), 2) for s in cross_val_score(estimator, X, y, cv=3)])
    """,
    "Epochs trained in each fit of a grid search, `epochs=100`": """
        X, y = cancer
        seen = []
        def fit(self, *args, **kwargs):
            seen.append(kwargs.get("epochs", 1))
            return original(self, *args, **kwargs)
        for cls in keras.Model.__mro__:
            if "fit" in vars(cls):
                original = cls.fit
                cls.fit = fit
                break
        grid = {"model_kwargs": [{"units": 4}, {"units": 8}]} if keras_own else {"model__units": [4, 8]}
        GridSearchCV(KerasClassifier(adapt(cancer_model), **train), grid, cv=2, refit=False).fit(X, y)
        print(sorted(set(seen)))
    """,
    "Optimizer that is trained when `optimizer='sgd'` is asked for and the function compiles": """
        X, y = cancer
        estimator = KerasClassifier(cancer_model, optimizer="sgd", epochs=1, verbose=0)
        print(type(fitted(estimator.fit(X, y)).optimizer).__name__)
    """,
    "A grid over `units`, an argument of the build function": """
        X, y = cancer
        search = GridSearchCV(KerasClassifier(adapt(cancer_model), **train), {"units": [4, 8]}, cv=2)
        print("searched, best:", search.fit(X, y).best_params_)
    """,
    "`scoring='roc_auc'` on two classes": """
        X, y = cancer
        scores = cross_val_score(KerasClassifier(adapt(cancer_model), **train), X, y, cv=3, scoring="roc_auc",
                                 error_score="raise")
        print([round(float(s), 3) for s in scores])
    """,
    "Predictions on a table whose columns were swapped": """
        import pandas as pd
        X, y = load_breast_cancer(return_X_y=True, as_frame=True)
        estimator = KerasClassifier(adapt(cancer_model), **train).fit(X, y)
        print("accepted:", estimator.predict(X[X.columns[::-1]]).shape)
    """,
    "A misspelt parameter in a search, `optimizer__learning_rat`": """
        X, y = cancer
        search = GridSearchCV(
            KerasClassifier(cancer_model, epochs=1, verbose=0), {"optimizer__learning_rat": [1.0, 1e-9]}, cv=2)
        print("searched without a word, best:", search.fit(X, y).best_params_)
    """,
}


def run(wrapper: str, case: str) -> str:
    """Runs one case in a fresh process; the answer, or the error it ended with."""
    program = SETUP.format(wrapper=WRAPPERS[wrapper]) + textwrap.dedent(CASES[case])
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, env=environment
    )
    if finished.returncode == 0:
        return finished.stdout.strip().splitlines()[-1]
    errors = [line for line in finished.stderr.splitlines() if line and not line.startswith((" ", "\t"))]
    named = [line for line in errors if "Error" in line.split(":")[0]]
    return "error: " + (named or errors)[-1][:110]


def main() -> int:
    parser = argparse.ArgumentParser(description="What breaks elsewhere, and what happens here.")
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")
    markdown = parser.parse_args().markdown
    if markdown:
        print(f"| | {' | '.join(WRAPPERS)} |\n| --- |{' --- |' * len(WRAPPERS)}")
    for case in CASES:
        answers = [run(wrapper, case) for wrapper in WRAPPERS]
        if markdown:
            print(f"| {case} | {' | '.join(f'`{answer}`' for answer in answers)} |", flush=True)
        else:
            lines = (f"    {wrapper:26}{answer}" for wrapper, answer in zip(WRAPPERS, answers, strict=True))
            print(case, *lines, sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
