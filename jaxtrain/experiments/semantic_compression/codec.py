"""Semantic compression: a learned codec of structured states, whose rate is in bits: an experiment.

`model.compressor.kind` says what is coded (`quantise`), `model.compressor.level` how much: the error of a number is
about that many per cent of its range, and more is fewer bits. `loss.target_bits` finds the level of a rate instead.

**Source:** Balle et al. 2018 (Variational image compression with a scale hyperprior); `nets`, `quantise` and
`objective` name theirs.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain import custom, duals, optim, rng, step
from jaxtrain.config import limits
from jaxtrain.experiments.semantic_compression import (checks, evaluate, layout, nets, nets_prior, objective,
                                                       predict, quantise, schema as schema_lib, semantics, sources)
from jaxtrain.nn import quantisers
from jaxtrain.types import Batch, Experiment, Metric, Splits, TrainState

INIT_ROWS = 4096  # a codebook starts at codes of these
FRESH = 16  # rows of a batch to which codes that are not used may move
TRACEABLE = ("model.compressor.level",)
CODE = ("loss.extra", "eval.metrics")
METRICS = {
    "loss": Metric("bits", "the objective: rate and what is lost by their weights", "lower"),
    "rate": Metric("bits a state", "rate of the latent under its density", "lower"),
    "recon": Metric("squared ranges", "squared error of numeric columns, weighted and summed", "lower"),
    "binary": Metric("bits", "-log2 probability of binary columns", "lower"),
    "categorical": Metric("bits", "-log2 probability of classes", "lower"),
    "semantic": Metric("", "loss of the features that carry meaning", "lower"),
    "kl": Metric("bits", "divergence of the latent from a standard Normal"),
    "commitment": Metric("", "squared distance of a latent from its codes", "lower"),
    "perplexity": Metric("codes", "effective number of codes, mean over slots", "higher"),
    "codes_used": Metric("codes", "codes that were used, mean over slots", "higher"),
    "level": Metric("", "level of compression"),
    "lr": Metric("", "learning rate"),
    "grad_norm": Metric("", "norm of the gradient before clipping"),
} | evaluate.METRICS
TAKEN = (*METRICS, "x", "weight", "lost", "square", "use")  # names that functions of the user's own may not have
LIMITS = sources.LIMITS | {
    "model.latent_dim": limits.whole(0, limits.MOST_WIDTH),
    "model.hidden_dims": limits.each(limits.whole(1, limits.MOST_WIDTH), 0, limits.MOST_DEPTH),
    "model.activation": limits.one_of(*nets.ACTIVATIONS),
    "model.grouped": limits.switch(),
    "model.num_components": limits.whole(1, 64),
    "model.compressor.kind": limits.one_of(*quantise.KINDS),
    "model.compressor.level": limits.at_least(*objective.LEVELS),
    "model.compressor.group_levels": limits.names(),
    "model.compressor.lossless": limits.switch(),
    "model.compressor.num_side": limits.whole(1, 256),
    "model.compressor.prior_dims": limits.each(limits.whole(1, 1024), 0, limits.MOST_DEPTH),
    "model.compressor.lattice": limits.one_of(*quantise.LATTICES),
    "model.compressor.num_codes": limits.whole(2, 4096),
    "model.compressor.num_slots": limits.whole(1, 256),
    "model.compressor.residual": limits.switch(),
    "model.compressor.levels": limits.each(limits.whole(2, 4096), 0, 256),
    "model.compressor.decay": limits.between(0, 1),
    "model.compressor.revive_below": limits.between(0, 1),
    "loss.feature_weights": limits.one_of(*semantics.WEIGHTS),
    "loss.feature_epochs": limits.whole(0),
    "loss.feature_shape": limits.one_of(*semantics.SHAPES),
    "loss.extra": limits.functions(),
    "eval.metrics": limits.functions(),
    "loss.target_bits": limits.at_least(0, 1e6),
    "loss.dual.interval": limits.whole(1),
    "loss.dual.rate": limits.at_least(0, 1e3),
    "loss.dual.average_rate": limits.at_least(1e-6, 1),
    "loss.dual.warmup_steps": limits.whole(0),
}


class CodecState(TrainState):
  """A TrainState with `level`, the dual variable of a target of bits; None without one."""
  level: Any = None


def load(config) -> Splits:
  """Reads or simulates the states, and makes a source of each part. Raises UserError."""
  custom.check_weights(config.loss)
  found = sources.load(config)
  schema = schema_lib.from_json(found.meta["schema"])
  checks.check(config, schema, num_slots(config, schema))
  return found


def levels_of(config, schema: schema_lib.Schema) -> tuple[int, ...]:
  """Levels of each slot, of the kind fsq."""
  return tuple(config.model.compressor.levels) or layout.default_levels(schema)


def num_slots(config, schema: schema_lib.Schema) -> int:
  """Latent dimensions of a config."""
  if config.model.compressor.kind == "fsq":
    return len(levels_of(config, schema))
  return config.model.latent_dim or len(schema.columns)


def make_problem(config, meta) -> objective.Problem:
  """The network, its quantiser and its loss of a config and the meta of its states."""
  settings, schema = config.model.compressor, schema_lib.from_json(meta["schema"])
  factors = checks.group_levels(settings.group_levels, schema)
  with_density = settings.kind in quantise.WITH_DENSITY
  plan = layout.make_layout(schema, num_slots(config, schema), factors, with_density)
  inputs = layout.inputs_of(schema, plan) if config.model.grouped else ()
  model = nets.Codec(
      layout=plan, inputs_of=inputs, hidden_dims=tuple(config.model.hidden_dims),
      num_components=config.model.num_components if with_density and settings.kind not in quantise.CONDITIONED else 0,
      scaled=with_density, with_variance=settings.kind == "none", activation=config.model.activation,
      precision=config.train.precision, prior=make_prior(config, plan))
  level = settings.level if settings.kind in quantise.WITH_LEVEL else None
  quantiser = quantise.make_plan(settings, plan, levels_of(config, schema))
  return objective.Problem(model, quantiser, schema, config.loss, level,
                           layout.column_weights(schema, factors), meta["steps_per_epoch"],
                           custom.named_functions("loss.extra", config.loss.extra, TAKEN),
                           custom.named_functions("eval.metrics", config.eval.metrics, TAKEN))


def make_prior(config, plan: layout.Layout) -> Any:
  """The module of a conditioned prior; None for other kinds."""
  settings = config.model.compressor
  if settings.kind == "hyperprior":
    return nets_prior.Hyperprior(plan, tuple(settings.prior_dims), settings.num_side, config.model.num_components)
  return nets_prior.Previous(plan, tuple(settings.prior_dims)) if settings.kind == "previous" else None


def make(config, meta) -> Experiment:
  """The experiment's pure functions. The learning rate, the loss weights and the level may be tracers."""
  p = make_problem(config, meta)
  settings, tx = config.model.compressor, optim.make(config.optim, meta["steps_per_epoch"])
  gradient = step.make_gradient(functools.partial(objective.loss_sums, p), functools.partial(objective.term_counts, p),
                                functools.partial(objective.weights, p))

  def init(key, sample):
    params_key, codes_key = jax.random.split(rng.stream_key(key, "init"))
    x = jnp.zeros((2, p.schema.width))
    params = p.model.init(params_key, x, jnp.float32(1.0))["params"]
    codes = start_codes(p, params, codes_key, sample)
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return CodecState(step=jnp.zeros((), jnp.int32), key=key, params=params,
                      model_state={} if codes is None else {"codes": codes}, opt_state=tx.init(params), ema=ema,
                      guard=step.init_guard(), level=duals.init(0.0) if config.loss.target_bits else None)

  def train_step(state, batch, key, over):
    noise_key, fresh_key, rows_key = jax.random.split(key, 3)
    batch = batch | objective.draw(p, noise_key, len(batch["weight"]))
    if p.plan.kind == "vq":
      batch |= {"fresh": fresh_rows(fresh_key, batch["weight"])}
    found = gradient(state, batch, rows_key, over)
    new, metrics = step.apply_gradient(found, state, tx, config.optim.ema_decay)
    if "codes" in state.model_state:
      new = new.replace(model_state={"codes": next_codes(p, settings, state.model_state["codes"], found)})
    if state.level is not None:
      rate = metrics["rate"][0] / metrics["rate"][1]
      new = new.replace(level=objective.next_level(p, state.level, rate, state.step))
    return new, metrics | step.counted({} if p.level is None else {"level": objective.current_level(p, state)})

  def eval_step(state, batch, key, over):
    return objective.evaluate(p, state, batch, key, over)

  return Experiment(init=init, train_step=train_step, eval_step=eval_step,
                    summarise=functools.partial(objective.summarise, p), observe=optim.make_observe(tx, config.optim),
                    assess=evaluate.make_assess(p, meta, settings.lossless),
                    predict=predict.make_verbs(p, meta, settings.lossless))


