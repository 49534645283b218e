"""The assessment by named families of tasks (`named.py`): how well a model does away from what it was trained on.

Each family is a part of its own, `<split>-<name>`, so that a stop loses one of them at most; the part `test-id` holds
the tasks of the training distribution, and what a family changes is measured against those. The scalars of a family are
`<metric>/<name>` for the metrics of `SHOWN`, each with its interval, and

  auroc_over_<baseline>   AUROC less that of a baseline on the same tasks
  distance_*              distances from the training distribution (`shift.py`)
  ood_detection_auroc     how well edge entropy tells the family's tasks from those of training

Metrics of each task stand in the arrays, as `<name>.<metric>`.
"""

import functools
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain.experiments.causal_discovery import named, shift
from jaxtrain.types import Metric, Splits

SHOWN = ("auroc", "auprc", "e_edge_f1", "e_shd", "ne_sid", "edge_nll_nats", "graph_log_prob_nats",
         "joint_log_prob_nats", "edge_entropy_nats", "ece", "brier", "acyclic_share", "edge_density",
         "random_edge_nll_nats", "empty_edge_nll_nats")
OVER = ("correlation", "partial_correlation")  # baselines
METRICS = {
    "auroc_over_*": Metric("", "AUROC less that of a baseline on the same tasks, mean over tasks", "higher", 0.0),
    "distance_spectral": Metric("", "difference of the mean spectral radius of undirected graphs from training's"),
    "distance_kl_degree": Metric("nats", "Kullback-Leibler divergence of degrees from those of training graphs"),
    "distance_mechanism": Metric("", "difference of the share of variance that parents leave unexplained, by linear "
                                 "regression, from that in training tasks"),
    "ood_detection_auroc": Metric("", "probability that a task has the higher edge entropy than a training task", "",
                                  0.5),
}
Judge = Callable[[Any, Any, Any], tuple[dict, dict]]  # (source, params, key) -> (scalars, arrays)


def make_parts(config, split: str, judge: Judge) -> dict[str, Callable]:
  """The parts of a split, `(state, splits, key) -> (scalars, arrays)`: one, or one for each family and `id`."""
  whole = lambda state, splits, key: judge(getattr(splits, split), state.applied, key)
  families = named.of_config(config, split)
  if not families:
    return {split: whole}
  parts, reference = {}, Reference(whole)
  if split == "test":
    parts[f"{split}-{named.TRAINING}"] = reference.judged
  for family in families:
    parts[f"{split}-{family.name}"] = functools.partial(assess_family, config, split, family, judge,
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
    self.at, self.found = self.of(state), self.judge(state, splits, key)
    return self.found

  def arrays(self, state: Any, splits: Splits, key: Any) -> dict[str, np.ndarray]:
    """The arrays; judged again where they are of another state, as after a stop."""
    return self.found[1] if self.at == self.of(state) else self.judged(state, splits, key)[1]

  def of(self, state: Any) -> tuple[bytes, bytes]:
    """What tells a state from others: its step and its key."""
    return np.asarray(state.step).tobytes(), np.asarray(jax.random.key_data(state.key)).tobytes()


def assess_family(config, split: str, family: named.Named, judge: Judge, reference: Reference | None, state: Any,
                  splits: Splits, key: Any) -> tuple[dict, dict]:
  """(scalars, arrays) of a family, without distances where there is no reference."""
  scalars, arrays = judge(named.source(family, config, split), state.applied, key)
  if not arrays:  # all tasks were rejected
    return {f"rows/{family.name}": 0}, {}
  found = {name: value for metric in SHOWN for name, value in
           ((metric, scalars.get(metric)), (f"{metric}_ci95", scalars.get(f"{metric}_ci95"))) if value is not None}
  found |= {f"auroc_over_{baseline}{end}": scalars[name] for baseline in OVER for end in ("", "_ci95")
            if (name := f"auroc_gain{end}/baseline_{baseline}") in scalars}
  if reference is not None and (training := reference.arrays(state, splits, key)):
    facts = [shift.of_arrays(one) for one in (arrays, training)]
    found |= {f"distance_{name}": value for name, value in shift.distances(*facts).items()}
    found["ood_detection_auroc"] = shift.detection_auroc(*(one["task_edge_entropy_nats"] for one in (arrays, training)))
  tasks = {name.removeprefix("task_"): value for name, value in arrays.items() if name.startswith("task_")}
  return ({f"{name}/{family.name}": value for name, value in ({"rows": scalars["rows"]} | found).items()},
          {f"{family.name}.{name}": value for name, value in tasks.items()})
