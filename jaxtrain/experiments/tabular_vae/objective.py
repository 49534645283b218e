"""The loss of the tabular VAE: its terms, their counts and weights, and the random numbers of a step.

With x~ the input whose masked entries are 0 and r the reconstruction from a sample z ~ q(z | x~):
  mean reduction (hybrid): mean (r-x)^2 + w_masked mean_masked (r-x)^2 + beta_t mean KL_nats + w_class mean CE
  sum reduction (standard): sum (r-x)^2 + beta sum KL_nats + w_class sum CE, over the batch
Masked targets are the unmasked values; KL is averaged over latent dimensions in the mean reduction; the mean of the
masked term is over the masked entries, 0 where there are none; CE runs over labelled rows. In batches
that hold `observed`, missing entries are 0 in the input, and the terms of x run over the entries that are there.

Of a table with kinds of columns (`likelihoods`) the square is -log p of an entry, in nats; `recon` has the continuous
columns, `integer` and `categorical` the others. In the mean reduction all three are divided by the entries of all
columns, so that they add up to the mean over these and a column counts alike whatever its kind.

**Source:** Kingma & Welling 2014, eq. 10; the recipes are those of the lithology VAE.
"""

import functools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain import custom, losses, rng, schedules, step as step_lib
from jaxtrain.experiments.tabular_vae import likelihoods, nets
from jaxtrain.types import Batch, Metrics


class Objective(NamedTuple):
  """What the loss needs to know.

  Attributes:
    model: the network.
    loss: `config.loss`; its weights may be tracers.
    steps_per_epoch: beta is held over an epoch.
    dropout_rate: of the classifier.
    extra_terms, extra_metrics: the user's own functions by name.
  """
  model: nets.VAE
  loss: Any
  steps_per_epoch: int
  dropout_rate: float
  extra_terms: dict[str, Callable]
  extra_metrics: dict[str, Callable]

  @property
  def of_entries(self) -> list[str]:
    """Names of the terms of the entries of x."""
    layout = self.model.layout
    return ["recon"] if layout is None else [likelihoods.TERMS[kind] for kind in layout.kinds]

  @property
  def masking(self) -> bool:
    """Whether input entries are masked and there is a term for them."""
    return self.loss.mask_rate > 0

  @property
  def classifying(self) -> bool:
    """Whether the model has a classifier."""
    return self.model.num_classes > 0

  @property
  def dropping(self) -> bool:
    """Whether there is dropout."""
    return self.classifying and self.dropout_rate > 0


