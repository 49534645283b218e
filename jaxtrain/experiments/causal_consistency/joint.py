"""A joint model of covariates, a treatment that is recorded for some rows, and outcomes: an experiment.

`train.backend`: `em` and `trainer` take the loss of `objectives`; `trainer` insists on a validation part and patience,
which the one loop gives to every backend. `svi` has the same likelihood as a NumPyro model (`svi`). With
`model.bayesian` the parameters of the outcome networks are latent (`bayes`), and effects have posterior intervals.

**Source:** the causal-consistency system; `nets`, `objectives` and `consistency` say what is repaired.
"""

import functools

import jax
import jax.numpy as jnp

from jaxtrain import optim, rng, schedules, step
from jaxtrain.config import limits
from jaxtrain.data import tabular
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import (bayes, consistency, evaluate, evaluate_estimators, generators,
                                                     nets, objectives, outputs, predict, sources, svi)
from jaxtrain.types import Experiment, Metric, Splits, TrainState

BACKENDS = ("em", "svi", "trainer")
INIT_ROWS = 0  # nothing starts from data
TRACEABLE = ("loss.tau", "loss.beta")
CODE = ("data.source",)
METRICS = {
    "loss": Metric("nats", "negative log-likelihood of a row: of y and z where the treatment is recorded, else of z",
                   "lower"),
    "z_yx": Metric("nats", "-log p(z|x,y) of recorded rows", "lower", words="−log p(z | x, y)"),
    "y_xz": Metric("nats", "-log p(y|x,z) of recorded rows, by the imputing head", "lower", words="−log p(y | x, z)"),
    "x_yz": Metric("nats", "-log p(x|y,z) of recorded rows", "lower", words="−log p(x | y, z)"),
    "y_x": Metric("nats", "-log p(y|x) of recorded rows, the propensity", "lower", words="−log p(y | x)"),
    "w_x": Metric("nats", "-log p(w|x), the instruments", "lower", words="−log p(w | x)"),
    "marginal": Metric("nats", "-log p(z|x) of rows without a treatment", "lower"),
    "unlabelled": Metric("nats", "what rows without a treatment add to the objective", "lower"),
    "bound": Metric("nats", "NumPyro's loss of a row", "lower"),
    "entropy": Metric("nats", "entropy of imputed treatments"),
    "consistency_y": Metric("nats", "KL of Bayes' rule against the imputing head", "lower",
                            words="consistency of p(y | x, z)"),
    "consistency_x": Metric("nats", "KL of Bayes' rule against p(x|y,z), over 16 rows", "lower",
                            words="consistency of p(x | y, z)"),
    "accuracy": Metric("", "share of recorded rows whose treatment the head finds", "higher", limits=(0, 1)),
    "kl": Metric("nats", "divergence of the parameters' posterior from their prior"),
    "tau": Metric("", "temperature of the treatment's posterior", words="temperature tau"),
    "beta": Metric("", "weight of rows without a treatment", words="weight beta"),
    "lr": Metric("", "learning rate"),
    "grad_norm": Metric("", "norm of the gradient before clipping"),
} | evaluate_estimators.METRICS | evaluate.METRICS  # key results stand in this order
SCHEDULE = {"shape": limits.one_of(*schedules.KL_SHAPES), "start": limits.at_least(0, 1e6),
            "num_epochs": limits.whole(0)}
RATE = limits.Limit(limits.between(0, 1).test, "0 or more and below 1: with no treatment recorded, nothing says which "
                    "class is which", float)
LIMITS = {
    "data.source": tabular.source_limit(sources.KNOWN),
    "data.treatment": limits.text(),
    "data.outcomes": limits.names(),
    "data.instruments": limits.names(),
    "data.seed": limits.whole(-1, 2**31 - 1),
    "data.num_samples": limits.whole(10, limits.MOST_ROWS),
    "data.num_classes": limits.whole(2, 256),
    "data.simulation": limits.whole(1, 10),
    "data.noise_std": limits.at_least(1e-6, 1e6),
    "data.confounding": limits.at_least(0, 1e3),
    "data.missing_mechanism": limits.one_of(*generators.MECHANISMS),
    "data.missing_rate": RATE,
    "data.mnar_strength": limits.at_least(0, 1),
    "data.instrument_dim": limits.whole(1, 256),
    "data.instrument_strength": limits.at_least(0, 1e3),
    "data.hidden_confounding": limits.at_least(0, 1e3),
    "model.hidden_dims": limits.each(limits.whole(1, limits.MOST_WIDTH), 0, limits.MOST_DEPTH),
    "model.activation": limits.one_of(*nets.ACTIVATIONS),
    "model.dropout_rate": limits.between(0, 1),
    "model.min_sd": limits.at_least(1e-6, 1e3),
    "model.bayesian": limits.switch(),
    "model.prior_sd": limits.at_least(1e-3, 1e3),
    "loss.objective": limits.one_of(*objectives.OBJECTIVES),
    "loss.consistency": limits.one_of(*objectives.CONSISTENCY),
    "loss.tau": limits.zero_or(1e-3, 1e6),
    "loss.beta": limits.at_least(0, 1e6),
    "loss.warmup_epochs": limits.whole(0),
    "train.backend": limits.one_of(*BACKENDS),
} | {f"loss.{name}_schedule.{field}": limit for name in ("tau", "beta") for field, limit in SCHEDULE.items()}


