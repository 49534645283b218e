"""Methods beside each other on the same tasks: means with intervals, and gains of one method over the others.

Intervals are of the mean over tasks, 95 %, by Student's t, as all of an assessment; a gain is the mean of the
differences task by task, so that what is hard about a task for all methods cancels. A gain above 0 is better.
"""

import numpy as np

from jaxtrain import statistics
from jaxtrain.experiments.causal_discovery import baselines, metrics

COMPARED = ("auroc", "auprc", "e_edge_f1", "e_shd", "ne_sid", "edge_nll_nats")
GAINS = ("auroc", "e_edge_f1")  # the gains that are scalars
MODEL = "model"
Tasks = dict[str, np.ndarray]


def of_baselines(batch: dict[str, np.ndarray], edge_probs: dict[int, float],
                 random: np.random.Generator) -> dict[str, Tasks]:
  """{baseline: {metric: [B]}} of a batch of tasks; NaN for metrics of probabilities where a baseline has none.

  Args:
    batch: `values`, `intervened` [B, n, D], `adjacency` [B, D, D], `node_mask` [B, D].
    edge_probs: number of variables -> probability of an ordered pair's edge in training graphs.
    random: draws the baselines' graphs.
  """
  truth, mask = batch["adjacency"], batch["node_mask"]
  made = [baselines.of_task(values, intervened, one, real, edge_probs[int(real.sum())], random)
          for values, intervened, one, real in zip(batch["values"], batch["intervened"], truth, mask)]
  scores, graphs = (np.concatenate([one[k] for one in made]) for k in (0, 1))
  repeat = lambda x: np.repeat(x, len(baselines.NAMES), axis=0)
  found = {name: np.asarray(value, np.float64).reshape(len(truth), -1)
           for name, value in metrics.of_tasks(repeat(truth), scores, graphs, repeat(mask)).items()}
  return {baseline: {name: np.full(len(truth), np.nan) if name in metrics.OF_PROBABILITIES and
                     baseline not in baselines.PROBABILITIES else value[:, k] for name, value in found.items()}
          for k, baseline in enumerate(baselines.NAMES)}


def table(methods: dict[str, Tasks], first: str = MODEL) -> dict[str, np.ndarray]:
  """Means, intervals and gains of methods, for `COMPARED`.

  Args:
    methods: method -> {metric: [T]} on the same tasks, NaN where a metric is not defined.
    first: the method whose gains over the others are asked.

  Returns:
    `methods` [M] and `metrics` [K], names; `mean`, `low`, `high` [M, K]; `gain`, `gain_low`, `gain_high` [M, K] of
    `first` over each method, over the tasks where both are defined. NaN where there is nothing to average.
  """
  values = np.stack([[tasks[name] for name in COMPARED] for tasks in methods.values()]).astype(np.float64)
  sign = np.asarray([1.0 if metrics.DESCRIBED[name].direction == "higher" else -1.0 for name in COMPARED])
  gains = sign[None, :, None] * (values[list(methods).index(first)][None] - values)
  found = {"methods": np.asarray(list(methods)), "metrics": np.asarray(COMPARED)}
  for mean, low, high, rows in (("mean", "low", "high", values), ("gain", "gain_low", "gain_high", gains)):
    flat = np.where(np.isfinite(rows), rows, np.nan).reshape(-1, rows.shape[-1])
    middle = statistics.moments(flat)[1]
    half = np.asarray([statistics.t_half_width(one[~np.isnan(one)]) for one in flat])
    found |= {name: value.reshape(rows.shape[:2]) for name, value in
              zip((mean, low, high), (middle, middle - half, middle + half))}
  return found


def scalars_of(found: dict[str, np.ndarray], first: str = MODEL) -> dict[str, float]:
  """`<metric>/baseline_<method>` and `<metric>_gain/baseline_<method>` of a table, each with half its interval.

  A gain less its half width is the lower end of the interval. Means that are not defined are left out.
  """
  scalars = {}
  for k, name in enumerate(found["metrics"].tolist()):
    for m, method in enumerate(found["methods"].tolist()):
      for end, part in (("", ("mean", "low", "high")), ("_gain", ("gain", "gain_low", "gain_high"))):
        mean, low, high = (float(found[one][m, k]) for one in part)
        if method != first and np.isfinite(mean) and (not end or name in GAINS):
          scalars |= {f"{name}{end}/baseline_{method}": mean, f"{name}{end}_ci95/baseline_{method}": (high - low) / 2}
  return scalars
