"""The assessment at the end of a run: every fixed task judged with more samples, by family, beside baselines.

All metrics of `metrics.py` are means over tasks, with half the width of their 95 % interval by Student's t (`_ci95`),
as if tasks were independent draws; consecutive ones share out the families evenly, so that intervals over all are on
the wide side. A metric is averaged over the tasks where it is defined. The baselines of `baselines.py` see the same
tasks; gains over them are of pairs of the same task (`comparison.py`).
"""

import functools
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import statistics
from jaxtrain.experiments.causal_discovery import audit, comparison, interventional, metrics, shift, tasks, threshold
from jaxtrain.experiments.causal_discovery import training
from jaxtrain.experiments.causal_discovery.scores import NUM_BINS

OWN = ("loss", "joint_log_prob_nats", "inil_nats", "inil_node_nats", "true_inil_nats")  # what is not of graphs alone
NO_DATA = ("random", "empty")  # baselines whose likelihood of edges has a scalar of its own
EXAMPLES = 6  # tasks whose graphs are kept for the figures


def make_assess(config, meta, model: training.Model) -> dict[str, Callable]:
  """`(state, splits, key) -> (scalars, arrays)` for the fixed tasks of validation and of test, and for families."""
  compiled = make_judge(config, model)
  judges = {split: functools.partial(assess_part, judge=compiled, meta=meta,
                                     seed=(config.data.eval_seed, tasks.PURPOSES.index(split)))
            for split in ("val", "test")}
  calibration = audit.make_calibration(config, judges["val"])
  return {name: part for split, judge in judges.items()
          for name, part in audit.make_parts(config, split, judge, calibration).items()}


def make_judge(config, model: training.Model) -> Callable:
  """Compiled `(params, batch, key) -> ({name: [B]} for names of OWN, probs [B, D, D], samples [B, S, D, D])`."""
  num = config.eval.test_num_samples

  def judge(params, batch, key):
    posterior_key, order_key = jax.random.split(key)
    loss, probs, samples = model.posterior(params, batch, posterior_key, num)
    found = {"loss": loss}
    if model.log_prob:
      found["joint_log_prob_nats"] = model.log_prob(params, batch, order_key, num)
    if config.data.num_rows_int:
      rows = (batch["values"], batch["intervened"], batch["node_mask"])
      inil = lambda graphs: jax.lax.map(lambda task: interventional.inil_nats(*task), (graphs, *rows))
      found["inil_nats"], found["inil_node_nats"] = inil(samples)
      found["true_inil_nats"] = inil(batch["adjacency"][:, None])[0]
    return found, probs, samples
  return jax.jit(judge)


