"""Tabular VAE with a Gaussian decoder, unsupervised or with a classifier on the latent; columns of categories and whole
numbers, and those with spikes, have likelihoods of their own (`likelihoods.py`).

**Source:** Kingma & Welling 2014; the two recipes are those of the lithology VAE. The loss is in `objective.py`.
**Departs:** the scaler is fitted on training rows only; rows without a label (-1) train all terms but the classifier's.
Validation losses use the final weights of the KL schedule, so that they compare across epochs.
"""

import functools

import jax
import jax.numpy as jnp

from jaxtrain import custom, optim, rng, schedules, step
from jaxtrain.config import limits
from jaxtrain.data import kinds, tables, tabular
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import assessment, evaluate, likelihoods, lithology, nets, novelty, objective
from jaxtrain.experiments.tabular_vae import predict, release, survey
from jaxtrain.types import Experiment, Metric, Splits, TrainState

def read_lithology(config) -> tables.Table:
  """The synthetic lithology table. Raises UserError for a row limit that it cannot be made with."""
  try:
    made = lithology.generate(config.data.row_limit or lithology.FULL_ROWS)
  except ValueError as error:
    raise UserError(f"config.data.row_limit: {error}") from None
  facts = {"source": "synthetic lithology", "rows": len(made.label), "boreholes": len(made.borehole_names)}
  return tables.Table(made.features, lithology.FEATURES, made.label, made.class_names, made.borehole, facts,
                      truth={"Depth_Bin": made.depth})


def read_survey(config) -> tables.Table:
  """The simulated survey of households, of `data.row_limit` rows."""
  return survey.table(config.data.row_limit or survey.ROWS)


GENERATORS = {"synthetic": read_lithology, "survey": read_survey}

# Names of terms and metrics that the user's own may not have.
TAKEN = ("loss", "recon", "integer", "categorical", "kl", "masked", "class", "accuracy", "kl_nats", "beta", "lr",
         "grad_norm", "weight", "x", "label", "observed")

CODE = ("data.source", "loss.extra", "eval.metrics")
INIT_ROWS = 0  # nothing starts from data
SINCE = {"data.categorical": (), "data.integer": (), "data.spikes": (), "model.embedding_dim": 8,
         "model.noise": "fixed", "loss.weights.integer": 1.0, "loss.weights.categorical": 1.0} | assessment.SINCE
