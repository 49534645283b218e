"""What training has in common for all models of causal discovery: streams, limits, steps, validation.

A model is a `Model` of pure functions: the terms of its loss for each task, and its posterior over graphs. Training
runs on an endless stream of simulated tasks (`tasks.py`), validation and test on fixed ones. Selection is by validation
tasks of the training distribution, so that no knowledge of a test distribution enters.

**Source:** Lorch et al. 2022 (AVICI), appendix C, for the dual ascent.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain import duals as duals_lib, optim, rng, step
from jaxtrain.config import limits
from jaxtrain.config.limits import Limit
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import audit, graphs, named, posterior, scores, signals, suites, tasks
from jaxtrain.experiments.causal_discovery import threshold
from jaxtrain.experiments.causal_discovery.metrics import DESCRIBED
from jaxtrain.types import Batch, Experiment, Metric, Splits, TrainState, Verb

NO_EDGES = 0.02  # sampled edges, as a share of the true ones, below which a posterior is called empty

INIT_ROWS = 0  # nothing starts from data
SINCE = {"data.corruptions": ("none",), "data.noise_mixture": "task", "data.val_families": (), "data.test_families": (),
         "eval.suite": ""}
METRICS = {
    "e_edge_f1": DESCRIBED["e_edge_f1"]._replace(key=True),
    "auroc": DESCRIBED["auroc"]._replace(key=True),
    "edge_nll_nats": DESCRIBED["edge_nll_nats"]._replace(key=True),
    "acyclic_share": DESCRIBED["acyclic_share"]._replace(key=True),
    "loss": Metric("nats", "negative log-likelihood of the edges without penalties, per ordered pair", "lower"),
    "edge": Metric("nats", "negative log-likelihood of the edges, per ordered pair", "lower"),
    "joint_log_prob_nats": Metric("nats", "log-probability of the whole true graph: of a model with orders the log of "
                                  "a mean over sampled orders, which is too low on average", "higher"),
    "inil_nats": Metric("nats", "negative log-likelihood of rows with an intervention, per row, by linear models "
                        "fitted to the sampled graphs on the other rows", "lower"),
    "inil_node_nats": Metric("nats", "inil_nats by the number of variables that were not set", "lower"),
    "true_inil_nats": Metric("nats", "inil_nats of the true graph", "lower"),
    "ece_pooled": Metric("", "expected calibration error of the edge probabilities of all tasks together, 10 equal "
                         "bins", "lower", limits=(0, 1)),
    "rows": Metric("tasks", "tasks that were assessed"),
    "rejected": Metric("", "share of simulated tasks that had a constant variable and were left out", limits=(0, 1)),
    "update_norm": Metric("", "norm of the change of the parameters in a step"),
    "lr": Metric("", "learning rate"),
    "grad_norm": Metric("", "norm of the gradient before clipping"),
    "*_gain": Metric("", "better than a baseline by so much, mean over tasks of the difference", "higher", 0.0),
    "random_*": Metric("", "the same for edges at random with the density of the training graphs"),
    "empty_*": Metric("", "the same for the empty graph"),
}
OTHERS = DESCRIBED | audit.METRICS | threshold.METRICS
METRICS = METRICS | {name: metric for name, metric in OTHERS.items() if name not in METRICS}
SEED = limits.whole(0, 2**32 - 1)
LIMITS = {f"data.{name}": limit for name, limit in tasks.LIMITS.items()} | {
    "data.graphs": limits.names(),
    "data.mechanisms": limits.names(),
    "data.noises": limits.names(),
    "data.corruptions": limits.names(),
    "data.val_families": limits.names(),
    "data.test_families": limits.names(),
    "eval.suite": Limit(lambda v: v in suites.SUITES, f"empty or {' | '.join(filter(None, suites.SUITES))}", str),
    "data.pad_to": limits.each(tasks.NUM_NODES, 0, limits.MOST_DEPTH),
    "data.intervention_value": limits.at_least(-1e12, 1e12),
    "data.intervention_scale": limits.at_least(0, 1e12),
    "data.normalize": limits.switch(),
    "data.reject_constant": limits.switch(),
    "data.task_chunk": limits.whole(1, limits.MOST_WIDTH),
    "data.eval_seed": SEED,
    "data.val_seeds": limits.each(SEED),
    "data.test_seeds": limits.each(SEED),
    "eval.max_val_tasks": limits.whole(1, limits.MOST_ROWS),
    "eval.max_test_tasks": limits.whole(0, limits.MOST_ROWS),
    "eval.val_num_samples": limits.whole(1, limits.MOST_WIDTH),
    "eval.test_num_samples": limits.whole(1, limits.MOST_WIDTH),
    "model.dropout_rate": limits.between(0, 1),
    "model.remat": limits.switch(),
    "model.sample_chunk": limits.whole(0, limits.MOST_ROWS),
}


class Model(NamedTuple):
  """A model of posteriors over graphs.

  Attributes:
    init: key -> parameters.
    terms: `(params, tasks, key, train) -> ({term: [B]}, probs [B, D, D])`, the terms of the loss, and edge
      probabilities (of a sampled order, where the model has orders).
    posterior: `(params, tasks, key, num) -> (loss [B], probs [B, D, D], graphs [B, num, D, D])`: the loss without
      penalties, marginal edge probabilities, samples. Where tasks have `known` [B, D, D] (1 an edge that is there, -1
      one that is not, 0 neither), probabilities and samples are conditioned on it.
    dual: terms that are constraints, each weighted by a dual variable.
    log_prob: `(params, tasks, key, num) -> [B]`, log-probability in nats of the whole true graph, of `num` orders where
      the model draws them; None where the model has none.
    ordered: whether its graphs have an order, and so at most one edge between two variables.
  """
  init: Callable[[jax.Array], Any]
  terms: Callable[[Any, Batch, jax.Array, bool], tuple[dict[str, jax.Array], jax.Array]]
  posterior: Callable[[Any, Batch, jax.Array, int], tuple[jax.Array, jax.Array, jax.Array]]
  dual: tuple[str, ...] = ()
  log_prob: Callable[[Any, Batch, jax.Array, int], jax.Array] | None = None
  ordered: bool = False


def bind(net: Any) -> tuple[Callable, Callable]:
  """`key -> parameters` and `(params, tasks, key, train) -> output` of a network; the key is that of its dropout.

  The rows of tasks may be in groups, `values` [B, G, n, D]: the output is then the mean of those of the groups.
  """
  def init(key):
    table = jnp.zeros((1, 2, 2))
    return net.init(rng.stream_key(key, "init"), table, table, jnp.ones((1, 2)), False)["params"]

  def apply(params, chunk, key, train):
    read = lambda values, intervened: net.apply({"params": params}, values, intervened, chunk["node_mask"], train,
                                                rngs={"dropout": key})
    if chunk["values"].ndim == 3:
      return read(chunk["values"], chunk["intervened"])
    groups = (jnp.moveaxis(chunk[name], 1, 0) for name in ("values", "intervened"))
    return jax.tree.map(lambda x: jnp.mean(x, 0), jax.lax.map(lambda rows: read(*rows), tuple(groups)))
  return init, apply


def density_of(meta: dict) -> Callable:
  """`node_mask [D] -> []`, the probability of an ordered pair's edge in training graphs of so many nodes."""
  sizes = jnp.asarray([int(d) for d in meta["edge_probs"]])
  density = jnp.asarray(list(meta["edge_probs"].values()), jnp.float32)
  return lambda node_mask: density[jnp.argmax(sizes == jnp.sum(node_mask))]


