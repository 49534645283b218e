"""What a trained joint model does with new rows.

  predict_z         <z>_mean, <z>_sd: E[z | x, y] and its deviation, of the row's own treatment
  counterfactual_z  <z>_if_<class>: E[z | x, do(y = class)]; <z>_cf_<class>: what this row's z would have been, with the
                    noise of its own z kept (abduction), where the file has treatment and outcomes
  impute_y          prob_<class>: p(y | x, z), and pred_label, the most probable; a recorded y is not looked at
  effect            effect_<class>: E[z | x, do(class)] - E[z | x, do(first class)] of every row; of a Bayesian model
                    also effect_<class>_low and _high, the ends of its 95 % posterior interval

Columns have the names of training. With instruments `impute_y` reads them too. A row with an empty cell among what a
verb needs of it gets empty results. `impute_y` and `effect` can be exported.

**Source:** abduction, action, prediction: Pearl 2009 (Causality), theorem 7.1.7; here the noise is additive and scaled.
"""

import functools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import spelling
from jaxtrain.data import blocks, cells, files, inputs, labels, scaling
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import bayes, nets, outputs, sources
from jaxtrain.types import Input, Verb

Result = dict[str, np.ndarray]


class Trained(NamedTuple):
  """A model and the meta of the table that it was trained on; `functions` of (variables, columns) by name."""
  model: nets.Joint
  meta: dict[str, Any]
  functions: outputs.Functions
  units: outputs.Units

  @property
  def classes(self) -> list[str]:
    """Names of the treatment's classes."""
    return self.meta["class_names"]

  def split(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(covariates, instruments, outcomes) of columns x."""
    return sources.split_columns(self.meta, {"x": x})


def read_classes(columns: files.Columns, name: str, class_names: list[str]) -> np.ndarray:
  """The treatment [N] int32 of a file, -1 where it is missing. Raises UserError for a class that training had not."""
  columns.check(name)
  if name not in columns.values:
    raise UserError(f"{columns.path} has no column {name!r}, the treatment{spelling.meant(name, columns.values)}")
  code, found = labels.encode(columns.scalars(name), cells.missing_test(columns.form))
  by_number = {labels.number_of(known): k for k, known in enumerate(class_names)} | {None: -1}
  places = [class_names.index(given) if given in class_names else by_number.get(labels.number_of(given), -1)
            for given in found]  # 1.0 of one file is the 1 of another
  for k in np.flatnonzero(np.asarray(places, int) < 0)[:1]:
    row = columns.row(int(np.flatnonzero(code == k)[0]))
    raise UserError(f"{columns.path}: column {name!r}, {row}: {found[k]!r}, allowed {', '.join(class_names)}")
  return np.append(places, -1).astype(np.int32)[code]


def scaler_of(t: Trained, names: list[str]) -> dict:
  """The scaler of all columns, or of the covariates alone, which stand last."""
  return {part: values[-len(names):] for part, values in t.meta["scaler"].items()}


def read_columns(t: Trained, found: files.Columns, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
  """(all columns, or the covariates alone, in scaled units [N, len(names)]; [N] whether a row has each of them)."""
  values = inputs.read_features(found, names)
  whole = ~np.isnan(values).any(axis=1)
  scaled = np.zeros(values.shape, np.float32)
  scaled[whole] = inputs.scaled(scaler_of(t, names), found, values, whole)
  return scaled, whole


def apply(fn: Callable, state: Any, x: np.ndarray, whole: np.ndarray) -> Any:
  """A function of `outputs.Functions` of rows in blocks, float64; NaN for rows that are not whole."""
  found = blocks.in_blocks(fn, {"params": bayes.network(state.applied)}, x)
  return jax.tree.map(lambda leaf: emptied(leaf, whole), found)


def emptied(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """values [N, ...] in float64 with NaN in rows that are not whole."""
  return np.where(whole.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan).astype(np.float64)


def arms(t: Trained, state: Any, found: files.Columns) -> tuple[np.ndarray, np.ndarray]:
  """(mean, deviation) [N, K, Z] of the outcomes under each class, raw units."""
  x, whole = read_columns(t, found, t.meta["covariates"])
  normals = apply(t.functions.outcomes, state, x, whole)
  return t.units.shift + t.units.factor * normals.mean, t.units.factor * normals.sd


def predict_z(t: Trained, state: Any, found: files.Columns, num: int, key: jax.Array) -> Result:
  """Mean and deviation of each outcome under the row's own treatment."""
  y = read_classes(found, t.meta["treatment"], t.classes)
  own = lambda values: np.where(y[:, None] >= 0, values[np.arange(len(y)), y], np.nan)
  mean, sd = map(own, arms(t, state, found))
  return {f"{name}_{what}": values[:, d] for d, name in enumerate(t.meta["outcomes"])
          for what, values in (("mean", mean), ("sd", sd))}


def counterfactual_z(t: Trained, state: Any, found: files.Columns, num: int, key: jax.Array) -> Result:
  """Means under every class, and what the row's own outcomes would have been."""
  mean, sd = arms(t, state, found)
  cells_of = lambda what, values: {f"{name}_{what}_{c}": values[:, k, d] for d, name in enumerate(t.meta["outcomes"])
                                   for k, c in enumerate(t.classes)}
  result = cells_of("if", mean)
  if any(name not in found.values for name in (t.meta["treatment"], *t.meta["outcomes"])):
    return result
  y, z = read_classes(found, t.meta["treatment"], t.classes), inputs.read_features(found, t.meta["outcomes"])
  rows = np.arange(len(y))
  noise = np.where(y[:, None] >= 0, (z - mean[rows, y]) / sd[rows, y], np.nan)
  is_own = (y[:, None] == np.arange(len(t.classes)))[:, :, None] & ~np.isnan(noise)[:, None]
  return result | cells_of("cf", np.where(is_own, z[:, None], mean + sd * noise[:, None]))


def impute_y(t: Trained, state: Any, found: files.Columns, num: int, key: jax.Array) -> Result:
  """Probabilities of the classes, and the most probable one."""
  x, whole = read_columns(t, found, t.meta["features"])
  prob = np.exp(apply(t.functions.impute, state, x, whole))
  return labels.name_probabilities(t.classes, prob)


def effect(t: Trained, state: Any, found: files.Columns, num: int, key: jax.Array) -> Result:
  """Effects of every class but the first against the first, and posterior intervals of a Bayesian model."""
  x, whole = read_columns(t, found, t.meta["covariates"])
  means = apply(t.functions.outcomes, state, x, whole).mean
  values = {"": t.units.factor * (means - means[:, :1])}
  if bayes.is_bayesian(state.applied):
    low, high = outputs.row_intervals(t.functions, t.meta, state.applied, x, key)
    values |= {"_low": emptied(low, whole), "_high": emptied(high, whole)}
  name_of = lambda d, c: f"effect_{c}" if len(t.meta["outcomes"]) == 1 else f"effect_{t.meta['outcomes'][d]}_{c}"
  return {name_of(d, c) + end: part[:, k, d] for d in range(len(t.meta["outcomes"]))
          for k, c in enumerate(t.classes) if k for end, part in values.items()}


def say_effect(reference: str, bayesian: bool, columns: files.Columns, found: Result) -> list[str]:
  """What the effects are against, and whether they have intervals."""
  return [f"effects are against {reference}"] + [
      "effects of single rows have no interval here; --config.model.bayesian=true trains a model that gives one"
  ] * (not bayesian)


def export_impute(t: Trained, state: Any) -> tuple[Callable, int]:
  """(function of outcomes, instruments, covariates [B, columns] in raw units to probabilities [B, K], columns)."""
  scaler = t.meta["scaler"]
  scaling.exportable(scaler)

  def pure(x):
    covariates, w, z = t.split(scaling.scale_on_device(scaler, x))
    return jnp.exp(t.model.apply({"params": bayes.network(state.applied)}, covariates, w, z, method=t.model.impute))
  return pure, len(t.meta["features"])


def export_effect(t: Trained, state: Any) -> tuple[Callable, int]:
  """(function of covariates [B, D] in raw units to effects [B, Z (K - 1)] in the order of the verb's columns, D)."""
  D, scaler = len(t.meta["covariates"]), scaler_of(t, t.meta["covariates"])
  scaling.exportable(scaler)
  factor = jnp.asarray(t.units.factor, jnp.float32)[None, None]

  def pure(x):
    means = t.model.apply({"params": bayes.network(state.applied)}, scaling.scale_on_device(scaler, x),
                          method=t.model.outcomes).mean
    return jnp.moveaxis(factor * (means[:, 1:] - means[:, :1]), 2, 1).reshape(x.shape[0], -1)
  return pure, D


def make_verbs(model: nets.Joint, meta: dict, bayesian: bool) -> dict[str, Verb]:
  """The verbs of a model and a table's meta; `bayesian`: whether its parameters have a posterior."""
  t = Trained(model, meta, outputs.make_functions(model, meta), outputs.Units(meta))
  bind = lambda fn: functools.partial(fn, t)
  own = tuple(map(Input, meta["covariates"]))
  treatment = Input(meta["treatment"], kind="label", required=False, values=tuple(meta["class_names"]))
  seen = tuple(Input(name, required=False) for name in meta["outcomes"])
  return {"predict_z": Verb(bind(predict_z), None, "mean", (*own, treatment)),
          "counterfactual_z": Verb(bind(counterfactual_z), None, "mean", (*own, treatment, *seen)),
          "impute_y": Verb(bind(impute_y), bind(export_impute), "mean", tuple(map(Input, meta["features"])),
                           decide=functools.partial(labels.pick_class, meta["class_names"])),
          "effect": Verb(bind(effect), bind(export_effect), "mean", own,
                         say=functools.partial(say_effect, meta["class_names"][0], bayesian))}