def start_codes(p: objective.Problem, params: Any, key: jax.Array, sample: Batch) -> Any:
  """A codebook fitted to the first training rows, or even shares of levels; None where there is neither."""
  if p.plan.kind == "fsq":
    levels = jnp.asarray(p.plan.levels)[:, None]
    return jnp.where(jnp.arange(p.plan.num_codes)[None] < levels, 1.0 / levels, 0.0)
  if p.plan.kind != "vq":
    return None
  y, _ = p.model.bind({"params": params}).analyse(sample["x"], jnp.float32(1.0))
  z = y if p.plan.residual else y.reshape(len(y), p.plan.num_slots, -1)
  return quantisers.start(key, z, p.plan.num_slots, p.plan.num_codes, p.plan.residual)


def fresh_rows(key: jax.Array, weight: jax.Array) -> jax.Array:
  """[B, FRESH] one-hot columns of rows of the batch, drawn from the real ones."""
  row = jax.random.choice(key, len(weight), (FRESH,), p=weight / jnp.sum(weight))
  return jax.nn.one_hot(row, len(weight)).T


def next_codes(p: objective.Problem, settings: Any, codes: Any, found: step.Gradient) -> Any:
  """Codes after a batch."""
  if p.plan.kind == "fsq":
    return settings.decay * codes + (1 - settings.decay) * found.sums["use"] / found.num_rows
  use, total = found.sums["use"] / found.num_rows, found.sums["total"] / found.num_rows
  book = quantisers.follow(codes, use, total, settings.decay)
  return quantisers.revive(book, found.sums["fresh"], settings.revive_below)
