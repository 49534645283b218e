"""The assessment at the end of a run: every fixed task judged with more samples, by family, beside baselines.

Means over tasks come with the half width of their 95 % interval by Student's t (`_ci95`), as if tasks were independent
draws; consecutive ones share out the families evenly, so that intervals over all are on the wide side. Two baselines on
the same tasks: the empty graph, and edges at random with the density of the training graphs. An AUROC is over the tasks
that have both edges and pairs without.
"""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import statistics
from jaxtrain.experiments.causal_discovery import scores, training
from jaxtrain.types import Splits

HEADLINE = ("e_edge_f1", "auroc", "edge_nll_nats", "cyclicity", "acyclic_share", "edge_prob", "edge_density")
EXAMPLES = 6  # tasks whose graphs are kept for the figures
NUM_BINS = 10  # of the reliability diagram


def make_assess(config, meta, model: training.Model) -> dict[str, Callable]:
  """`(state, splits, key) -> (scalars, arrays)` for the fixed tasks of validation and of test."""
  num = config.eval.test_num_samples

  def one_batch(params, batch, key):
    values, defined, probs = training.judge(model, params, batch, key, num)
    truth, mask = batch["adjacency"], batch["node_mask"]
    flat = lambda t, m: jnp.broadcast_to(training.density_of(meta)(m), t.shape)
    random_nll = jax.vmap(lambda t, m: scores.edge_nll_nats(flat(t, m), t, m))(truth, mask)
    empty_nll = jax.vmap(lambda t, m: scores.edge_nll_nats(jnp.zeros_like(t), t, m))(truth, mask)
    return values, defined, {"random_edge_nll_nats": random_nll, "empty_edge_nll_nats": empty_nll}, probs

  def assess(name, state, splits: Splits, key):
    return assess_part(getattr(splits, name), jax.jit(one_batch), state.applied, key, meta)
  return {name: functools.partial(assess, name) for name in ("val", "test")}


def assess_part(source, one_batch: Callable, params: Any, key: jax.Array, meta: dict) -> tuple[dict, dict]:
  """(scalars, arrays) of the tasks of a source."""
  data, found, examples = jax.device_put(source.data), [], []
  data_key, drawn_key = jax.random.split(key)
  make = [jax.jit(source.in_bucket(k).batch_at) for k in range(len(source.buckets) or 1)]
  for step in range(source.num_batches):
    batch = make[source.bucket(step)](data, jnp.int32(step), data_key)
    values, defined, baselines, probs = jax.device_get(one_batch(params, batch, jax.random.fold_in(drawn_key, step)))
    batch = jax.device_get(batch)
    kept = batch["weight"] > 0
    values = {name: np.where(defined[name] > 0, value, np.nan) for name, value in values.items()} | baselines
    kinds = {"graph_kind": batch["graph_kind"], "mechanism_kind": dominant(batch["mechanism_kinds"]),
             "num_nodes": batch["node_mask"].sum(1)}
    found.append({name: np.asarray(value)[kept] for name, value in (values | kinds).items()})
    sizes = batch["node_mask"].sum(1).astype(int)  # real nodes come first
    examples += [(probs[b], batch["adjacency"][b], sizes[b]) for b in np.flatnonzero(kept)]
  if not examples:  # all tasks were rejected
    return {"rows": 0}, {}
  tasks = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
  scalars = {"rows": len(tasks["loss"])}
  for name in (*HEADLINE, "random_edge_nll_nats", "empty_edge_nll_nats"):
    scalars |= with_interval(name, tasks[name])
  scalars |= by_family(tasks, meta)
  side = max(len(truth) for _, truth, _ in examples)
  padded = lambda x: np.pad(x, [(0, side - len(x))] * 2)
  arrays = {f"task_{name}": value for name, value in tasks.items()}
  arrays["example_probs"] = np.stack([padded(p) for p, _, _ in examples[:EXAMPLES]])
  arrays["example_truth"] = np.stack([padded(t) for _, t, _ in examples[:EXAMPLES]])
  arrays |= reliability(examples)
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


def by_family(tasks: dict[str, np.ndarray], meta: dict) -> dict[str, float]:
  """Means of the graph metrics by family of graph and by family of mechanism (of tasks that have a single one)."""
  found = {}
  for kind, field in (("graph_kind", "graphs"), ("mechanism_kind", "mechanisms")):
    for k, text in enumerate(meta[field]):
      rows = tasks[kind] == k
      for name in ("e_edge_f1", "auroc", "edge_nll_nats"):
        found |= with_interval(name, tasks[name][rows], text) if rows.any() else {}
  return found


def reliability(examples: list) -> dict[str, np.ndarray]:
  """Pairs, mean probability and share of edges in equal bins of the predicted probability."""
  off = lambda x, d: x[:d, :d][~np.eye(d, dtype=bool)]
  p, t = (np.concatenate([off(one[k], one[2]) for one in examples]) for k in (0, 1))
  index = np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1)
  count = np.bincount(index, minlength=NUM_BINS)
  total = lambda x: np.bincount(index, weights=x, minlength=NUM_BINS) / np.maximum(count, 1)
  return {"reliability_count": count, "reliability_predicted": total(p), "reliability_true": total(t)}