def assess_part(source, params: Any, key: jax.Array, chosen: float | None, judge: Callable, meta: dict,
                seed: tuple[int, int]) -> tuple[dict, dict]:
  """(scalars, arrays) of the tasks of a source.

  `chosen` is the threshold of edges, None where it is to be chosen on these tasks; `judge` as of `make_judge`; `seed`
  is that of the baselines' graphs.
  """
  found, beside, examples = [], [], []
  data_key, drawn_key = jax.random.split(key)
  edge_probs = {int(d): p for d, p in meta["edge_probs"].items()}
  for step, batch in enumerate(tasks.batches(source, data_key)):
    own, probs, samples = judge(params, batch, jax.random.fold_in(drawn_key, step))
    values = metrics.of_tasks(batch["adjacency"], probs, samples, batch["node_mask"])
    own, values, probs, batch = jax.device_get((own, values, probs, batch))
    kept = batch["weight"] > 0
    sizes = batch["node_mask"].sum(1).astype(int)  # real nodes come first
    kinds = {"graph_kind": batch["graph_kind"], "mechanism_kind": dominant(batch["mechanism_kinds"]),
             "num_nodes": sizes} | shift.facts(batch)._asdict()
    found.append({name: np.asarray(value)[kept] for name, value in (own | values | kinds).items()})
    others = comparison.of_baselines(batch, edge_probs, np.random.default_rng((*seed, step)))  # for all runs
    beside.append({method: {name: value[kept] for name, value in one.items()} for method, one in others.items()})
    examples += [(probs[b], batch["adjacency"][b], sizes[b]) for b in np.flatnonzero(kept)]
  if not examples:  # all tasks were rejected
    return {"rows": 0}, {}
  join = lambda parts: {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
  methods = {comparison.MODEL: join(found)} | {name: join([one[name] for one in beside]) for name in beside[0]}
  scalars, arrays = summary(methods, examples, meta)
  return scalars | threshold.scalars_of(examples, chosen), arrays


def summary(methods: dict[str, comparison.Tasks], examples: list, meta: dict) -> tuple[dict, dict]:
  """(scalars, arrays) of the tasks of the model and of the methods beside it."""
  own = methods[comparison.MODEL]
  scalars = {"rows": len(own["loss"])}
  for name in (*OWN, *metrics.DESCRIBED):
    if name in own:
      scalars |= with_interval(name, own[name])
  for name in NO_DATA:
    scalars |= with_interval(f"{name}_edge_nll_nats", methods[name]["edge_nll_nats"])
  arrays = reliability(examples)
  gap = np.abs(arrays["reliability_true"] - arrays["reliability_predicted"])
  scalars["ece_pooled"] = float(arrays["reliability_count"] @ gap / arrays["reliability_count"].sum())
  compared = comparison.table(methods)
  scalars |= by_family(own, meta) | comparison.scalars_of(compared)
  side = max(len(truth) for _, truth, _ in examples)
  padded = lambda x: np.pad(x, [(0, side - len(x))] * 2)
  arrays |= {f"task_{name}": value for name, value in own.items()}
  arrays |= {f"compared_{name}": value for name, value in compared.items()}
  arrays["example_probs"] = np.stack([padded(p) for p, _, _ in examples[:EXAMPLES]])
  arrays["example_truth"] = np.stack([padded(t) for _, t, _ in examples[:EXAMPLES]])
  return scalars, arrays


def dominant(kinds: np.ndarray) -> np.ndarray:
  """[B]: the mechanism of all nodes of a task, -1 where they differ; kinds [B, D] is -1 in padding."""
  first = kinds.max(1)
  return np.where(((kinds == first[:, None]) | (kinds < 0)).all(1), first, -1)


def with_interval(name: str, values: np.ndarray, item: str = "") -> dict[str, float]:
  """Mean over the tasks where a metric is defined, and half the width of its 95 % interval."""
  values, end = values[np.isfinite(values)], f"/{item}" * bool(item)
  if not values.size:
    return {name + end: float("nan")}
  return {name + end: float(values.mean()), f"{name}_ci95{end}": statistics.t_half_width(values)}


def by_family(own: dict[str, np.ndarray], meta: dict) -> dict[str, float]:
  """Means of the graph metrics by family of graph and by family of mechanism (of tasks that have a single one)."""
  found = {}
  for kind, field in (("graph_kind", "graphs"), ("mechanism_kind", "mechanisms")):
    for k, text in enumerate(meta[field]):
      rows = own[kind] == k
      for name in ("e_edge_f1", "auroc", "edge_nll_nats"):
        found |= with_interval(name, own[name][rows], text) if rows.any() else {}
  return found


def reliability(examples: list) -> dict[str, np.ndarray]:
  """Pairs, mean probability and share of edges in equal bins of the predicted probability."""
  off = lambda x, d: x[:d, :d][~np.eye(d, dtype=bool)]
  p, t = (np.concatenate([off(one[k], one[2]) for one in examples]) for k in (0, 1))
  index = np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1)
  count = np.bincount(index, minlength=NUM_BINS)
  total = lambda x: np.bincount(index, weights=x, minlength=NUM_BINS) / np.maximum(count, 1)
  return {"reliability_count": count, "reliability_predicted": total(p), "reliability_true": total(t)}
