"""The main job: from a table to a tuned network, an honest score, and a folder that tells how.

`plan_experiment` reads, describes and decides; whatever can be refused is refused there, within seconds and before
Keras is loaded. `Plan.run` trains: the models to beat and every candidate on the same folds of the training rows, then
the winner and the models to beat once on the test rows, and the winner beside the best simple model on folds of other
splits. `run_experiment` is both. An `Experiment` is what comes out, and can be saved as a folder with a report.

scikit-learn owns folds, scoring and `cv_results_`: the search is its `GridSearchCV`, fed a few candidates at a time.
Those of one structure come together and are trained as one program; they are few enough that a time budget is kept,
and that an interrupted search leaves almost all it has done.
"""

from __future__ import annotations

from kerastoolkit.experiment.plan import Plan, plan_experiment, run_experiment
from kerastoolkit.experiment.result import Experiment, load_experiment
from kerastoolkit.experiment.run import Progress

__all__ = ["Experiment", "Plan", "Progress", "load_experiment", "plan_experiment", "run_experiment"]
