"""What a trained tabular VAE does with new rows: embed, reconstruct, classify, impute, and sample without any.

Rows are scaled by the run's stored transforms. A row with a missing feature gets empty results, but where the run was
trained on such rows (`config.data.incomplete=mask`): there it is used by what it has. `impute` fills it in any case:
missing entries start at 0, where training masks them, and are replaced by their reconstruction: once where the model
was trained with masking or holes, else `NUM_IMPUTE` times. Measured on the lithology table with 30 % of R left out,
RMSE of log(1 + R): hybrid recipe 0.065 after one pass and 0.098 after ten; standard recipe 0.247 and 0.183.

**Source:** imputation: Rezende, Mohamed & Wierstra 2014 (Stochastic Backpropagation), appendix F, with the posterior
mean in place of a sample. Samples are means of p(x | z) for z from the prior.
"""

import functools
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data import blocks, inputs, labels, scaling
from jaxtrain.types import Input, Verb

NUM_IMPUTE = 10
NUM_DRAWS = 32  # from the posterior, for the deviation of imputed cells


def posterior_mean(model, variables, x):
  """Embedding [B, L]."""
  return model.apply(variables, x, jnp.ones(x.shape[0]), False, method=model.encode)[0]


def reconstruct(model, variables, x):
  """Reconstruction [B, D] from the posterior mean."""
  return model.apply(variables, x, jnp.ones(x.shape[0])).x_mean


def classify(model, variables, x):
  """Probabilities [B, K] of the classes."""
  return jax.nn.softmax(model.apply(variables, x, jnp.ones(x.shape[0])).logits)


def impute(num_passes: int, model, variables, x):
  """x [B, D] with NaN entries filled."""
  missing = jnp.isnan(x)
  fill = lambda _, filled: jnp.where(missing, reconstruct(model, variables, filled), x)
  return jax.lax.fori_loop(0, num_passes, fill, jnp.where(missing, 0.0, x))


def decoded_draws(model, given, x):
  """Decoder means [B, S, D] for S draws from the posterior of x [B, D]; `given`: the variables, and noise [S, L]."""
  variables, noise = given
  mean, log_var = model.apply(variables, x, jnp.ones(x.shape[0]), False, method=model.encode)
  z = mean[:, None] + jnp.exp(0.5 * log_var)[:, None] * noise[None]
  return decode(model, variables, z.reshape(-1, z.shape[2])).reshape(*z.shape[:2], -1)


def decode(model, variables, z):
  """Means [B, D] of p(x | z)."""
  return model.apply(variables, z, jnp.ones(z.shape[0]), False, method=model.decode)


def variables_of(state) -> dict:
  """What the model is applied with: the averaged parameters where the run kept them."""
  return {"params": state.applied, **state.model_state}


def exported(scaler: dict, width: int, fn: Callable, state) -> tuple[Callable, int]:
  """(fn of a state's x [B, width] in raw units, width). Raises UserError where 32 bits do not hold such units."""
  scaling.exportable(scaler)
  return functools.partial(fn, state), width


def doubt(draw: Callable, noise: jax.Array, meta: dict, state, x: np.ndarray, missing: np.ndarray
          ) -> dict[str, np.ndarray]:
  """Which cells of filled rows x [N, D] were imputed, by name in `imputed`, and `<feature>_sd` of features with such
  cells: the deviation in raw units of the decoder's means over draws from the posterior, 0 where the cell was measured.

  `draw` is `decoded_draws` of the model.
  """
  names, scaler, rows = meta["features"], meta["scaler"], missing.any(axis=1)
  found = {"imputed": np.asarray([";".join(names[d] for d in np.flatnonzero(row)) for row in missing], object)}
  spread = np.zeros(x.shape)
  if rows.any():
    draws = blocks.in_blocks(draw, (variables_of(state), noise), scaling.scale(scaler, x[rows]))
    raw = scaling.unscale(scaler, draws.reshape(-1, x.shape[1])).reshape(draws.shape)
    spread[rows] = np.where(missing[rows], raw.std(axis=1, ddof=1), 0.0)
  return found | {f"{name}_sd": spread[:, d] for d, name in enumerate(names)
                  if missing[:, d].any() and f"{name}_sd" not in names}