def beta(o: Objective, step: jax.Array) -> jax.Array:
  """Weight of the KL term at a step: its schedule at the epoch, counted from 0."""
  schedule = o.loss.kl_schedule
  shape = schedules.kl_shape(schedule.shape, schedule.start, o.loss.weights.kl, schedule.num_epochs,
                             schedule.num_cycles)
  return jnp.asarray(shape(step // o.steps_per_epoch), jnp.float32)


def weights(o: Objective, step: jax.Array) -> dict[str, Any]:
  """Weight of each term at a step."""
  names = o.of_entries + ["masked"] * o.masking + ["class"] * o.classifying + list(o.extra_terms)
  return {name: o.loss.weights[name] for name in names} | {"kl": beta(o, step)}


def draw(o: Objective, key: jax.Array, num_rows: int) -> Batch:
  """All random numbers of a step, for the whole batch.

  Counts of the mask are then known before the batch is cut into chunks, and every parallel mode sees the same noise.
  """
  mask_key, noise_key, keep_key = jax.random.split(key, 3)
  drawn = {"noise": rng.normal(noise_key, (num_rows, o.model.latent_dim))}
  if o.masking:
    drawn["mask"] = rng.bernoulli(mask_key, o.loss.mask_rate, (num_rows, o.model.num_features)).astype(jnp.float32)
  if o.dropping:
    keep_rate = 1.0 - o.dropout_rate
    drawn["keep"] = rng.bernoulli(keep_key, keep_rate, (num_rows, o.model.head_dim)) / jnp.float32(keep_rate)
  return drawn


def term_counts(o: Objective, batch: Batch) -> dict[str, jax.Array]:
  """Entries of the whole batch that each term runs over."""
  num_rows = jnp.sum(batch["weight"])
  entries = num_rows * o.model.num_features
  if "observed" in batch:
    entries = jnp.sum(losses.sum_rows(batch["weight"], batch["observed"]))
  counts = dict.fromkeys(o.of_entries, entries) | {"kl": num_rows * o.model.latent_dim}
  if "mask" in batch:
    counts["masked"] = jnp.sum(losses.sum_rows(batch["weight"], of_observed(batch, batch["mask"])))
  if o.classifying:
    counts["class"] = jnp.sum(batch["weight"] * (batch["label"] >= 0))
  return counts | {name: num_rows for name in o.extra_terms}


def of_observed(batch: Batch, entries: jax.Array) -> jax.Array:
  """Entries [B, D] with 0 where a cell of the table is missing; themselves where none can be."""
  return entries * batch["observed"] if "observed" in batch else entries


def entry_losses(o: Objective, batch: Batch, out: nets.Output) -> dict[str, tuple[jax.Array, Any]]:
  """(what each entry costs [B, n], which columns of x these are, None for all) by term; 0 where a cell is missing."""
  layout = o.model.layout
  if layout is None:
    return {"recon": (of_observed(batch, jnp.square(batch["x"] - out.x_mean)), None)}
  found = {}
  for kind, lost in likelihoods.nats(layout, batch["x"], out.given).items():
    at = layout.places(kind)
    found[likelihoods.TERMS[kind]] = lost * batch["observed"][:, at] if "observed" in batch else lost, at
  return found


def term_sums(o: Objective, batch: Batch, out: nets.Output) -> tuple[dict[str, jax.Array], Metrics]:
  """Sums of each term over the rows of a chunk, and extra metrics with their counts."""
  row, kl_nats = batch["weight"], losses.gaussian_kl_nats(out.mean, out.log_var)
  lost = entry_losses(o, batch, out)
  sums = {name: jnp.sum(losses.sum_rows(row, part)) for name, (part, _) in lost.items()}
  sums["kl"] = jnp.sum(losses.sum_rows(row, kl_nats))
  extras = {"kl_nats": (sums["kl"], jnp.sum(row))}
  if "mask" in batch:
    hidden = [jnp.sum(losses.sum_rows(row, (batch["mask"] if at is None else batch["mask"][:, at]) * part))
              for part, at in lost.values()]
    sums["masked"] = functools.reduce(jnp.add, hidden)
  if o.classifying:
    labelled = row * (batch["label"] >= 0)
    sums["class"] = losses.sum_rows(row, losses.cross_entropy_nats(out.logits, batch["label"]))
    extras["accuracy"] = (losses.sum_rows(labelled, losses.is_top(out.logits, batch["label"])), jnp.sum(labelled))
  sums |= {name: losses.sum_rows(row, custom.check_term(name, function(batch, out), len(row)))
           for name, function in o.extra_terms.items()}
  own = {name: custom.check_metric(name, function(batch, out)) for name, function in o.extra_metrics.items()}
  return sums, extras | own


def loss_sums(o: Objective, params, state, chunk: Batch, key) -> step_lib.Chunk:
  """Term sums of a training chunk, the statistics of its BatchNorm, extra metrics (see `step.make_gradient`)."""
  del key  # the chunk holds its random numbers
  model_state = state.model_state
  x = chunk["x"] * (1.0 - chunk["mask"]) if o.masking else chunk["x"]
  out, model_state = o.model.apply({"params": params, **model_state}, x, chunk["weight"], chunk["noise"],
                                   chunk["keep"] if o.dropping else None, mutable=list(model_state))
  sums, extras = term_sums(o, chunk, out)
  return step_lib.Chunk(sums, averages=model_state, metrics=extras)


def evaluate(o: Objective, params, model_state, batch: Batch, key, over) -> Metrics:
  """Terms of an evaluation batch without masking: from the posterior mean, of a table with kinds from a draw.

  Where deviations are learned, errors at the posterior mean are too small for them: the loss of a draw is the bound.
  """
  def chunk_sums(chunk, _):
    noise = () if o.model.layout is None else (chunk["noise"], None, False)
    return term_sums(o, chunk, o.model.apply({"params": params, **model_state}, chunk["x"], chunk["weight"], *noise))
  if o.model.layout is not None:
    batch = batch | {"noise": rng.normal(key, (len(batch["weight"]), o.model.latent_dim))}
  sums, extras = over(chunk_sums, batch, key)
  counts = term_counts(o, batch)
  if o.loss.reduction == "sum":
    counts = {name: jnp.sum(batch["weight"]) for name in counts}
  return {name: (sums[name], counts[name]) for name in sums} | extras


def summarise(o: Objective, totals: Metrics) -> dict[str, jax.Array]:
  """The evaluation loss from the means of its terms, at the final weights, so that it compares across epochs; and each
  item of your own metrics that are arrays.
  """
  found = {}
  for name in o.extra_metrics:
    if name in totals and totals[name][0].ndim:
      found |= losses.item_means(name, *totals[name])
  if "loss" in totals:  # of training, which has its own
    return found
  names = [*o.of_entries, "kl"] + ["class"] * o.classifying + list(o.extra_terms)
  means = {name: totals[name][0] / jnp.maximum(totals[name][1], 1.0) for name in names}
  return found | {"loss": sum(o.loss.weights[name] * means[name] for name in names)}
