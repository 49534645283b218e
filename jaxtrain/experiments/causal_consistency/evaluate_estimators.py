"""The part of the assessment that holds average effects by every estimator of `estimators`, from held-out rows alone:
no model is asked. Scalars are named as those of `evaluate`.

An estimate has its 95 % interval, which accounts for the estimated nuisances (`_low`, `_high`), the plain one, which
takes them for known (`_plain_low`, `_plain_high`), and its E-value. `mnar_tipping` says how far unrecorded treatments
would have to depend on themselves for the interval of `mi_outcome` to hold no effect. Intervals are by Student's t, at
as many degrees of freedom as recorded rows, or groups with such, less one. `estimators_reason` is text that says what
is missing and why.

Regressions take standardised covariates, with squares and products where rows are many for them; the probability of
being recorded takes covariates, the outcome and their products.
"""

import functools
from typing import Any, Callable

import jax
import numpy as np

from jaxtrain import statistics
from jaxtrain.experiments.causal_consistency import diagnostics, effects, estimators, evaluate
from jaxtrain.experiments.causal_consistency.estimators import Data, Spec
from jaxtrain.types import Metric

RIDGE = 1.0  # rows that shrinkage counts as
MOST_ROWS, ROWS_SEED = 20_000, 0  # of a table; of a longer one so many are drawn
LEAST_ROWS = 256  # tables are padded to this or a power of two, so that few programs are compiled
MOST_FEATURES = 60  # with squares and products
MOST_PARAMETERS = 1500  # of all equations
TILTS = np.linspace(-5, 5, 21)  # of which the tipping point is interpolated
SCALARS = {name: f"ate_{name}" for name in estimators.ESTIMATORS} | {"aipw": "ate_aipw_stacked"}
OF_HIDDEN = ("deletion", "ipo", "mi_propensity", "mi_outcome", "triply_robust")  # ways with unrecorded treatments
COMPILER = {"xla_backend_optimization_level": 0}  # each program runs once or a few times

KEY = {"key": True, "words": "average effect, triply robust"}
METRICS = {
    SCALARS[name]: Metric(evaluate.UNIT, f"average effect {meaning}", **KEY if name == "triply_robust" else {})
    for name, meaning in {
        "deletion": "on rows with a recorded treatment, doubly robust, as if they were all rows",
        "ipo": "by recorded rows over their probability of being recorded, doubly robust",
        "mi_propensity": "with treatments imputed from covariates alone: biased towards no effect",
        "mi_outcome": "with treatments imputed from covariates and outcomes, doubly robust",
        "plug_in": "by the means of a joint model of linear regressions",
        "ipw_ht": "by inverse weights (Horvitz-Thompson)",
        "ipw_hajek": "by inverse weights that add to one (Hajek)",
        "aipw": "by cross-fitted linear and logistic regressions, doubly robust",
        "triply_robust": "that is right where two of the models of outcome, treatment and recording are",
    }.items()
} | {
    "e_value_*": Metric("risk ratio", "strength that a hidden confounder needs to explain an estimator's effect away"),
    "mnar_tipping": Metric("log odds", "dependence of unrecorded treatments on themselves that would leave no effect; "
                           "inf: none up to 5", "higher"),
    "estimators_rows": Metric("rows", "rows that estimators without the model are of"),
    "rows_per_feature": Metric("rows", "recorded rows of the smallest class for each feature of its regression; below "
                               "2, intervals are too short", "higher"),
    "estimators_reason": Metric("", "what estimators are missing, and why"),
}


