"""What a trained joint model does with new rows.

  predict_z         E[z | x, y] and its deviation, of the row's own treatment
  counterfactual_z  <z>_if_<class>: E[z | x, do(y = class)]; <z>_cf_<class>: what this row's z would have been, with the
                    noise of its own z kept (abduction); empty where y or z is missing
  impute_y          p(y | x, z) by class, and the most probable; a recorded y is not looked at
  effect            effect_<class>: E[z | x, do(class)] - E[z | x, do(first class)] of every row

Columns have the names of training. With instruments `impute_y` reads them too.

**Source:** abduction, action, prediction: Pearl 2009 (Causality), theorem 7.1.7; here the noise is additive and scaled.
"""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data import blocks, cells, files, inputs, labels
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import bayes, nets, outputs, sources
from jaxtrain.types import Input, Verb


def read_classes(columns: files.Columns, name: str, class_names: list[str]) -> np.ndarray:
  """The treatment [N] int32 of a file, -1 where it is missing. Raises UserError for a class that training had not."""
  columns.check(name)
  if name not in columns.values:
    raise UserError(f"{columns.path} has no column {name!r}, the treatment")
  code, found = labels.encode(columns.scalars(name), cells.missing_test(columns.form))
  by_number = {labels.number_of(known): k for k, known in enumerate(class_names)} | {None: -1}
  places = [class_names.index(given) if given in class_names else by_number.get(labels.number_of(given), -1)
            for given in found]  # 1.0 of one file is the 1 of another
  for k in np.flatnonzero(np.asarray(places, int) < 0)[:1]:
    row = columns.row(int(np.flatnonzero(code == k)[0]))
    raise UserError(f"{columns.path}: column {name!r}, {row}: {found[k]!r}, allowed {', '.join(class_names)}")
  return np.append(places, -1).astype(np.int32)[code]


def make_verbs(model: nets.Joint, meta: dict) -> dict[str, Verb]:
  """The verbs of a model and a table's meta."""
  scaler, classes = meta["scaler"], meta["class_names"]
  names, units = meta["features"], outputs.Units(meta)
  split = functools.partial(sources.split_columns, meta)
  outcomes, covariates, instruments = (meta[role] for role in ("outcomes", "covariates", "instruments"))

  def read(found: files.Columns, needed: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(columns [N, columns] in scaled units with 0 for those not needed, [N] whether a row has what is needed)."""
    values = inputs.read_features(found, needed)
    raw = np.tile(np.asarray(scaler["mean"]), (len(values), 1))
    raw[:, [names.index(name) for name in needed]] = values
    whole = ~np.isnan(values).any(axis=1)
    scaled = np.zeros(raw.shape, np.float32)
    scaled[whole] = inputs.scaled(scaler, found, raw, whole)
    return scaled, whole

  def apply(fn: Callable, state, x: np.ndarray, whole: np.ndarray) -> Any:
    """fn(model, covariates, instruments, outcomes) of rows in blocks, NaN for rows that are not whole."""
    def of_block(variables, block):
      return fn(model.bind(variables), *split({"x": block}))
    found = blocks.in_blocks(of_block, {"params": bayes.network(state.applied)}, x)
    return jax.tree.map(lambda leaf: np.where(whole.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, np.nan)
                        .astype(np.float64), found)

  def means_of(state, found):
    x, whole = read(found, covariates)
    normals = apply(lambda bound, x, w, z: bound.outcomes(x), state, x, whole)
    return units.shift + units.factor * normals.mean, units.factor * normals.sd

  def predict_z(state, found, num, key):
    y = read_classes(found, meta["treatment"], classes)
    mean, sd = means_of(state, found)
    own = lambda values: np.where(y[:, None] >= 0, values[np.arange(len(y)), y], np.nan)
    return {f"{name}_{what}": own(values)[:, d] for d, name in enumerate(outcomes)
            for what, values in (("mean", mean), ("sd", sd))}

  def counterfactual_z(state, found, num, key):
    mean, sd = means_of(state, found)
    result = {f"{name}_if_{c}": mean[:, k, d] for d, name in enumerate(outcomes) for k, c in enumerate(classes)}
    if meta["treatment"] not in found.values or any(name not in found.values for name in outcomes):
      return result
    y, z = read_classes(found, meta["treatment"], classes), inputs.read_features(found, outcomes)
    rows = np.arange(len(y))
    noise = np.where(y[:, None] >= 0, (z - mean[rows, y]) / sd[rows, y], np.nan)
    return result | {f"{name}_cf_{c}": np.where(y == k, z[:, d], mean[:, k, d] + sd[:, k, d] * noise[:, d])
                     for d, name in enumerate(outcomes) for k, c in enumerate(classes)}

  def impute_y(state, found, num, key):
    x, whole = read(found, [*outcomes, *instruments, *covariates])
    prob = np.exp(apply(lambda bound, x, w, z: bound.impute(x, w, z), state, x, whole))
    result = {f"prob_{name}": prob[:, k] for k, name in enumerate(classes)}
    return result | decide(result)

  def decide(found):
    prob = np.stack([found[f"prob_{name}"] for name in classes], axis=1)
    pred = np.asarray(classes, object)[np.nan_to_num(prob).argmax(axis=1)]
    pred[np.isnan(prob).any(axis=1)] = None
    return {"pred_label": pred}

  def effect(state, found, num, key):
    mean, _ = means_of(state, found)
    name_of = lambda d, c: f"effect_{c}" if len(outcomes) == 1 else f"effect_{outcomes[d]}_{c}"
    return {name_of(d, c): mean[:, k, d] - mean[:, 0, d] for d in range(len(outcomes))
            for k, c in enumerate(classes) if k}

  own = tuple(map(Input, covariates))
  treatment = Input(meta["treatment"], kind="label", required=False)
  seen = tuple(Input(name, required=False) for name in outcomes)
  return {"predict_z": Verb(predict_z, None, "mean", (*own, treatment)),
          "counterfactual_z": Verb(counterfactual_z, None, "mean", (*own, treatment, *seen)),
          "impute_y": Verb(impute_y, None, "mean", tuple(map(Input, (*outcomes, *instruments, *covariates))),
                           decide=decide),
          "effect": Verb(effect, None, "mean", own)}