def load(config) -> Splits:
  """Reads or simulates the table, hides treatments, and makes a source of each part. Raises UserError."""
  check_backend(config)
  found = sources.load(config)
  if config.loss.consistency == "both" and found.meta["instruments"]:
    raise UserError("config.loss.consistency: got 'both', allowed none | y with instruments: p(y | x) is not modelled "
                    "then")
  if config.train.backend == "trainer" and (found.val is None or not config.train.patience):
    what = "a validation part" if found.val is None else "config.train.patience above 0"
    raise UserError(f"config.train.backend: got 'trainer', which needs {what}")
  return found


def check_backend(config) -> None:
  """Raises UserError where the NumPyro model does not have what the loss asks for."""
  if config.train.backend != "svi":
    return
  loss, why = config.loss, "with config.train.backend=svi, which maximises a likelihood"
  if loss.objective not in svi.OBJECTIVES:
    raise UserError(f"config.loss.objective: got {loss.objective!r}, allowed {' | '.join(svi.OBJECTIVES)} {why}")
  for name in ("tau", "beta"):
    if loss[name] != 1.0 or loss[f"{name}_schedule"].shape != "constant":
      raise UserError(f"config.loss.{name}: got {loss[name]} and the schedule {loss[f'{name}_schedule'].shape}, "
                      f"allowed 1 throughout {why}")
  for name in ("z_yx", "y_x"):
    if loss.weights[name] != 1.0:
      raise UserError(f"config.loss.weights.{name}: got {loss.weights[name]}, allowed 1 {why}")
  if loss.weights.w_x == 0:
    raise UserError("config.loss.weights.w_x: got 0, allowed above 0 with config.train.backend=svi")
  if config.model.dropout_rate:
    raise UserError(f"config.model.dropout_rate: got {config.model.dropout_rate}, allowed 0 with "
                    "config.train.backend=svi")


def make_model(config, meta) -> nets.Joint:
  """The network of a config and a table."""
  model = config.model
  return nets.Joint(num_classes=len(meta["class_names"]), num_covariates=len(meta["covariates"]),
                    num_instruments=len(meta["instruments"]), num_outcomes=len(meta["outcomes"]),
                    hidden_dims=tuple(model.hidden_dims), activation=model.activation,
                    dropout_rate=model.dropout_rate, min_sd=model.min_sd, precision=config.train.precision)


def make(config, meta) -> Experiment:
  """The experiment's pure functions. The learning rate, the loss weights, tau and beta may be tracers."""
  model, split = make_model(config, meta), functools.partial(sources.split_columns, meta)
  tx = optim.make(config.optim, meta["steps_per_epoch"])
  p = objectives.Problem(model, split, config.loss, meta["steps_per_epoch"])
  backend = svi if config.train.backend == "svi" else objectives
  prior_sd, bayesian = config.model.prior_sd, config.model.bayesian

  def init(key, sample):
    del sample
    row = {"x": jnp.zeros((2, len(meta["features"])))}
    params = model.init(rng.stream_key(key, "init"), *split(row))["params"]
    params = bayes.init(params, prior_sd) if bayesian else params
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), key=key, params=params, model_state={},
                      opt_state=tx.init(params), ema=ema, guard=step.init_guard())

  def weights(state):
    found = backend.weights(p, state.step)
    return found | {"kl": config.loss.weights.kl / meta["rows"]["train"]} if bayesian else found

  def counts(batch):
    return backend.term_counts(p, batch) | ({"kl": jnp.ones(())} if bayesian else {})

  def train_step(state, batch, key, over):
    noise_key, rows_key = jax.random.split(key)
    noise = bayes.noise_like(state.params, noise_key)
    def loss_sums(params, state, chunk, chunk_key):
      return backend.loss_sums(p, bayes.network(params, noise), state, chunk, chunk_key)
    kl = (lambda params, state: {"kl": bayes.kl_nats(params, prior_sd)}) if bayesian else None
    gradient = step.make_gradient(loss_sums, counts, weights, global_terms=kl)
    batch = consistency.with_anchors(batch) if "consistency_x" in p.penalises else batch
    new, metrics = step.apply_gradient(gradient(state, batch, rows_key, over), state, tx, config.optim.ema_decay)
    d = objectives.dials(p, state.step)
    return new, metrics | step.counted({"tau": d.tau, "beta": d.beta * d.active})

  def eval_step(state, batch, key, over):
    return objectives.evaluate(p, bayes.network(state.applied), batch, key, over)

  return Experiment(init=init, train_step=train_step, eval_step=eval_step, summarise=objectives.summarise,
                    observe=optim.make_observe(tx, config.optim), assess=outputs.make_assess(model, meta),
                    predict=predict.make_verbs(model, meta, bayesian))
