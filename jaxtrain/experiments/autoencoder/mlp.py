"""The test experiment: a small network on simulated rows, by which an installation is checked in seconds.

Rows are x ~ N(0, 1) of D features and s = x w + noise e, with w ~ N(0, 1) drawn once and e ~ N(0, 1). The task
`regression` asks for s, `binary` for whether s is above 0. The best squared error that any model reaches is noise^2.
"""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxtrain import losses, optim, rng, statistics, step
from jaxtrain.config import limits
from jaxtrain.data import arrays, blocks, inputs, labels, splits
from jaxtrain.experiments.autoencoder import nets_mlp
from jaxtrain.types import Batch, Experiment, Input, Metric, Metrics, Source, Splits, TrainState, Verb

TASKS = {"regression": "mse", "binary": "bce"}  # and the term of the loss
CLASSES = ["0", "1"]
INIT_ROWS = 0  # nothing starts from data
TRACEABLE = ()
METRICS = {
    "acc": Metric("", "share of rows whose class is right", "higher", 0.5, key=True, limits=(0, 1)),
    "r2": Metric("", "share of the target's variance that is predicted", "higher", 0.0, key=True),
    "mse": Metric("", "squared error of the target", "lower", key=True),
    "bce": Metric("nats", "cross-entropy of the class", "lower", key=True),
    "loss": Metric("", "the objective: mse or bce by the task", "lower"),
    "rows": Metric("rows", "rows that were assessed"),
    "lr": Metric("", "learning rate"),
    "grad_norm": Metric("", "norm of the gradient before clipping"),
}
LIMITS = {
    "data.task": limits.one_of(*TASKS),
    "data.num_rows": limits.whole(3, limits.MOST_ROWS),
    "data.num_features": limits.whole(1, limits.MOST_WIDTH),
    "data.noise": limits.at_least(0, 1e6),
    "data.split.kind": limits.one_of("none", "random"),
    "data.seed": limits.whole(-1, 2**32 - 1),
    "model.hidden_dims": limits.each(limits.whole(1, limits.MOST_WIDTH), 0, limits.MOST_DEPTH),
    "model.activation": limits.one_of(*nets_mlp.ACTIVATIONS),
    "model.dropout": limits.between(0, 1),
}


def generate(num_rows: int, num_features: int, noise: float, task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(x [N, D], y [N]), float32: y is the target of the regression, or the class 0 or 1."""
  random = np.random.default_rng(seed)
  x = random.normal(size=(num_rows, num_features))
  score = x @ random.normal(size=num_features) + noise * random.normal(size=num_rows)
  return x.astype(np.float32), (score if task == "regression" else score > 0).astype(np.float32)


def unscaled(num_features: int) -> dict[str, list]:
  """The scaler that leaves all features as they are."""
  return {"transforms": ["identity"] * num_features, "columns": [f"x_{d}" for d in range(num_features)],
          "mean": [0.0] * num_features, "std": [1.0] * num_features}


def load(config) -> Splits:
  """Simulates the rows and makes a source of each part. Raises UserError for shares that leave a part empty."""
  data, eval_size = config.data, config.eval.batch_size or config.train.batch_size
  seed = data.seed if data.seed >= 0 else config.seed
  x, y = generate(data.num_rows, data.num_features, data.noise, data.task, seed)
  rows = splits.split_rows(data.split, data.num_rows, None)

  def source(part: str, batch_size: int, shuffled: bool) -> Source | None:
    at = rows[part]
    return arrays.table_source({"x": x[at], "y": y[at]}, batch_size, shuffled) if len(at) else None

  train = source("train", config.train.batch_size, True)
  facts = {"source": f"synthetic, {data.task} of Gaussian features", "rows": data.num_rows}
  scaler = unscaled(data.num_features)
  meta = {"kind": "rows", "task": data.task, "features": scaler["columns"], "num_features": data.num_features,
          "scaler": scaler, "table": facts, "class_names": CLASSES if data.task == "binary" else [],
          "rows": {part: len(at) for part, at in rows.items()}, "steps_per_epoch": train.num_batches}
  return Splits(train, source("val", eval_size, False), source("test", eval_size, False), meta)


def row_terms(task: str, y: jax.Array, out: jax.Array) -> dict[str, jax.Array]:
  """[B] of the term of the loss, and of what is counted beside it, from targets and outputs [B]."""
  if task == "regression":
    return {"mse": jnp.square(out - y)}
  return {"bce": jax.nn.softplus(out) - y * out, "acc": ((out > 0) == (y > 0.5)).astype(jnp.float32)}


def row_sums(task: str, batch: Batch, out: jax.Array) -> Metrics:
  """(sum, count) of those over the real rows of a chunk."""
  total = jnp.sum(batch["weight"])
  return {name: (losses.sum_rows(batch["weight"], rows), total)
          for name, rows in row_terms(task, batch["y"], out).items()}


def make_model(config) -> nets_mlp.MLP:
  """The network of a config."""
  return nets_mlp.MLP(tuple(config.model.hidden_dims), config.model.activation, config.train.precision)


def draw(model: nets_mlp.MLP, rate: float, key: jax.Array, num_rows: int) -> Batch:
  """Dropout of a step for the whole batch, so that every parallel mode sees the same; {} without dropout."""
  if rate == 0:
    return {}
  kept = rng.bernoulli(key, 1.0 - rate, (num_rows, sum(model.hidden_dims)))
  return {"keep": kept / jnp.float32(1.0 - rate)}


def make(config, meta) -> Experiment:
  """The experiment's pure functions. The learning rate may be a tracer."""
  model, task, tx = make_model(config), meta["task"], optim.make(config.optim, meta["steps_per_epoch"])
  term, dropout = TASKS[task], config.model.dropout

  def init(key, sample):
    del sample
    params = model.init(rng.stream_key(key, "init"), jnp.zeros((2, meta["num_features"])))["params"]
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), key=key, params=params, model_state={}, opt_state=tx.init(params),
                      ema=ema, guard=step.init_guard())

  def loss_sums(params, state, chunk, key):
    del state, key  # the chunk holds its dropout
    found = row_sums(task, chunk, model.apply({"params": params}, chunk["x"], chunk["keep"] if dropout else None))
    return step.Chunk({term: found[term][0]}, metrics={name: pair for name, pair in found.items() if name != term})

  one_gradient = step.make_train_step(loss_sums, lambda batch: {term: jnp.sum(batch["weight"])},
                                      lambda state: {term: 1.0}, tx, ema_decay=config.optim.ema_decay)

  def train_step(state, batch, key, over):
    return one_gradient(state, batch | draw(model, dropout, key, len(batch["weight"])), key, over)

  def eval_step(state, batch, key, over):
    def chunk_sums(chunk, _):
      return row_sums(task, chunk, model.apply({"params": state.applied}, chunk["x"]))
    found = over(chunk_sums, batch, key)
    return found | {"loss": found[term]}

  parts = {name: functools.partial(assess, model, task, name) for name in ("val", "test")}
  return Experiment(init=init, train_step=train_step, eval_step=eval_step, observe=optim.make_observe(tx, config.optim),
                    assess=parts, predict=make_verbs(model, meta))


