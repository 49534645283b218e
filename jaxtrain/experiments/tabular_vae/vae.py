"""Tabular VAE with a Gaussian decoder, unsupervised or with a classifier on the latent.

Loss, with x~ the input whose masked entries are 0 and r the reconstruction from a sample z ~ q(z | x~):
  mean reduction (hybrid): mean (r-x)^2 + w_masked mean_masked (r-x)^2 + beta_t mean KL_nats + w_class mean CE
  sum reduction (standard): sum (r-x)^2 + beta sum KL_nats + w_class sum CE, over the batch
Masked targets are the unmasked values; KL is averaged over latent dimensions in the mean reduction; the mean of the masked
term is over the masked entries, 0 where there are none; CE runs over labelled rows.

**Source:** Kingma & Welling 2014, eq. 10; spec tabular_vae 3-5 (recipes of the lithology VAE).
**Departs:** the scaler is fitted on training rows only; rows without a label (-1) train all terms but the classifier's.
Validation losses use the final weights of the KL schedule, so that they compare across epochs.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import limits, losses, optim, rng, schedules, step
from jaxtrain.data import arrays, scaling, splits, tables
from jaxtrain.experiments.tabular_vae import evaluate, lithology, nets
from jaxtrain.types import Batch, Experiment, Splits, TrainState, UserError

SOURCES = ("synthetic", "sklearn", "csv")

LIMITS = {
    "data.source": limits.one_of(*SOURCES),
    "model.kind": limits.one_of("unsup", "semisup"),
    "model.latent_dim": limits.at_least(1),
    "model.hidden_dims": limits.each(limits.at_least(1), low_len=1),
    "model.head_dim": limits.at_least(1),
    "model.dropout_rate": limits.between(0, 1),
    "loss.reduction": limits.one_of("sum", "mean"),
    "loss.mask_rate": limits.between(0, 1),
    "loss.kl_schedule.shape": limits.one_of(*schedules.KL_SHAPES),
    "loss.kl_schedule.start": limits.at_least(0),
    "loss.kl_schedule.num_epochs": limits.at_least(0),
    "loss.kl_schedule.num_cycles": limits.at_least(1),
}


def read_table(config) -> tables.Table:
  """The table named by `config.data`.

  Raises:
    UserError: the table cannot be read, or a field is set that its source does not use.
  """
  data = config.data
  unused = {"synthetic": ("path", "label", "group"), "sklearn": ("label", "group"), "csv": ()}[data.source]
  for field in unused:
    if data[field]:
      raise UserError(f"config.data.{field}: got {data[field]!r}, allowed '' with config.data.source={data.source}")
  if data.source == "csv":
    table = tables.read_csv(data.path, data.features, data.label, data.group)
    return tables.first_rows(table, data.row_limit) if data.row_limit else table
  if data.source == "sklearn":
    table = tables.read_sklearn(data.path)
    table = tables.first_rows(table, data.row_limit) if data.row_limit else table
  else:
    try:
      made = lithology.generate(data.row_limit or lithology.FULL_ROWS)
    except ValueError as error:
      raise UserError(f"config.data.row_limit: {error}") from None
    table = tables.Table(made.features, lithology.FEATURES, made.label, made.class_names, made.borehole,
                         {"source": "synthetic lithology", "rows": len(made.label), "boreholes": len(made.borehole_names)})
  return tables.select_features(table, data.features) if data.features else table


def load(config) -> Splits:
  """Reads the table, fits its transforms on the training rows, and makes a source of each part."""
  table = read_table(config)
  if config.model.kind == "semisup" and table.label is None:
    raise UserError("config.data.label: got '', allowed the name of the label column with config.model.kind=semisup")
  rows = splits.split_rows(config.data.split, len(table.features), table.group)
  transforms = scaling.check_names(config.data.transforms, table.features.shape[1])
  scaler = scaling.fit(table.features[rows["train"]], transforms, table.feature_names)
  x = scaling.scale(scaler, table.features)
  label = table.label if table.label is not None else np.full(len(x), -1, np.int32)

  def source(part, batch_size, shuffled):
    if len(rows[part]) == 0:
      return None
    return arrays.table_source({"x": x[rows[part]], "label": label[rows[part]]}, batch_size, shuffled)

  eval_size = config.eval.batch_size or config.train.batch_size
  train = source("train", config.train.batch_size, config.data.shuffle)
  meta = {"features": list(table.feature_names), "num_features": x.shape[1], "class_names": list(table.class_names),
          "scaler": scaler, "table": table.facts, "rows": {part: len(r) for part, r in rows.items()},
          "steps_per_epoch": train.num_batches}
  return Splits(train, source("val", eval_size, False), source("test", eval_size, False), meta)


def make_model(config, meta) -> nets.VAE:
  """The network of a config and a table."""
  num_classes = len(meta["class_names"]) if config.model.kind == "semisup" else 0
  model = config.model
  return nets.VAE(num_features=meta["num_features"], num_classes=num_classes, latent_dim=model.latent_dim,
                  hidden_dims=tuple(model.hidden_dims), batch_norm=model.batch_norm, head_dim=model.head_dim,
                  precision=config.train.precision)


def make(config, meta) -> Experiment:
  """The experiment's pure functions. The learning rate and the loss weights may be tracers."""
  model = make_model(config, meta)
  tx = optim.make(config.optim, meta["steps_per_epoch"])
  schedule = config.loss.kl_schedule
  masking, classifying = config.loss.mask_rate > 0, config.model.kind == "semisup"
  dropping = classifying and config.model.dropout_rate > 0
  per_entry = config.loss.reduction == "mean"
  D, L = meta["num_features"], config.model.latent_dim
  beta_at = schedules.kl_shape(schedule.shape, schedule.start, config.loss.weights.kl, schedule.num_epochs,
                               schedule.num_cycles)

  def init(key):
    variables = model.init(rng.stream_key(key, "init"), jnp.zeros((2, D)), jnp.ones((2,)), jnp.zeros((2, L)))
    params = variables["params"]
    return TrainState(step=jnp.zeros((), jnp.int32), key=key, params=params,
                      model_state={"batch_stats": variables["batch_stats"]} if config.model.batch_norm else {},
                      opt_state=tx.init(params), ema=jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None,
                      guard=step.init_guard())

  def weights(t):
    """Loss weights at step t; beta is held over an epoch, counted from 0."""
    values = {"recon": config.loss.weights.recon, "kl": beta_at(t // meta["steps_per_epoch"])}
    if masking:
      values["masked"] = config.loss.weights.masked
    if classifying:
      values["class"] = config.loss.weights["class"]
    return values

  def term_counts(batch):
    num_rows = jnp.sum(batch["weight"])
    counts = {"recon": num_rows * D, "kl": num_rows * L}
    if masking:
      counts["masked"] = jnp.sum(batch["weight"] @ batch["mask"])
    if classifying:
      counts["class"] = jnp.sum(batch["weight"] * (batch["label"] >= 0))
    return counts

  def sums_of(batch, out):
    """Sums over the rows of each term, and of extras with their counts."""
    row, kl_nats = batch["weight"], losses.gaussian_kl_nats(out.mean, out.log_var)
    square = jnp.square(batch["x"] - out.x_mean)
    sums = {"recon": jnp.sum(row @ square), "kl": jnp.sum(row @ kl_nats)}
    extras = {"kl_nats": (sums["kl"], jnp.sum(row))}
    if "mask" in batch:
      sums["masked"] = jnp.sum(row @ (batch["mask"] * square))
    if classifying:
      labelled = row * (batch["label"] >= 0)
      sums["class"] = row @ losses.cross_entropy_nats(out.logits, batch["label"])
      extras["accuracy"] = (labelled @ losses.is_top(out.logits, batch["label"]), jnp.sum(labelled))
    return sums, extras

  def loss_sums(params, model_state, chunk, _):
    x = chunk["x"] * (1.0 - chunk["mask"]) if masking else chunk["x"]
    out, model_state = model.apply({"params": params, **model_state}, x, chunk["weight"], chunk["noise"],
                                   chunk["keep"] if dropping else None, mutable=list(model_state))
    sums, extras = sums_of(chunk, out)
    return sums, model_state, extras

  one_gradient = step.make_train_step(loss_sums, term_counts, weights, tx, reduction=config.loss.reduction,
                                      ema_decay=config.optim.ema_decay)

  def draw(key, B):
    """All random numbers of a step, for the whole batch: counts of the mask are known before the batch is cut into chunks,
    and every parallel mode sees the same noise."""
    mask_key, noise_key, keep_key = jax.random.split(key, 3)
    drawn = {"noise": rng.normal(noise_key, (B, L))}
    if masking:
      drawn["mask"] = rng.bernoulli(mask_key, config.loss.mask_rate, (B, D)).astype(jnp.float32)
    if dropping:
      keep_rate = 1.0 - config.model.dropout_rate
      drawn["keep"] = rng.bernoulli(keep_key, keep_rate, (B, config.model.head_dim)) / jnp.float32(keep_rate)
    return drawn

  def train_step(state, batch, key, over):
    beta = jnp.asarray(beta_at(state.step // meta["steps_per_epoch"]), jnp.float32)
    state, metrics = one_gradient(state, batch | draw(key, len(batch["weight"])), key, over)
    return state, metrics | {"beta": (beta, jnp.ones(()))}

  def eval_step(state, batch: Batch, key, over):
    params = state.params if state.ema is None else state.ema
    def chunk_sums(chunk, _):
      return sums_of(chunk, model.apply({"params": params, **state.model_state}, chunk["x"], chunk["weight"]))
    sums, extras = over(chunk_sums, batch, key)
    rows = jnp.sum(batch["weight"])
    counts = {"recon": rows * D, "kl": rows * L}
    if classifying:
      counts["class"] = extras["accuracy"][1]
    if not per_entry:
      counts = {name: rows for name in counts}
    return {name: (sums[name], counts[name]) for name in sums} | extras

  def summarise(totals):
    """The evaluation loss per row, at the final loss weights, from the means of its terms."""
    terms = ["recon", "kl"] + (["class"] if classifying else [])
    return {"loss": sum(config.loss.weights[name] * totals[name][0] / jnp.maximum(totals[name][1], 1.0) for name in terms)}

  def observe(state, means):
    return state.replace(opt_state=tx.observe(state.opt_state, means))

  watches = config.optim.plateau.factor > 0 and config.optim.plateau.monitor != "train_loss"
  return Experiment(init=init, train_step=train_step, eval_step=eval_step, summarise=summarise,
                    observe=observe if watches else None, assess=evaluate.make_assess(model, meta))