class State(TrainState):
  """State of training with the dual variables of constraints, by term."""
  duals: dict[str, duals_lib.Dual]


def load(config) -> Splits:
  """Streams of simulated tasks. Raises UserError where families, numbers of nodes, chunk and batch do not fit."""
  buckets = tasks.make_buckets(config.data.num_nodes, config.data.pad_to)
  spec = tasks.make_spec(config.data)
  batch_size, eval_size = config.train.batch_size, config.eval.batch_size or config.train.batch_size
  for name, size in (("train.batch_size", batch_size), ("eval.batch_size", eval_size)):
    if size % spec.task_chunk:
      raise UserError(f"config.data.task_chunk: got {spec.task_chunk}, allowed divisors of config.{name} = {size}")
  fixed = lambda purpose, num, seeds: tasks.make_fixed(spec, buckets, eval_size, purpose, config.data.eval_seed, num,
                                                       seeds)
  num_nodes, num_test = sorted(set(config.data.num_nodes)), config.eval.max_test_tasks
  judged = {split: named.of_config(config, split) for split in ("val", "test")}
  for made in (spec, *(family.spec for found in judged.values() for family in found)):
    check_sizes(config.model, made.num_rows + made.num_rows_int)
  sizes = sorted({*num_nodes, *(d for found in judged.values() for family in found for d in family.num_nodes)})
  known = {"num_nodes": num_nodes, "num_rows": spec.num_rows + spec.num_rows_int,
           "graphs": [family.text for family in spec.graphs],
           "mechanisms": [family.text for family in spec.mechanisms],
           "noises": [family.text for family in spec.noises],
           "edge_probs": {str(d): graphs.edge_probability(spec.graphs, d) for d in sizes},
           "table": {"source": f"simulated causal models of {' or '.join(map(str, num_nodes))} variables",
                     "rows": spec.num_rows + spec.num_rows_int},
           "uses_per_row": (spec.num_rows + spec.num_rows_int) * buckets.sizes[-1], "steps_per_epoch": 1}
  val = [named.source(family, config, "val") for family in judged["val"]]
  return Splits(tasks.make_stream(spec, buckets, batch_size),
                named.join(val) if val else fixed("val", config.eval.max_val_tasks, config.data.val_seeds),
                fixed("test", num_test, config.data.test_seeds) if num_test else None, known)


