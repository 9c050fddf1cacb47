"""The whole story in one call: from a table to a tuned network, an honest score, and a report.

`plan_experiment` reads the table and decides what to do; whatever can be refused is refused there, within seconds and
before Keras is loaded. `Plan.run` trains: the baselines and every candidate on the same folds of the training rows,
then the winner and the baselines once on the test rows, and finally the winner and the best baseline on folds of
other splits, to compare them. `run_experiment` does both. The result is an `Experiment`, which predicts new rows and
can be saved as a folder with a report.
"""

from __future__ import annotations

from kerastoolkit.experiment.plan import Plan, plan_experiment, run_experiment
from kerastoolkit.experiment.result import Experiment, load_experiment
from kerastoolkit.experiment.run import Progress

__all__ = ["Experiment", "Plan", "Progress", "load_experiment", "plan_experiment", "run_experiment"]