def features_of(x: np.ndarray, y: np.ndarray, z: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
  """Features of rows [N, P] of the probability of being recorded, and of both regressions; the first column is 1."""
  count = np.bincount(y[y >= 0], minlength=num_classes)
  of_x, outcome, ones = effects.with_products(x, count.min()), effects.standardised(z[:, None]), np.ones((len(y), 1))
  plain = effects.standardised(x)
  of_x = of_x if of_x.shape[1] <= MOST_FEATURES else plain
  return (np.concatenate([ones, plain, outcome, plain * outcome], axis=1), np.concatenate([ones, of_x], axis=1))


def data_of(rows: dict, k: int, num_classes: int) -> Data:
  """Rows as estimators have them, in float64, padded."""
  y, z = rows["y"].astype(np.int32), rows["z"][:, k].astype(np.float64)
  recording, of_x = features_of(rows["x"].astype(np.float64), y, z, num_classes)
  N, group = len(y), rows.get("group")
  fold = effects.stratified_folds(y, effects.FOLD_SEED, group)
  group = np.arange(N) if group is None else np.unique(group, return_inverse=True)[1]
  found = Data(y, z, recording, of_x, of_x, np.ones(N), group.astype(np.int32), fold.astype(np.int32))
  size = max(LEAST_ROWS, 1 << (N - 1).bit_length())
  padded = lambda leaf: np.concatenate([leaf, np.zeros((size - N, *leaf.shape[1:]), leaf.dtype)])
  return Data(*map(padded, found))


def reason_for_none(y: np.ndarray, z: np.ndarray, class_names: list[str]) -> str:
  """Why rows have no estimates at all; empty where they have."""
  count = np.bincount(y[y >= 0], minlength=len(class_names))
  few = int(count.argmin())
  if count[few] < effects.MIN_ARM_ROWS:
    return (f"{class_names[few]!r} has {count[few]} rows with a recorded treatment, of {effects.MIN_ARM_ROWS} that an "
            "estimate needs")
  if not effects.standardised(z[:, None]).shape[1]:
    return "the outcome does not vary"
  return ""


def num_parameters(data: Data, num_classes: int) -> int:
  """Parameters of the fits of all estimators."""
  arms = (num_classes - 1) * data.treatment.shape[1] + num_classes * data.outcome.shape[1]
  return data.recording.shape[1] + num_classes + 5 * arms


@functools.cache
def programs() -> tuple[Callable, ...]:
  """Compiled `fit`, `effects_of` and `tilted`, which keep their programs."""
  compiled = lambda function, static: jax.jit(function, static_argnums=static, compiler_options=COMPILER)
  return compiled(estimators.fit, 1), compiled(estimators.effects_of, 2), compiled(estimators.tilted, 2)


def run(data: Data, spec: Spec, with_tilts: bool) -> tuple[dict, Any]:
  """(estimates by name, those by tilt or None), NumPy float64, computed on the CPU where there is one."""
  fit, effects_of, tilted = programs()
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # the process was told to have an accelerator alone
    device = None
  with jax.enable_x64(True), jax.default_device(device):
    fits = fit(data, spec)
    found = effects_of(fits, data, spec), tilted(fits, data, spec, TILTS) if with_tilts else None
    return jax.tree.map(np.asarray, found)


def tipping_point(value: np.ndarray, half: np.ndarray) -> float:
  """The smallest |tilt| at which an interval holds 0, by linear interpolation between `TILTS`; inf where none does.

  Args:
    value: [TILTS] of estimates; half: [TILTS] of half their intervals.
  """
  outside = np.abs(value) - half  # below 0 where the interval holds 0
  middle = len(TILTS) // 2
  if not np.isfinite(outside[middle]):
    return float("nan")
  if outside[middle] <= 0:
    return 0.0
  if not np.isfinite(outside).all():  # what cannot be solved does not speak for the effect
    return float("nan")
  found = []
  for side in (outside[middle:], outside[middle::-1]):
    crossed = np.flatnonzero(side <= 0)
    if len(crossed):
      at = crossed[0]
      found.append((at - 1 + side[at - 1] / (side[at - 1] - side[at])) * (TILTS[1] - TILTS[0]))
  return float(min(found, default=float("inf")))


def scalars_of_outcome(rows: dict, facts: dict, k: int) -> dict[str, Any]:
  """Scalars of outcome k."""
  y, z, names, end = rows["y"], rows["z"][:, k], facts["class_names"], evaluate.ending(facts, 1, k)
  if reason := reason_for_none(y, z, names):
    return {f"estimators_reason{end}": f"No estimator without the model: {reason}."}
  C, seen, found = len(names), y >= 0, {}
  data = data_of(rows, k, C)
  if (size := num_parameters(data, C)) > MOST_PARAMETERS:
    return {f"estimators_reason{end}": f"No estimator without the model: the covariates and classes make {size:,} "
            f"parameters, of {MOST_PARAMETERS:,} that are allowed."}
  wanted = tuple(name for name in estimators.ESTIMATORS if name not in OF_HIDDEN or not seen.all())
  made, by_tilt = run(data, Spec(C, wanted, effects.NUM_FOLDS, RIDGE), not seen.all())
  independent = len(np.unique(rows["group"][seen])) if "group" in rows else seen.sum()
  quantile = statistics.t_quantile(max(independent - 1, 1))
  deviation = diagnostics.deviation_within(y, z, C)
  around = lambda value, se: tuple(map(effects.around, value, quantile * se))
  failed = [name for name in wanted if not np.isfinite([made[name].value, made[name].stacked_se]).all()]
  for name in (name for name in wanted if name not in failed):
    one = made[name]
    of = around(one.value, one.stacked_se)
    found |= evaluate.named(facts, SCALARS[name], k, of)
    plain = evaluate.named(facts, f"{SCALARS[name]}_plain", k, around(one.value, one.plain_se))
    found |= {key: value for key, value in plain.items() if "_plain_" in key}
    short = SCALARS[name].removeprefix("ate_")
    found |= {f"e_value_{short}{evaluate.ending(facts, j, k)}": diagnostics.e_value(part.value, deviation)
              for j, part in enumerate(of, 1) if deviation > 0 and np.isfinite(part.value)}
  if failed:
    found[f"estimators_reason{end}"] = (f"No estimate by {', '.join(failed)}: a model that it needs was not found, as "
                                        "where treatments determine outcomes.")
  elif by_tilt is None:
    found[f"estimators_reason{end}"] = ("Every treatment is recorded: estimators that differ in how they treat missing "
                                        "ones are left out, since they would agree.")
  if by_tilt is not None and "mi_outcome" not in failed:
    for j in range(1, C):
      found[f"mnar_tipping{evaluate.ending(facts, j, k)}"] = tipping_point(
          by_tilt.value[:, j - 1], quantile * by_tilt.stacked_se[:, j - 1])
  return found | {f"rows_per_feature{end}": float(np.bincount(y[seen]).min() / data.outcome.shape[1])}


def assess_rows(rows: dict, facts: dict) -> dict[str, Any]:
  """Scalars of held-out rows: x [N, D], y [N] (-1 = not recorded), z [N, Z], and `group` [N] where rows have one.

  `facts` are those of `evaluate.assess_rows`.
  """
  N = len(rows["y"])
  if N > MOST_ROWS:
    pick = np.sort(np.random.default_rng(ROWS_SEED).permutation(N)[:MOST_ROWS])
    rows = {name: np.asarray(column)[pick] for name, column in rows.items()}
  found: dict[str, Any] = {"estimators_rows": min(N, MOST_ROWS)}
  for k in range(rows["z"].shape[1]):
    found |= scalars_of_outcome(rows, facts, k)
  return found