def check_sizes(model, num_rows: int) -> None:
  """Raises UserError for widths and chunks that do not divide what they have to; a model may have neither."""
  if "sample_chunk" in model and model.sample_chunk and num_rows > model.sample_chunk and num_rows % model.sample_chunk:
    raise UserError(f"config.model.sample_chunk: got {model.sample_chunk}, allowed 0 or divisors of the {num_rows} "
                    "rows of a task")
  if "num_heads" in model and "key_size" not in model and model.dim % model.num_heads:
    raise UserError(f"config.model.num_heads: got {model.num_heads}, allowed divisors of config.model.dim = "
                    f"{model.dim}")


def mean_over_pairs(x: jax.Array, tasks_: Batch) -> jax.Array:
  """[B]: means of [B, D, D] over the ordered pairs of real nodes."""
  pairs = jax.vmap(posterior.pair_mask)(tasks_["node_mask"])
  return jnp.sum(x * pairs, (1, 2)) / jnp.maximum(jnp.sum(pairs, (1, 2)), 1.0)


def make(config, meta, model: Model, assess: Callable, verbs: dict[str, Verb]) -> Experiment:
  """The pure functions of an experiment. The learning rate and the loss weights may be tracers."""
  tx = optim.make(config.optim, config.eval.every_steps)  # a stream has no epochs: a plateau decides with evaluations
  settings = config.model.dual if model.dual else None

  def init(key, sample):
    del sample
    params = model.init(key)
    duals = {name: duals_lib.init(settings.init) for name in model.dual}
    return State(step=jnp.zeros((), jnp.int32), key=key, params=params, model_state={}, opt_state=tx.init(params),
                 ema=jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None, guard=step.init_guard(),
                 duals=duals)

  def weights(state):
    return {name: weight * state.duals[name].weight if name in model.dual else weight
            for name, weight in config.loss.weights.items()}

  def loss_sums(params, state, chunk, key):
    del state
    terms, probs = model.terms(params, chunk, key, True)
    row = chunk["weight"]
    count = jnp.sum(row)
    extras = {"edge_prob": (row @ mean_over_pairs(probs, chunk), count),
              "edge_density": (row @ mean_over_pairs(chunk["adjacency"], chunk), count),
              "rejected": (jnp.sum(chunk["rejected"]), count + jnp.sum(chunk["rejected"]))}
    return step.Chunk({name: row @ value for name, value in terms.items()}, metrics=extras)

  def term_counts(batch):
    return {name: jnp.sum(batch["weight"]) for name in config.loss.weights}

  one_gradient = step.make_train_step(loss_sums, term_counts, weights, tx, ema_decay=config.optim.ema_decay)

  def train_step(state, batch, key, over):
    new, metrics = one_gradient(state, batch, key, over)
    one = jnp.ones(())
    moved = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), new.params, state.params)
    metrics = metrics | {"update_norm": (jnp.sqrt(sum(jax.tree.leaves(moved), jnp.zeros(()))), one)}
    duals = {name: duals_lib.ascend(dual, metrics[name][0] / jnp.maximum(metrics[name][1], 1.0), state.step, settings)
             for name, dual in state.duals.items()}
    return new.replace(duals=duals), metrics | {f"{name}_{word}": (value, one) for name, dual in duals.items()
                                                for word, value in (("dual", dual.weight), ("average", dual.average))}

  def eval_step(state, batch, key, over):
    judge_chunk = lambda chunk, chunk_key: evaluate(model, state.applied, chunk, chunk_key,
                                                    config.eval.val_num_samples)
    return over(judge_chunk, batch, key)

  return Experiment(init=init, train_step=train_step, eval_step=eval_step, observe=optim.make_observe(tx, config.optim),
                    assess=assess, predict=verbs, alarms=alarms,
                    describe=lambda: signals.describe(config))


