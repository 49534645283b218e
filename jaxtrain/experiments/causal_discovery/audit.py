"""The assessment by named families of tasks (`named.py`): how well a model does away from what it was trained on.

Each family is a part of its own, `<split>-<name>`, so that a stop loses one of them at most; the part `test-id` holds
the tasks of the training distribution, and what a family changes is measured against those. The scalars of a family are
`<metric>/<name>` for the metrics of `SHOWN`, each with its interval, and

  auroc_over_<baseline>   AUROC less that of a baseline on the same tasks
  distance_*              distances from the training distribution (`shift.py`)
  threshold_f1            F1 of the graph at the threshold that was chosen on validation tasks of training
  ood_detection_auroc     how well edge entropy tells the family's tasks from those of training

Metrics of each task stand in the arrays, as `<name>.<metric>`.
"""

import functools
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import rng
from jaxtrain.experiments.causal_discovery import named, shift, threshold
from jaxtrain.types import Metric, Splits

SHOWN = ("auroc", "auprc", "e_edge_f1", "e_shd", "ne_sid", "edge_nll_nats", "graph_log_prob_nats",
         "joint_log_prob_nats", "edge_entropy_nats", "ece", "brier", "acyclic_share", "edge_density",
         "random_edge_nll_nats", "empty_edge_nll_nats", "threshold_f1", "threshold_f1_best")
OVER = ("correlation", "partial_correlation")  # baselines
METRICS = {
    "auroc_over_*": Metric("", "AUROC less that of a baseline on the same tasks, mean over tasks", "higher", 0.0),
    "distance_spectral": Metric("", "difference of the mean spectral radius of undirected graphs from training's"),
    "distance_kl_degree": Metric("nats", "Kullback-Leibler divergence of degrees from those of training graphs"),
    "distance_mechanism": Metric("", "difference of the share of variance that parents leave unexplained, by linear "
                                 "regression, from that in training tasks"),
    "ood_detection_auroc": Metric("", "probability that a task has the higher edge entropy than a training task", "",
                                  0.5, limits=(0, 1)),
}
Judge = Callable[[Any, Any, Any, Any], tuple[dict, dict]]  # (source, params, key, threshold) -> (scalars, arrays)


def make_calibration(config, judge: Judge) -> "Reference":
  """The validation tasks of the training distribution, on which the threshold of edges is chosen."""
  source = lambda splits: splits.val
  if config.data.val_families:
    source = lambda splits: named.source(named.of_training(config), config, "val")
  return Reference(lambda state, splits, key: judge(source(splits), state.applied, key, None))


def make_parts(config, split: str, judge: Judge, calibration: "Reference") -> dict[str, Callable]:
  """The parts of a split, `(state, splits, key) -> (scalars, arrays)`: one, or one for each family and `id`."""
  def chosen(state, splits):
    scalars, _ = calibration.of_state(state, splits, rng.stream_key(state.key, "assess_val"))
    return scalars["threshold"] if "threshold" in scalars else threshold.DEFAULT
  families = named.of_config(config, split)
  reference = calibration if split == "val" else Reference(
      lambda state, splits, key: judge(splits.test, state.applied, key, chosen(state, splits)))
  parts = {f"{split}-{named.TRAINING}" if families else split: reference.judged}
  for family in families:
    parts[f"{split}-{family.name}"] = functools.partial(assess_family, config, split, family, judge, chosen,
                                                        reference if split == "test" else None)
  return parts


class Reference:
  """The tasks of the training distribution, judged once for a state and kept for the parts that follow.

  Members of an ensemble have the same step and different keys, so that a state is known by both.
  """

  def __init__(self, judge: Callable):
    """judge: `(state, splits, key) -> (scalars, arrays)`."""
    self.judge, self.at, self.found = judge, None, None

  def judged(self, state: Any, splits: Splits, key: Any) -> tuple[dict, dict]:
    """(scalars, arrays) of those tasks."""
    self.at, self.found = self.seen(state), self.judge(state, splits, key)
    return self.found

  def of_state(self, state: Any, splits: Splits, key: Any) -> tuple[dict, dict]:
    """The same; judged again where what is kept is of another state, as after a stop."""
    return self.found if self.at == self.seen(state) else self.judged(state, splits, key)

  def seen(self, state: Any) -> tuple[bytes, bytes]:
    """What tells a state from others: its step and its key."""
    return np.asarray(state.step).tobytes(), np.asarray(jax.random.key_data(state.key)).tobytes()


def assess_family(config, split: str, family: named.Named, judge: Judge, chosen: Callable, reference: Reference | None,
                  state: Any, splits: Splits, key: Any) -> tuple[dict, dict]:
  """(scalars, arrays) of a family, without distances where there is no reference."""
  scalars, arrays = judge(named.source(family, config, split), state.applied, key, chosen(state, splits))
  if not arrays:  # all tasks were rejected
    return {f"rows/{family.name}": 0}, {}
  found = {name: value for metric in SHOWN for name, value in
           ((metric, scalars.get(metric)), (f"{metric}_ci95", scalars.get(f"{metric}_ci95"))) if value is not None}
  found |= {f"auroc_over_{baseline}{end}": scalars[name] for baseline in OVER for end in ("", "_ci95")
            if (name := f"auroc_gain{end}/baseline_{baseline}") in scalars}
  if reference is not None and (training := reference.of_state(state, splits, key)[1]):
    facts = [shift.of_arrays(one) for one in (arrays, training)]
    found |= {f"distance_{name}": value for name, value in shift.distances(*facts).items()}
    found["ood_detection_auroc"] = shift.detection_auroc(*(one["task_edge_entropy_nats"] for one in (arrays, training)))
  tasks = {name.removeprefix("task_"): value for name, value in arrays.items() if name.startswith("task_")}
  return ({f"{name}/{family.name}": value for name, value in ({"rows": scalars["rows"]} | found).items()},
          {f"{family.name}.{name}": value for name, value in tasks.items()})