METRICS = {
    "accuracy": Metric("", "share of labelled rows whose class is right", "higher", key=True, limits=(0, 1)),
    "balanced_accuracy": Metric("", "mean over classes of the share that is right", "higher", key=True, limits=(0, 1)),
    "auc_macro": Metric("", "area under the ROC curve, mean over classes", "higher", 0.5, key=True, limits=(0, 1)),
    "ece": Metric("", "expected calibration error of the classifier", "lower", key=True, limits=(0, 1)),
    "r2_mean": Metric("", "share of variance that the reconstruction keeps, of cells that the model saw, mean over "
                      "features that vary", "higher", 0.0, key=True, words="R² mean (of cells seen)"),
    "loss": Metric("", "the objective: reconstruction, KL and the classifier's term by their weights", "lower"),
    "recon": Metric("squared standard deviations", "squared error of the reconstruction; with learned noise -log p in "
                    "nats, of columns that are neither whole numbers nor categories", "lower"),
    "integer": Metric("nats", "-log p of columns of whole numbers, a share of all entries", "lower"),
    "categorical": Metric("nats", "-log p of categories, a share of all entries", "lower"),
    "masked": Metric("squared standard deviations", "squared error, or -log p, at entries that were hidden", "lower"),
    "kl": Metric("nats", "divergence from the prior, per latent dimension in the mean reduction"),
    "kl_nats": Metric("nats", "divergence from the prior, of all latent dimensions", key=True, words="total KL"),
    "nll_nats": Metric("nats", "mean negative log-probability of the true class", "lower"),
    "f1_macro": Metric("", "F1 of each class, mean over classes", "higher", limits=(0, 1)),
    "rows": Metric("rows", "rows that were assessed"),
    "beta": Metric("", "weight of the KL term", words="weight beta"),
    "lr": Metric("", "learning rate"),
    "grad_norm": Metric("", "norm of the gradient before clipping"),
    "class": Metric("nats", "cross-entropy of the classifier", "lower"),
    "accuracy_top5": Metric("", "share of rows whose class is among the five most probable", "higher", limits=(0, 1)),
    "active_dims_sd": Metric("", "latent dimensions in use: the latent mean varies over rows, deviation above 0.1"),
    "active_dims_kl": Metric("", "latent dimensions in use: mean divergence from the prior above 0.01 nats"),
    "r2_*": Metric("", "share of a feature's variance that the reconstruction keeps", "higher", 0.0),
    "rmse_*": Metric("units of the feature", "root mean squared error of the reconstruction", "lower"),
    "mae_*": Metric("units of the feature", "mean absolute error of the reconstruction", "lower"),
    "categories_accuracy": Metric("", "share of cells whose category the reconstruction gets right, mean over columns",
                                  "higher", key=True, limits=(0, 1)),
    "accuracy_of/*": Metric("", "share of a column's cells whose category the reconstruction gets right", "higher",
                            limits=(0, 1)),
    "majority_of/*": Metric("", "share of a column's cells in its most frequent category", limits=(0, 1)),
    "marginal_gap": Metric("", "distance of sampled columns from real ones (largest difference of distribution "
                           "functions; of categories half the sum of differences), mean over columns", "lower",
                           limits=(0, 1)),
    "marginal_gap_floor": Metric("", "the same distance between two samples of real rows", limits=(0, 1)),
    "marginal_gap_of/*": Metric("", "distance of a sampled column from the real one", "lower", limits=(0, 1)),
    "association_gap": Metric("", "difference of the association of two columns, sampled against real, mean over pairs",
                              "lower", limits=(0, 1)),
    "association_gap_floor": Metric("", "the same difference between two samples of real rows", limits=(0, 1)),
    "association_gap_alone": Metric("", "the same difference of real rows whose columns are shuffled one by one",
                                    limits=(0, 1)),
} | assessment.METRICS
LIMITS = {
    "data.source": tabular.source_limit(GENERATORS),
    "data.categorical": limits.names(),
    "data.integer": limits.names(),
    "data.spikes": limits.names(),
    "model.embedding_dim": limits.whole(1, limits.MOST_WIDTH),
    "model.noise": limits.one_of("fixed", "learned"),
    "model.kind": limits.one_of("unsup", "semisup"),
    "model.latent_dim": limits.whole(1, limits.MOST_WIDTH),
    "model.hidden_dims": limits.each(limits.whole(1, limits.MOST_WIDTH), 1, limits.MOST_DEPTH),
    "model.batch_norm": limits.switch(),
    "model.head_dim": limits.whole(1, limits.MOST_WIDTH),
    "model.dropout_rate": limits.between(0, 1),
    "loss.reduction": limits.one_of("sum", "mean"),
    "loss.mask_rate": limits.between(0, 1),
    "loss.kl_schedule.shape": limits.one_of(*schedules.KL_SHAPES),
    "loss.kl_schedule.start": limits.at_least(0, 1e12),
    "loss.kl_schedule.num_epochs": limits.whole(0),
    "loss.kl_schedule.num_cycles": limits.whole(1),
    "loss.extra": limits.functions(),
    "eval.metrics": limits.functions(),
} | assessment.LIMITS


def load(config) -> Splits:
  """Reads the table, fits its transforms on the training rows, and makes a source of each part."""
  found, table = tabular.load(config, GENERATORS, kinds.asked(config.data), tuple(config.eval.transfer))
  if config.loss.kl_schedule.shape == "exponential" and config.loss.kl_schedule.start == 0:
    raise UserError("config.loss.kl_schedule.start: got 0, allowed above 0 with the shape exponential")
  custom.check_weights(config.loss)
  if config.model.kind == "semisup" and table.label is None:
    raise UserError("config.data.label: got '', allowed the name of the label column with config.model.kind=semisup")
  if table.group is not None:
    names = lithology.name_boreholes(len(table.group)) if config.data.source == "synthetic" else ()
    found.meta["rows_per_group"] = evaluate.count_groups(table.group, names)
  digits = novelty.EXACT if "kinds" in found.meta else novelty.DIGITS
  found.meta[novelty.KEY] = novelty.keep_rows(found.train, found.meta["num_features"], digits)
  return found


