"""All metrics of a posterior over graphs, for many tasks at once: what every method is judged by, ours or not.

A method gives for each task edge probabilities and sampled graphs; one that gives a single graph gives that graph as
both. `scores.py` and `distances.py` define the metrics; names with `e_` are means over the sampled graphs, and names
with `ne_` are those divided by their largest value.
"""

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery import distances, scores
from jaxtrain.experiments.causal_discovery.posterior import pair_mask
from jaxtrain.types import Metric

DESCRIBED = {
    "e_shd": Metric("edges", "ordered pairs that differ, mean over sampled graphs: a reversed edge costs 2", "lower"),
    "ne_shd": Metric("", "e_shd by the number of ordered pairs", "lower", limits=(0, 1)),
    "e_shd_rev1": Metric("edges", "unordered pairs that differ, mean over sampled graphs: a reversed edge costs 1",
                         "lower"),
    "ne_shd_rev1": Metric("", "e_shd_rev1 by the number of unordered pairs", "lower", limits=(0, 1)),
    "e_edge_f1": Metric("", "F1 of edges, mean over sampled graphs", "higher", limits=(0, 1)),
    "e_sid": Metric("pairs", "structural intervention distance, which is the parent-adjustment distance: ordered pairs "
                    "whose effect is wrong when adjusting for a sampled graph's parents, mean over sampled graphs",
                    "lower"),
    "ne_sid": Metric("", "e_sid by the number of ordered pairs", "lower", limits=(0, 1)),
    "ne_ancestor_distance": Metric("", "ancestor-adjustment distance: share of ordered pairs whose effect is wrong "
                                   "when adjusting for a sampled graph's ancestors, mean over sampled graphs", "lower",
                                   limits=(0, 1)),
    "auroc": Metric("", "probability that an edge has the higher probability than a pair without", "higher", 0.5,
                    limits=(0, 1)),
    "auprc": Metric("", "area under the precision-recall curve: average precision", "higher", limits=(0, 1)),
    "auprc_trapezoid": Metric("", "area under the precision-recall curve by trapezoids", "higher", limits=(0, 1)),
    "edge_nll_nats": Metric("nats", "negative log-likelihood of the edges, per ordered pair", "lower"),
    "graph_log_prob_nats": Metric("nats", "log-probability of the true graph if its edges were independent with the "
                                  "marginal probabilities: minus edge_nll_nats times the ordered pairs", "higher"),
    "edge_entropy_nats": Metric("nats", "entropy of the edge probabilities, per ordered pair"),
    "brier": Metric("", "mean squared error of the edge probabilities", "lower", limits=(0, 1)),
    "ece": Metric("", "expected calibration error of the edge probabilities of a task, 10 equal bins", "lower",
                  limits=(0, 1)),
    "ancestor_f1": Metric("", "F1 of pairs (ancestor, descendant), mean over sampled graphs", "higher", limits=(0, 1)),
    "skeleton_f1": Metric("", "F1 of joined pairs without direction, mean over sampled graphs", "higher",
                          limits=(0, 1)),
    "orientation_accuracy": Metric("", "share of joined true pairs with the true direction, mean over sampled graphs",
                                   "higher", 0.5, limits=(0, 1)),
    "correct_count": Metric("edges", "true edges sampled, mean over sampled graphs", "higher"),
    "reversed_count": Metric("edges", "true edges sampled in the other direction alone", "lower"),
    "fn_count": Metric("edges", "true edges sampled in neither direction", "lower"),
    "fp_count": Metric("edges", "sampled edges between pairs without one, or the reverse of a true edge that was also "
                       "sampled", "lower"),
    "cyclicity": Metric("", "tr exp(P) - d of the edge probabilities; 0 for an acyclic graph", "lower"),
    "spectral_radius": Metric("", "largest eigenvalue of the edge probabilities; 0 for an acyclic graph", "lower"),
    "acyclic_share": Metric("", "share of sampled graphs that are acyclic", "higher", limits=(0, 1)),
    "cyclic_share": Metric("", "share of sampled graphs with a directed cycle", "lower", limits=(0, 1)),
    "threshold_acyclic": Metric("", "share of tasks whose graph of the edges with probability above 0.5 is acyclic",
                                "higher", limits=(0, 1)),
    "sparsity_ratio": Metric("", "edges of a sampled graph by those of the true one, mean over sampled graphs"),
    "edge_prob": Metric("", "mean edge probability", limits=(0, 1)),
    "edge_density": Metric("", "share of ordered pairs with an edge", limits=(0, 1)),
    "sampled_density": Metric("", "share of ordered pairs with an edge, in sampled graphs", limits=(0, 1)),
}