def make_verbs(model, meta: dict, masked: bool, holes: bool) -> dict[str, Verb]:
  """The verbs of a model and a table's meta; `classify` only where the model has a classifier.

  Args:
    masked: whether the model was trained with masked entries.
    holes: whether it was trained on rows with missing features, which then get results by what they have.
  """
  fill = functools.partial(impute, 1 if masked or holes else NUM_IMPUTE)
  bind = functools.cache(lambda fn: functools.partial(fn, model))  # each once, so that it is compiled once
  names, scaler, D = meta["features"], meta["scaler"], meta["num_features"]
  to_raw = functools.partial(scaling.unscale_on_device, scaler)
  with_gaps = functools.partial(scaling.scale_on_device, scaler)
  to_scaled = (lambda x: jnp.where(jnp.isnan(x), 0.0, with_gaps(x))) if holes else with_gaps

  def over_rows(fn, name_columns):
    def run(state, columns, num, key):
      x = inputs.read_features(columns, names)
      usable = ~(np.isnan(x).all(axis=1) if holes else np.isnan(x).any(axis=1))
      width = jax.eval_shape(fn, variables_of(state), jnp.zeros((1, D))).shape[1]
      found = np.full((len(x), width), np.nan, np.float32)
      if usable.any():
        z = inputs.scaled(scaler, columns, x, usable)
        found[usable] = blocks.in_blocks(fn, variables_of(state), np.nan_to_num(z) if holes else z)
      return name_columns(found)
    return run

  def run_impute(state, columns, num, key):
    x = inputs.read_features(columns, names)
    missing, z = np.isnan(x), inputs.scaled(scaler, columns, x, np.ones(len(x), bool))
    noise = jax.random.normal(key, (NUM_DRAWS, model.latent_dim))
    filled = scaling.unscale(scaler, blocks.in_blocks(bind(fill), variables_of(state), z))
    return {name: np.where(missing[:, d], filled[:, d], x[:, d]) for d, name in enumerate(names)} | {
        "num_imputed": missing.sum(axis=1)} | doubt(bind(decoded_draws), noise, meta, state,
                                                    np.where(missing, filled, x), missing)

  def run_sample(state, columns, num, key):
    inputs.check_num(num, 16 * model.latent_dim + 40 * D)
    z = np.asarray(jax.random.normal(key, (num, model.latent_dim)))
    x = scaling.unscale(scaler, blocks.in_blocks(bind(decode), variables_of(state), z))
    return {name: x[:, d] for d, name in enumerate(names)}

  name_features = lambda x: {f"{name}_recon": x_d for name, x_d in zip(names, scaling.unscale(scaler, x).T)}
  def pure(fn, width, after=lambda out: out, before=to_scaled):
    return functools.partial(exported, scaler, width, lambda state, x: after(fn(model, variables_of(state), before(x))))

  features = tuple(Input(name, required=not holes) for name in names)
  fillable = tuple(Input(name, required=False) for name in names)
  verbs = {
      "embed": Verb(over_rows(bind(posterior_mean), lambda z: {f"emb_{k}": z[:, k] for k in range(z.shape[1])}),
                    pure(posterior_mean, D), "each", features),
      "reconstruct": Verb(over_rows(bind(reconstruct), name_features), pure(reconstruct, D, to_raw), "mean",
                          features),
      "impute": Verb(run_impute, pure(fill, D, to_raw, with_gaps), "mean", fillable, replaces=True),
      "sample": Verb(run_sample, pure(decode, model.latent_dim, to_raw, lambda z: z), "turns", (),
                     counts=True),
  }
  if model.num_classes:
    name_all = functools.partial(labels.name_probabilities, meta["class_names"])
    verbs["classify"] = Verb(over_rows(bind(classify), name_all), pure(classify, D), "mean", features,
                             decide=functools.partial(labels.pick_class, meta["class_names"]))
  return verbs