def outputs(model: nets_mlp.MLP) -> Callable[[Any, jax.Array], jax.Array]:
  """The function (parameters, x [B, D]) to outputs [B]."""
  return lambda params, x: model.apply({"params": params}, x)


def assess(model: nets_mlp.MLP, task: str, part: str, state: Any, found: Splits, key: jax.Array
           ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """Scores of a part with half of their 95 % intervals over independent rows."""
  del key  # nothing is drawn
  source = getattr(found, part)
  rows = source.rows(np.arange(source.num_rows))
  out = blocks.in_blocks(outputs(model), state.applied, rows["x"])
  y = np.asarray(rows["y"], np.float64)
  terms = {name: np.asarray(values, np.float64) for name, values in row_terms(task, rows["y"], out).items()}
  scalars = {"rows": len(y)}
  for name, values in terms.items():
    scalars |= {name: float(values.mean()), f"{name}_ci95": statistics.t_half_width(values)}
  if task == "regression" and y.std() > 0:
    scalars["r2"] = float(1 - terms["mse"].mean() / y.var())
  return scalars, {}


def make_verbs(model: nets_mlp.MLP, meta: dict) -> dict[str, Verb]:
  """`predict`: the target `y` of each row, or the probabilities of its classes and the more probable one."""
  names, binary = meta["features"], meta["task"] == "binary"
  of_rows = outputs(model)

  def predict(state, columns, num, key):
    x = inputs.read_features(columns, names)
    whole, found = ~np.isnan(x).any(axis=1), np.full(len(x), np.nan)
    if whole.any():
      found[whole] = blocks.in_blocks(of_rows, state.applied, inputs.scaled(meta["scaler"], columns, x, whole))
    if not binary:
      return {"y": found}
    prob = special.expit(found)
    return labels.name_probabilities(CLASSES, np.stack([1 - prob, prob], axis=1))

  def pure(state):
    def of_raw(x):
      out = of_rows(state.applied, x)[:, None]
      return jax.nn.sigmoid(jnp.concatenate([-out, out], axis=1)) if binary else out
    return of_raw, len(names)

  decide = functools.partial(labels.pick_class, CLASSES) if binary else None
  return {"predict": Verb(predict, pure, "mean", tuple(map(Input, names)), decide=decide)}