def notes(config, steps_per_epoch: int) -> tuple[str, ...]:
  """What of a config has no effect, or less than its words say."""
  said = []
  if config.model.kind == "unsup" and config.data.label:
    said.append(f"the label column {config.data.label!r} is not trained on: config.model.kind=unsup; semisup trains a "
                "classifier")
  schedule, epochs = config.loss.kl_schedule, config.train.num_epochs or config.train.num_steps / steps_per_epoch
  if schedule.shape != "constant" and schedule.num_epochs > epochs > 0:
    said.append(f"config.loss.kl_schedule.num_epochs={schedule.num_epochs:,} is longer than the run's {epochs:,.4g} "
                "epochs: beta does not reach its end")
  return tuple(said)


def make_model(config, meta) -> nets.VAE:
  """The network of a config and a table."""
  num_classes = len(meta["class_names"]) if config.model.kind == "semisup" else 0
  model = config.model
  return nets.VAE(num_features=meta["num_features"], num_classes=num_classes, latent_dim=model.latent_dim,
                  hidden_dims=tuple(model.hidden_dims), batch_norm=model.batch_norm, head_dim=model.head_dim,
                  precision=config.train.precision,
                  layout=likelihoods.make_layout(meta, model.noise == "learned"), embedding_dim=model.embedding_dim)


def make(config, meta) -> Experiment:
  """The experiment's pure functions. The learning rate and the loss weights may be tracers."""
  model = make_model(config, meta)
  tx = optim.make(config.optim, meta["steps_per_epoch"])
  o = objective.Objective(model, config.loss, meta["steps_per_epoch"], config.model.dropout_rate,
                          custom.named_functions("loss.extra", config.loss.extra, TAKEN),
                          custom.named_functions("eval.metrics", config.eval.metrics, TAKEN))
  bind = functools.partial

  def init(key, sample):
    del sample
    rows = jnp.zeros((2, model.num_features))
    variables = model.init(rng.stream_key(key, "init"), rows, jnp.ones((2,)), jnp.zeros((2, model.latent_dim)))
    params, model_state = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    ema = jax.tree.map(jnp.copy, params) if config.optim.ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), key=key, params=params, model_state=model_state,
                      opt_state=tx.init(params), ema=ema, guard=step.init_guard())

  one_gradient = step.make_train_step(bind(objective.loss_sums, o), bind(objective.term_counts, o),
                                      lambda state: objective.weights(o, state.step), tx,
                                      reduction=config.loss.reduction, ema_decay=config.optim.ema_decay)

  def train_step(state, batch, key, over):
    drawn = objective.draw(o, key, len(batch["weight"]))
    new, metrics = one_gradient(state, batch | drawn, key, over)
    return new, metrics | {"beta": (objective.beta(o, state.step), jnp.ones(()))}

  def eval_step(state, batch, key, over):
    return objective.evaluate(o, state.applied, state.model_state, batch, key, over)

  table = meta["table"] if "table" in meta else {}
  warned = table["label_warnings"] if config.model.kind == "semisup" and "label_warnings" in table else []
  plan, gaps = assessment.plan_of(config, meta), config.data.incomplete == "mask"
  said = notes(config, meta["steps_per_epoch"]) + tuple(filter(None, [assessment.reason(plan, meta)]))
  with_umap = config.log.figures == "full" or "umap" in config.log.families
  return Experiment(init=init, train_step=train_step, eval_step=eval_step, summarise=bind(objective.summarise, o),
                    observe=optim.make_observe(tx, config.optim),
                    assess=assessment.make_assess(model, meta, plan, with_umap),
                    predict=predict.make_verbs(model, meta, config.loss.mask_rate > 0 or gaps, gaps or "kinds" in meta,
                                               assessment.can_impute(plan, meta)),
                    alarms=(lambda means: list(warned)) if warned else None,
                    read_weights=release.read_weights, notes=said)