def evaluate(model: Model, params: Any, chunk: Batch, key: jax.Array, num_samples: int) -> dict:
  """Sums and counts of the metrics of a chunk of tasks; see `scores.py` for their definitions."""
  values, defined, _ = judge(model, params, chunk, key, num_samples)
  row = chunk["weight"]
  return {name: (jnp.sum(jnp.where(row * defined[name] > 0, value, 0.0)), jnp.sum(row * defined[name]))
          for name, value in values.items()}


def judge(model: Model, params: Any, chunk: Batch, key: jax.Array,
          num_samples: int) -> tuple[dict[str, jax.Array], dict[str, jax.Array], jax.Array]:
  """({metric: [B]}, {metric: [B], 1 where it is defined}, edge probabilities [B, D, D]) of a chunk of tasks."""
  truth, mask = chunk["adjacency"], chunk["node_mask"]
  loss, probs, samples = model.posterior(params, chunk, key, num_samples)
  area, has_both = jax.vmap(scores.auroc)(probs, truth, mask)
  exponential, radius = jax.vmap(scores.cyclicity)(probs, mask)
  acyclic = jax.vmap(jax.vmap(scores.is_acyclic))(samples)
  values = {"loss": loss, "e_edge_f1": jax.vmap(scores.edge_f1)(samples, truth, mask), "auroc": area,
            "edge_nll_nats": jax.vmap(scores.edge_nll_nats)(probs, truth, mask), "cyclicity": exponential,
            "spectral_radius": radius, "acyclic_share": jnp.mean(acyclic, 1, dtype=jnp.float32),
            "edge_prob": mean_over_pairs(probs, chunk), "edge_density": mean_over_pairs(truth, chunk),
            "sampled_density": mean_over_pairs(jnp.mean(samples, 1), chunk)}
  every = jnp.ones_like(loss)
  return values, {name: has_both.astype(jnp.float32) if name == "auroc" else every for name in values}, probs


def alarms(means: dict[str, float]) -> list[str]:
  """Says where the posterior has hardly any edge."""
  if "val_sampled_density" not in means or not means["val_edge_density"] > 0:
    return []
  share = means["val_sampled_density"] / means["val_edge_density"]
  return [f"no edges: sampled graphs hold {100 * share:.2g} % of the true number"] * (share < NO_EDGES)