OF_PROBABILITIES = ("edge_nll_nats", "graph_log_prob_nats", "edge_entropy_nats", "brier", "ece", "cyclicity",
                    "spectral_radius", "threshold_acyclic", "edge_prob")  # without meaning for scores of another scale


def of_task(truth: jax.Array, probs: jax.Array, samples: jax.Array, node_mask: jax.Array) -> dict[str, jax.Array]:
  """{name: []} of one task; arguments as of `of_tasks` without their first axis."""
  pairs = pair_mask(node_mask)
  truth, probs, samples = truth * pairs, probs * pairs, samples * pairs[None]
  num_pairs, num_true = jnp.maximum(jnp.sum(pairs), 1.0), jnp.sum(truth)
  defined = lambda value, is_defined: jnp.where(is_defined, value, jnp.nan)
  counts = scores.edge_counts(samples, truth, node_mask)
  sid, ancestor = map(jnp.mean, distances.adjustment_distances(truth, samples, node_mask))
  skeleton, orientation = scores.skeleton_scores(samples, truth, node_mask)
  precision, trapezoid, has_edges = scores.auprc(probs, truth, node_mask)
  nll = scores.edge_nll_nats(probs, truth, node_mask)
  brier, ece = scores.calibration(probs, truth, node_mask)
  exponential, radius = scores.cyclicity(probs, node_mask)
  acyclic = jnp.mean(jax.vmap(scores.is_acyclic)(samples), dtype=jnp.float32)
  sampled = jnp.mean(jnp.sum(samples, (1, 2)))
  found = {
      "e_shd": counts["shd"], "ne_shd": counts["shd"] / num_pairs, "e_shd_rev1": counts["shd_rev1"],
      "ne_shd_rev1": counts["shd_rev1"] / (0.5 * num_pairs), "e_edge_f1": scores.edge_f1(samples, truth, node_mask),
      "e_sid": sid, "ne_sid": sid / num_pairs, "ne_ancestor_distance": ancestor / num_pairs,
      "auroc": defined(*scores.auroc(probs, truth, node_mask)), "auprc": defined(precision, has_edges),
      "auprc_trapezoid": defined(trapezoid, has_edges), "edge_nll_nats": nll, "graph_log_prob_nats": -nll * num_pairs,
      "edge_entropy_nats": scores.edge_entropy_nats(probs, node_mask), "brier": brier, "ece": ece,
      "ancestor_f1": scores.ancestor_f1(samples, truth, node_mask), "skeleton_f1": skeleton,
      "orientation_accuracy": orientation, "cyclicity": exponential, "spectral_radius": radius,
      "acyclic_share": acyclic, "cyclic_share": 1.0 - acyclic,
      "threshold_acyclic": scores.is_acyclic(probs > 0.5).astype(jnp.float32),
      "sparsity_ratio": defined(sampled / jnp.maximum(num_true, 1.0), num_true > 0),
      "edge_prob": jnp.sum(probs) / num_pairs, "edge_density": num_true / num_pairs,
      "sampled_density": sampled / num_pairs}
  return found | {f"{name}_count": counts[name] for name in ("correct", "reversed", "fn", "fp")}


@jax.jit
def of_tasks(truth: jax.Array, probs: jax.Array, samples: jax.Array, node_mask: jax.Array) -> dict[str, jax.Array]:
  """The metrics of any method's graphs, task by task.

  Compiled once for each set of shapes. Tasks are done one after the other, so memory does not grow with T.

  Args:
    truth: [T, D, D], 1 where row causes column; acyclic.
    probs: [T, D, D], the method's probability of each edge; only their order counts for `auroc` and `auprc`.
    samples: [T, S, D, D], graphs of 0 and 1 that it draws; they may be cyclic. S = 1 for a method that finds one graph.
    node_mask: [T, D], 1 for real variables, 0 for padding, which has no part, whatever stands there.

  Returns:
    {name: [T] float32} for the names of `DESCRIBED`; NaN where a metric has no meaning: `auroc` without edges or
    without non-edges, `auprc` and `sparsity_ratio` without edges.
  """
  return jax.lax.map(lambda task: of_task(*task), jax.tree.map(
      lambda x: jnp.asarray(x, jnp.float32), (truth, probs, samples, node_mask)))
