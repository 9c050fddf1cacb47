"""The worst candidates of a search stop at rungs; the others end as they would have without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import model_selection
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from kerastoolkit import KerasClassifier
from kerastoolkit.exceptions import KerasToolkitWarning, ParameterError
from kerastoolkit.search import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, Rungs
from kerastoolkit.search.rungs import Ladder, Refused
from kerastoolkit.training.fused import Fit, Trained

NAN = math.nan

# -- the rungs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_epochs", "parameters", "expected"),
    [
        (27, {}, [3, 9]),
        (9, {}, [1, 3]),
        (10, {}, [2, 6]),  # not 1, 3 and 9, of which the last would spare one epoch
        (100, {}, [12, 36]),
        (3, {}, [1]),
        (2, {}, [1]),
        (1, {}, []),
        (100, {"factor": 2}, [25, 50]),
        (30, {"factor": 4}, [2, 8]),
        (30, {"min_epochs": 1}, [1, 3, 9, 27]),
        (27, {"min_epochs": 1}, [1, 3, 9]),
        (30, {"min_epochs": 5, "factor": 2.5}, [5, 13]),  # 12.5 epochs are 13
        (30, {"min_epochs": 30}, []),
        (5, {"min_epochs": 1, "factor": 1.5}, [1, 2, 3, 4]),  # 1, 1.5, 2.25, 3.375
        (4, {"min_epochs": 1, "factor": 1.2}, [1, 2, 3]),  # 1, 1.2, 1.44, 1.73, 2.07, 2.49, 2.99, 3.58
    ],
)
def test_the_epochs_of_the_rungs(n_epochs: int, parameters: dict[str, Any], expected: list[int]) -> None:
    assert list(Rungs(**parameters).epochs(n_epochs)) == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factor": 1}, "`factor` of Rungs must be a number greater than 1; got 1."),
        ({"factor": NAN}, "`factor` of Rungs must be a number greater than 1; got nan."),
        ({"factor": math.inf}, "`factor` of Rungs must be a number greater than 1; got inf."),
        ({"min_epochs": 0}, "`min_epochs` of Rungs must be a whole number of at least 1, or None; got 0."),
        ({"min_epochs": 1.5}, "`min_epochs` of Rungs must be a whole number of at least 1, or None; got 1.5."),
        ({"mode": "less"}, "`mode` of Rungs must be 'auto', 'min' or 'max'; got 'less'."),
        ({"monitor": None}, "`monitor` of Rungs must be a name in the history; got None."),
        (
            {"monitor": "val_purity"},
            "`monitor` of Rungs is 'val_purity', a name that does not tell whether lower or higher values are better. "
            "Give mode='min' or mode='max'.",
        ),
    ],
)
def test_impossible_rungs_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        Rungs(**parameters)
    assert str(error.value) == message


# -- the rule -------------------------------------------------------------------------------------------------------


class Call:
    """A task of a search, as joblib hands it over."""

    def __init__(self, candidate: int, split: int) -> None:
        keywords = {"candidate_progress": (candidate, 9), "split_progress": (split, 9)}
        self.items = [(None, (), keywords)]


def entered(ladder: Ladder, candidate: int, split: int = 0, epochs: int = 4, **parameters: Any) -> Fit:
    """A fit that has entered from the task of a candidate and a split."""
    fit = Fit(None, None, epochs=epochs, **{"validation_data": (), **parameters})
    ladder.around(Call(candidate, split), lambda: ladder.enter(fit))()
    return fit


ONE_RUNG = {"min_epochs": 2}  # of four epochs


def stopped_of(waves: Sequence[Sequence[float]], **rungs: Any) -> list[int]:
    """Who is stopped at the rung of two epochs; candidates of a wave come there together."""
    ladder = Ladder(Rungs(**{**ONE_RUNG, **rungs}))
    values = [value for wave in waves for value in wave]
    columns = ladder.expect(len(values), 1)
    fits = [entered(ladder, candidate) for candidate in range(len(values))]
    monitor = rungs.get("monitor", "val_loss")
    stopping: set[Fit] = set()
    first = 0
    for wave in waves:
        some = dict(zip(fits[first:], wave, strict=False))
        # Before and after the rung nobody is compared: there the order is the other way round.
        assert ladder.judge({fit: (1, {monitor: -value}) for fit, value in some.items()}) == set()
        stopping |= ladder.judge({fit: (2, {monitor: value}) for fit, value in some.items()})
        left = {fit: (3, {monitor: -value}) for fit, value in some.items() if fit not in stopping}
        assert ladder.judge(left) == set()
        first += len(wave)
    told = [candidate for candidate, stopped in enumerate(columns["stopped_early"]) if stopped]
    assert told == [candidate for candidate, fit in enumerate(fits) if fit in stopping]
    return told


@pytest.mark.parametrize(
    ("waves", "rungs", "expected"),
    [
        pytest.param([[3, 1, 2]], {}, [0, 2], id="one of three goes on"),
        pytest.param([[3, 1, 2, 4]], {}, [0, 3], id="a third of four is two"),
        pytest.param([[6, 5, 4, 3, 2, 1]], {}, [0, 1, 2, 3], id="two of six"),
        pytest.param([[4, 3, 2, 1]], {"factor": 2}, [0, 1], id="half"),
        pytest.param([[4, 3, 2, 1]], {"factor": 100}, [0, 1, 2], id="the best always goes on"),
        pytest.param([[5]], {}, [], id="a candidate alone"),
        pytest.param([[1, 1, 1]], {}, [], id="all equal"),
        pytest.param([[1, 1, 2, 2, 2, 3]], {}, [2, 3, 4, 5], id="ties below"),
        pytest.param([[1, 2, 2, 2, 3, 3]], {}, [4, 5], id="ties across the border"),
        pytest.param([[NAN, 1, 2]], {}, [0, 2], id="NaN is worst"),
        pytest.param([[NAN, NAN, 1, NAN, 2, NAN]], {}, [0, 1, 3, 5], id="NaN never goes on"),
        pytest.param([[NAN]], {}, [0], id="not even alone"),
        pytest.param([[math.inf, 1, -math.inf]], {}, [0, 2], id="nor does what is infinite"),
        pytest.param([[3, 1, 2]], {"monitor": "val_accuracy"}, [1, 2], id="more is better"),
        pytest.param([[3, 1, NAN]], {"monitor": "val_accuracy"}, [1, 2], id="NaN is worst there, too"),
        pytest.param([[3, 1, 2]], {"monitor": "val_purity", "mode": "max"}, [1, 2], id="as the mode says"),
        pytest.param([[3, 1, 2]], {"monitor": "val_score_loss"}, [0, 2], id="the loss of an output called score"),
        # Those that come first are compared with each other, and nobody is called back.
        pytest.param([[5], [4], [3]], {}, [], id="each better than all before"),
        pytest.param([[3], [4], [5]], {}, [1, 2], id="each worse than the first"),
        pytest.param([[1], [9], [8], [2], [3]], {}, [1, 2, 4], id="one after another"),  # the fourth: 2nd of 4
        pytest.param([[6, 5, 4], [3, 2, 1]], {}, [0, 1, 3], id="in two waves"),  # 2nd of 6 go on: 2 and 1
    ],
)
def test_who_stops(waves: Any, rungs: dict[str, Any], expected: list[int]) -> None:
    assert stopped_of(waves, **rungs) == expected


def test_the_mean_over_the_folds_is_compared() -> None:
    ladder = Ladder(Rungs(factor=2, **ONE_RUNG))
    columns = ladder.expect(3, 2)
    values = {0: (1.0, 9.0), 1: (4.0, 4.0), 2: (1.0, NAN)}  # 5, 4 and none
    fits = {(c, s): entered(ladder, c, s) for c in values for s in (0, 1)}
    stopping = ladder.judge({fit: (2, {"val_loss": values[c][s]}) for (c, s), fit in fits.items()})
    # half of three is two: the first candidate goes on, though one of its folds is the worst of all
    assert stopping == {fits[2, 0], fits[2, 1]}
    assert list(columns["stopped_early"]) == [False, False, True]


def test_folds_that_come_later_follow_the_first() -> None:
    ladder = Ladder(Rungs(**ONE_RUNG))
    ladder.expect(3, 2)

    def comes(candidate: int, split: int, value: float) -> bool:
        fit = entered(ladder, candidate, split)
        return ladder.judge({fit: (2, {"val_loss": value})}) == {fit}

    assert not comes(0, 0, 1.0)
    assert not comes(0, 1, 9.0)  # its mean is 5 now
    assert comes(1, 0, 6.0)
    assert comes(1, 1, 0.0)  # its mean would be 3: too late, but it counts
    assert not comes(2, 0, 2.9)
    assert not comes(2, 1, 9.0)  # would be the worst: too late as well


def test_candidates_of_a_second_batch_are_others() -> None:
    ladder = Ladder(Rungs(**ONE_RUNG))
    first = ladder.expect(1, 1)
    fit = entered(ladder, 0)
    assert ladder.judge({fit: (2, {"val_loss": 1.0})}) == set()
    second = ladder.expect(2, 1)
    fits = [entered(ladder, 0), entered(ladder, 1)]
    assert ladder.judge({fits[0]: (2, {"val_loss": 2.0}), fits[1]: (2, {"val_loss": 0.5})}) == {fits[0]}
    assert (list(first["stopped_early"]), list(second["stopped_early"])) == ([False], [True, False])


def test_fits_of_more_epochs_are_compared_at_the_rungs_they_have_in_common() -> None:
    ladder = Ladder(Rungs(factor=3))
    ladder.expect(3, 1)
    short, long, another = entered(ladder, 0, epochs=27), entered(ladder, 1, epochs=81), entered(ladder, 2, epochs=81)
    values = {short: 3.0, long: 2.0, another: 1.0}

    def after(epoch: int) -> set[Fit]:
        return ladder.judge({fit: (epoch, {"val_loss": value}) for fit, value in values.items()})

    assert after(3) == set()  # a rung of the first alone
    assert after(9) == {short, long}


def test_of_the_fits_of_one_task_the_first_decides() -> None:
    ladder = Ladder(Rungs(**ONE_RUNG))
    ladder.expect(3, 1)
    fits: dict[int, list[Fit]] = {0: [], 1: []}
    for candidate, of_candidate in fits.items():
        of_candidate += [Fit(None, None, epochs=4, validation_data=()) for _ in range(2)]
        ladder.around(Call(candidate, 0), lambda some=of_candidate: [ladder.enter(fit) for fit in some])()
    firsts = {fits[0][0]: (2, {"val_loss": 5.0}), fits[1][0]: (2, {"val_loss": 4.0})}
    assert ladder.judge(firsts) == {fits[0][0]}
    seconds = {fits[0][1]: (2, {"val_loss": 8.0}), fits[1][1]: (2, {"val_loss": 9.0})}
    assert ladder.judge(seconds) == {fits[0][1]}
    third = entered(ladder, 2)
    assert ladder.judge({third: (2, {"val_loss": 4.5})}) == {third}  # worse than 4; nobody looks at the 9


def test_a_fit_that_is_validated_now_and_then_is_compared_after_its_next_validation() -> None:
    ladder = Ladder(Rungs(min_epochs=1, factor=3))
    ladder.expect(2, 1)
    fits = [entered(ladder, candidate, epochs=6, validation_freq=2) for candidate in (0, 1)]

    def after(epoch: int, **values: float) -> set[Fit]:
        return ladder.judge({fit: (epoch, {"loss": 0.0, **values}) for fit in fits})

    assert after(1) == after(2, val_loss=1.0) == after(3) == set()
    logs = {fits[0]: (4, {"loss": 0.0, "val_loss": 2.0}), fits[1]: (4, {"loss": 0.0, "val_loss": 1.0})}
    assert ladder.judge(logs) == {fits[0]}


def test_what_cannot_be_compared_stops_all_and_tells_each_why() -> None:
    ladder = Ladder(Rungs(monitor="val_auc", **ONE_RUNG))
    ladder.expect(3, 1)
    fits = [entered(ladder, candidate) for candidate in (0, 1)]
    assert ladder.judge({fit: (2, {"loss": 1.0, "val_loss": 1.0}) for fit in fits}) == set(fits)
    trained = [Trained(None), Trained(None)]
    ladder.finished(fits, trained)
    message = (
        "Rungs compare 'val_auc', and the history of a fit has only: 'loss', 'val_loss'. Name one of these: "
        "`early_stopping=Rungs(monitor='loss')`."
    )
    assert [str(one.error) for one in trained] == [message, message]
    with pytest.raises(Refused, match="val_auc"):  # and no other begins
        entered(ladder, 2)


# -- in a search ----------------------------------------------------------------------------------------------------

RATES = {"optimizer__learning_rate": list(np.logspace(-4.5, -0.5, 7))}
SCORES: dict[str, Any] = {"scoring": "neg_log_loss", "cv": KFold(3, shuffle=True, random_state=0)}


@pytest.fixture(scope="module")
def cancer() -> tuple[Any, Any]:
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X)[:240], y[:240]


def classifier(**parameters: Any) -> KerasClassifier:
    own = {} if "model" in parameters else {"hidden": (4,)}
    return KerasClassifier(**{**own, "epochs": 9, "validation_split": 0.25, "random_state": 0, **parameters})


def own_step(meta: Any) -> Any:
    """A model with a `train_step` of its own, which is left to `Model.fit`."""
    import keras

    class Own(keras.Sequential):
        def train_step(self, *arguments: Any) -> Any:
            return super().train_step(*arguments)

    return Own(
        [keras.Input((meta["n_features_in_"],)), keras.layers.Dense(2), keras.layers.Dense(1, activation="sigmoid")]
    )


def by_hand(histories: Any, waves: Any, rungs: Sequence[int], *, sign: int = 1, factor: float = 3) -> Any:
    """Epochs that each fit trains, from the whole histories of all: shape `(candidates, splits)`.

    Args:
        histories: What is compared, shape `(candidates, splits, epochs)`.
        waves: Fits that are trained together: lists of `(candidate, split)`.
    """
    n_epochs = np.full(histories.shape[:2], histories.shape[2])
    came = {rung: np.full(histories.shape[:2], NAN) for rung in rungs}
    end: dict[int, int] = {}
    judged = set()
    for wave in waves:
        for rung in rungs:
            there = [(c, s) for c, s in wave if end.get(c, rung) >= rung]
            for c, s in there:
                came[rung][c, s] = sign * histories[c, s, rung - 1]
            means = {c: np.nanmean(row) for c, row in enumerate(came[rung]) if not np.isnan(row).all()}
            going_on = sorted(means.values())[math.ceil(len(means) / factor) - 1]
            for c in {c for c, _ in there if c not in end and (rung, c) not in judged}:
                judged.add((rung, c))
                if means[c] > going_on:
                    end[c] = rung
    for c, epoch in end.items():
        n_epochs[c] = epoch
    return n_epochs


def together(n_candidates: int, n_splits: int) -> Any:
    return [[(c, s) for c in range(n_candidates) for s in range(n_splits)]]


def candidate_by_candidate(n_candidates: int, n_splits: int) -> Any:
    return [[(c, s) for s in range(n_splits)] for c in range(n_candidates)]


def fit_by_fit(n_candidates: int, n_splits: int) -> Any:
    return [[(c, s)] for c in range(n_candidates) for s in range(n_splits)]


def epochs_of(search: Any) -> Any:
    """Epochs by the histories, shape `(candidates, splits)`; the last fit of a search is not among them."""
    lengths = [len(one.history["loss"]) for one in search.report_.trained]
    return np.array(lengths).reshape(-1, search.n_splits_)


def assert_the_rule_was_followed(
    search: Any, plain: Any, rungs: Sequence[int], waves: Any, *, monitor: str = "val_loss"
) -> None:
    """Compares a search with rungs with the same search without."""
    results = search.cv_results_
    whole = np.array([one.history[monitor] for one in plain.report_.trained])
    whole = whole.reshape(-1, plain.n_splits_, whole.shape[-1])
    n_candidates, n_splits, n_epochs = whole.shape
    sign = -1 if monitor == "val_accuracy" else 1
    expected = by_hand(whole, waves(n_candidates, n_splits), rungs, sign=sign)
    stopped = expected[:, 0] < n_epochs
    assert 0 < stopped.sum() < n_candidates, "nothing is tested"
    assert_array_equal(epochs_of(search), expected)
    assert_array_equal(np.transpose([results[f"split{split}_n_epochs"] for split in range(n_splits)]), expected)
    assert_allclose(results["mean_n_epochs"], expected.mean(axis=1))
    assert_array_equal(results["stopped_early"], stopped)
    for name in [f"split{split}_test_score" for split in range(n_splits)] + ["mean_test_score"]:
        # Of fewer models a step computes the same up to rounding.
        assert_allclose(results[name][~stopped], plain.cv_results_[name][~stopped], atol=1e-5)
    # The best is the best of those that were trained to their end, and is trained to its end again.
    scores = np.where(stopped, -np.inf, results["mean_test_score"])
    assert search.best_index_ == np.argmax(scores)
    assert search.best_params_ == results["params"][search.best_index_]
    best = search.best_estimator_
    assert (best[-1] if isinstance(best, Pipeline) else best).n_iter_ == n_epochs


def searched(make: Any, X: Any, y: Any, early_stopping: Any = "rungs", **fit_params: Any) -> tuple[Any, Any]:
    """A search with rungs and without."""
    some = make().set_params(early_stopping=early_stopping)
    return some.fit(X, y, **fit_params), make().fit(X, y, **fit_params)


def test_a_grid_search(cancer: Any) -> None:
    search, plain = searched(lambda: GridSearchCV(classifier(), RATES, **SCORES), *cancer)
    assert {one.how for one in search.report_.trained} == {"fused"}
    assert_the_rule_was_followed(search, plain, [1, 3], together)
    assert "stopped_early" not in plain.cv_results_


def test_a_randomized_search(cancer: Any) -> None:
    search, plain = searched(
        lambda: RandomizedSearchCV(classifier(), RATES, n_iter=5, random_state=0, **SCORES), *cancer
    )
    assert_the_rule_was_followed(search, plain, [1, 3], together)


def test_a_pipeline_with_a_name_and_an_object(cancer: Any) -> None:
    rates = {f"kerasclassifier__{name}": values for name, values in RATES.items()}
    search, plain = searched(
        lambda: GridSearchCV(make_pipeline(StandardScaler(), classifier()), rates, **SCORES),
        *cancer,
        early_stopping=Rungs(min_epochs=2, factor=3),
    )
    assert_the_rule_was_followed(search, plain, [2, 6], together)


def test_accuracy_is_compared_the_other_way_round(cancer: Any) -> None:
    search, plain = searched(
        lambda: GridSearchCV(classifier(metrics=["accuracy"]), RATES, **SCORES),
        *cancer,
        early_stopping=Rungs(monitor="val_accuracy"),
    )
    assert_the_rule_was_followed(search, plain, [1, 3], together, monitor="val_accuracy")


def test_each_candidate_with_a_structure_of_its_own(cancer: Any) -> None:
    sizes = {"hidden": [(4,), (5,), (6,), (7,)], "optimizer__learning_rate": [0.003]}
    once = {**SCORES, "cv": ShuffleSplit(1, test_size=0.3, random_state=0)}
    search, plain = searched(lambda: GridSearchCV(classifier(), sizes, **once), *cancer)
    assert {one.how for one in search.report_.trained} == {"alone"}
    assert_the_rule_was_followed(search, plain, [1, 3], candidate_by_candidate)


def test_candidates_that_are_trained_in_turns(cancer: Any) -> None:
    sizes = {"hidden": [(4,), (5,), (6,), (7,)], "optimizer__learning_rate": [0.003]}
    search, plain = searched(lambda: GridSearchCV(classifier(), sizes, **SCORES), *cancer)
    assert {one.together for one in search.report_.trained} == {3}
    assert_the_rule_was_followed(search, plain, [1, 3], candidate_by_candidate)


def test_fits_that_are_left_to_keras(cancer: Any) -> None:
    grid = {"optimizer__learning_rate": [0.01, 0.001, 0.1]}
    # Tracing would take longer than training.
    estimator = classifier(model=own_step, epochs=4, batch_size=256, run_eagerly=True)
    search, plain = searched(lambda: GridSearchCV(estimator, grid, **{**SCORES, "cv": KFold(2)}), *cancer)
    assert {one.how for one in search.report_.trained} == {"Model.fit"}
    assert_the_rule_was_followed(search, plain, [1, 3], fit_by_fit)


def test_validation_in_every_second_epoch(cancer: Any) -> None:
    search = GridSearchCV(classifier(), RATES, early_stopping="rungs", **SCORES).fit(*cancer, validation_freq=2)
    assert set(np.unique(epochs_of(search))) == {2, 4, 9}  # the rungs are at 1 and 3
    assert_array_equal(search.cv_results_["mean_n_epochs"], epochs_of(search).mean(axis=1))


def test_a_callback_may_stop_a_fit_before_its_rung(cancer: Any) -> None:
    import keras

    class Stops(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    search = GridSearchCV(classifier(callbacks=Stops), RATES, early_stopping=Rungs(min_epochs=4), **SCORES)
    results = search.fit(*cancer).cv_results_
    assert_array_equal(results["mean_n_epochs"], 2)
    assert not results["stopped_early"].any()


def test_other_estimators_beside(cancer: Any) -> None:
    networks = {"model": [classifier()], "model__optimizer__learning_rate": [1e-4, 0.1]}
    grid = [{"model": [LogisticRegression()]}, networks]
    search = GridSearchCV(Pipeline([("model", classifier())]), grid, early_stopping="rungs", **SCORES).fit(*cancer)
    assert_array_equal(search.cv_results_["mean_n_epochs"][0], 0)
    assert not search.cv_results_["stopped_early"][0]
    assert search.cv_results_["stopped_early"][1:].sum() == 1


def test_several_scores_and_a_function_that_chooses(cancer: Any) -> None:
    scores = {**SCORES, "scoring": {"loss": "neg_log_loss", "accuracy": "accuracy"}}
    search = GridSearchCV(classifier(), RATES, refit="loss", early_stopping="rungs", **scores).fit(*cancer)
    stopped = search.cv_results_["stopped_early"]
    assert search.best_index_ == np.argmax(np.where(stopped, -np.inf, search.cv_results_["mean_test_loss"]))
    # Who chooses by a function chooses from all.
    search.set_params(refit=lambda results: int(np.flatnonzero(results["stopped_early"])[0])).fit(*cancer)
    assert search.cv_results_["stopped_early"][search.best_index_]


def fewest_epochs(estimator: Any, X: Any, y: Any) -> float:
    return -float(estimator.n_iter_)


def test_a_candidate_that_was_stopped_is_not_the_best_even_with_the_best_score(cancer: Any) -> None:
    search = GridSearchCV(classifier(), RATES, scoring=fewest_epochs, cv=2, early_stopping="rungs").fit(*cancer)
    assert search.cv_results_["stopped_early"][np.argmin(search.cv_results_["rank_test_score"])]
    assert not search.cv_results_["stopped_early"][search.best_index_]
    assert search.best_score_ == -9


def test_if_all_are_stopped_the_best_of_them_is_the_best(cancer: Any) -> None:
    import keras

    class Lost(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_loss"] = NAN

    search = GridSearchCV(classifier(callbacks=Lost), RATES, early_stopping="rungs", **SCORES)
    with pytest.warns(KerasToolkitWarning, match="The loss of the validation data has been nan"):
        search.fit(*cancer)
    assert search.cv_results_["stopped_early"].all()
    assert search.best_index_ == np.argmax(search.cv_results_["mean_test_score"])


# -- fits inside fits -----------------------------------------------------------------------------------------------


def test_the_members_of_an_ensemble_are_left_alone(cancer: Any) -> None:
    ensemble = BaggingClassifier(classifier(epochs=4, random_state=None), n_estimators=2, random_state=0)
    rates = {"estimator__optimizer__learning_rate": [1e-4, 1e-2, 1.0]}
    search, plain = searched(lambda: GridSearchCV(ensemble, rates, **SCORES), *cancer)
    assert {len(one.history["loss"]) for one in search.report_.trained} == {4}
    assert not search.cv_results_["stopped_early"].any()
    assert_array_equal(search.cv_results_["mean_n_epochs"], 0)
    assert_allclose(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=1e-5)


def test_the_last_fit_of_a_search_in_a_search_is_left_alone(cancer: Any) -> None:
    # scikit-learn's own, whose tasks look like those of the outer search
    inner = model_selection.GridSearchCV(
        classifier(epochs=4), {"optimizer__learning_rate": [1e-3, 1e-2, 1e-1, 1e-4, 1.0]}, cv=2
    )
    search = GridSearchCV(inner, {"estimator__hidden": [(3,)]}, early_stopping="rungs", cv=2).fit(*cancer)
    assert [len(one.history["loss"]) for one in search.report_.trained][-10:] == [4] * 10


def test_members_that_are_trained_one_after_the_other(cancer: Any) -> None:
    boosted = AdaBoostClassifier(classifier(epochs=6), n_estimators=2, random_state=0)
    rates = {"estimator__optimizer__learning_rate": [0.01, 0.1, 0.02]}
    search = GridSearchCV(boosted, rates, early_stopping=Rungs(min_epochs=3), **SCORES).fit(*cancer)
    assert search.cv_results_["stopped_early"].sum() == 2  # who has won with the first is not stopped at the second


# -- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "parameters", "message"),
    [
        ({}, {"early_stopping": "rung"}, "`early_stopping` must be 'rungs', a `Rungs` or None; got 'rung'."),
        ({}, {"early_stopping": True}, "`early_stopping` must be 'rungs', a `Rungs` or None; got True."),
        (
            {},
            {"early_stopping": "rungs", "journal": "no.db"},
            "`early_stopping` and `journal` do not go together: which candidates stop at a rung depends on all "
            "that came to it, and a resumed search would compare without those in the journal. Give one of them.",
        ),
        (
            {"validation_split": 0.0},
            {"early_stopping": "rungs"},
            "Rungs compare 'val_loss', and a fit of this search has no validation data. Give the estimator "
            "`validation_split=0.2`, or compare another value with `early_stopping=Rungs(monitor='loss')`.",
        ),
        (
            {},
            {"early_stopping": Rungs(monitor="val_auc")},
            "Rungs compare 'val_auc', and the history of a fit has only: 'loss', 'val_loss'. Name one of these: "
            "`early_stopping=Rungs(monitor='loss')`.",
        ),
    ],
    ids=["no such name", "no such object", "beside a journal", "without validation", "not in the history"],
)
@pytest.mark.parametrize("error_score", ["raise", np.nan])
def test_what_cannot_be_is_refused(
    cancer: Any, estimator: Any, parameters: Any, message: str, error_score: Any
) -> None:
    # The warnings that fits failed would be errors here: there are none, since the search ends at once.
    search = GridSearchCV(classifier(**{"metrics": [], **estimator}), RATES, error_score=error_score, **parameters)
    with pytest.raises(ParameterError) as error:
        search.fit(*cancer)
    assert str(error.value) == message


def test_one_candidate_that_cannot_be_compared_is_enough(cancer: Any) -> None:
    search = GridSearchCV(classifier(), {"validation_split": [0.2, 0.0]}, early_stopping="rungs", cv=2)
    with pytest.raises(ParameterError, match="a fit of this search has no validation data"):
        search.fit(*cancer)


def test_a_wrong_name_costs_the_epochs_to_the_first_rung_once(cancer: Any) -> None:
    import keras

    epochs = []

    class Counts(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            epochs.append(epoch)

    search = GridSearchCV(classifier(metrics=[], callbacks=Counts), RATES, early_stopping=Rungs(2, 3, "val_auc"), cv=2)
    with pytest.raises(ParameterError, match="'val_auc'"):
        search.fit(*cancer)
    assert sorted(epochs) == sorted([0, 1, 2] * 14)


def explode(meta: Any) -> Any:
    raise ZeroDivisionError("of the user")


def test_a_search_that_fails_for_another_reason_says_which(cancer: Any) -> None:
    search = GridSearchCV(classifier(model=explode), RATES, early_stopping="rungs", cv=2, error_score="raise")
    with pytest.raises(ZeroDivisionError, match="of the user"):
        search.fit(*cancer)
    with pytest.raises(ValueError, match="All the 14 fits failed") as error:
        search.set_params(error_score=np.nan).fit(*cancer)
    assert not isinstance(error.value, ParameterError)


def test_the_next_search_of_an_estimator_that_was_refused_works(cancer: Any) -> None:
    search = GridSearchCV(classifier(validation_split=0.0), RATES, early_stopping="rungs", **SCORES)
    with pytest.raises(ParameterError, match="validation data"):
        search.fit(*cancer)
    search.set_params(estimator__validation_split=0.25).fit(*cancer)
    assert search.cv_results_["stopped_early"].any()


# -- beside rungs ---------------------------------------------------------------------------------------------------


class Declining(BaseEstimator):  # type: ignore[misc]
    """Scores the worse the more it gets."""

    def __init__(self, quality: int = 0, effort: int = 1) -> None:
        self.quality = quality
        self.effort = effort

    def fit(self, X: Any, y: Any) -> Declining:
        self.fitted_ = True
        return self

    def score(self, X: Any, y: Any) -> float:
        return float(self.quality - 100 * self.effort)


def test_the_best_of_a_halving_search_is_of_the_last_round(cancer: Any) -> None:
    halving = {"resource": "effort", "max_resources": 4, "min_resources": 1, "factor": 2, "cv": 2, "random_state": 0}
    grid = {"quality": [1, 2, 3, 4]}
    search = HalvingGridSearchCV(Declining(), grid, **halving).fit(*cancer)
    theirs = model_selection.HalvingGridSearchCV(Declining(), grid, **halving).fit(*cancer)
    assert search.best_index_ == theirs.best_index_
    assert search.best_score_ == theirs.best_score_ == 4 - 400


def test_folds_may_come_from_a_generator(cancer: Any) -> None:
    X, y = cancer
    folds = SCORES["cv"]
    from_generator = GridSearchCV(classifier(epochs=2), RATES, cv=folds.split(X), early_stopping="rungs").fit(X, y)
    plain = GridSearchCV(classifier(epochs=2), RATES, cv=folds, early_stopping="rungs").fit(X, y)
    assert_array_equal(from_generator.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
