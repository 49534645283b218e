"""Average effects of a treatment that is not recorded for all rows, by name, with intervals that know of the estimated
nuisances: pure JAX functions of fixed shapes, for one table or, by `jax.vmap`, for many.

  estimate(data, spec) -> {name: Estimated(value, stacked_se, plain_se)}

Every estimate of the mean outcome of class j is a mean over rows of s [m_j(x) + (q_j / e_j(x)) (z - m_j(x))], or a part
of it, where R says that y is recorded, pi = P(R = 1 | x, z), e = P(y | x), m = E[z | x, y], lambda = p(y | x, z). What
differs is how the regressions e and m are fitted, which is with rows that count as q too:

  deletion       q = R 1{y}, s = R                          recorded rows as if they were all
  ipo            q = R 1{y} / pi, s = R / pi                recorded rows, each for those like it that are not
  mi_propensity  q = R 1{y} + (1 - R) e(x)                  y imputed from x alone, e from recorded rows
  mi_outcome     q = R 1{y} + (1 - R) lambda                y imputed from x and z, from the joint model of all rows
  plug_in        m alone, of the joint model                the joint model's own
  ipw_ht         z q / e alone, q = R 1{y} / pi             inverse weights (Horvitz-Thompson)
  ipw_hajek      the same over the mean of q / e            inverse weights that add to one (Hajek)
  aipw           q = R 1{y} / pi, cross-fitted              doubly robust where pi is right
  triply_robust  q = lambda + (R / pi) (1{y} - lambda)      right where two of m, e, pi are

Imputations are infinitely many: a row counts as each class with its probability, so that no draw adds noise.

The last takes lambda from the joint model, and q makes both regressions, and the score, right where pi or lambda is:
the mean of q given (x, z) is p(y | x, z) in either case. So e is right where its features are and pi is, or all of the
joint model is; m likewise; and the score needs one of them. Fits of recorded rows alone would not do, because what is
recorded depends on z.

All parameters solve one system of equations, mean psi(theta) = 0. `stacked_se` is the sandwich A^-1 B A^-T / n of the
whole system, A by automatic differentiation; `plain_se` takes the nuisances for known. psi is summed within groups of
rows. The cross-fitted estimate has the influence function of the one that is not, to first order.

**Source:** Robins, Rotnitzky & Zhao 1994 (inverse probability of observation, augmented equations); Kennedy, Efficient
nonparametric causal inference with missing exposure information, 2020 (the score of `triply_robust`); Feldman & Reiter,
2025 (imputation of treatments with the outcome); Robins & Wang 2000 (intervals of imputation); Stefanski & Boos 2002
(stacked equations); Chernozhukov et al. 2018 (cross-fitting).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_consistency import nuisances, regressions
from jaxtrain.experiments.causal_consistency.nuisances import Data, Scaled, Seen


class Estimator(NamedTuple):
  """How a name is computed.

  Attributes:
    q: the rule of `nuisances.memberships` by which rows count as members of classes.
    arms: the fit in whose regressions the score is.
    size: what a row counts in the mean: `one`, `recorded` or `weighted` (recorded rows over pi).
    score: `augmented` (m + q (z - m) / e), `plug_in` (m), `weighted` (q z / e) or `ratio` (the same over q / e).
  """
  q: str
  arms: str
  size: str
  score: str


ESTIMATORS = {
    "deletion": Estimator("complete", "complete", "recorded", "augmented"),
    "ipo": Estimator("weighted", "weighted", "weighted", "augmented"),
    "mi_propensity": Estimator("imputed", "imputed", "one", "augmented"),
    "mi_outcome": Estimator("joint", "joint", "one", "augmented"),
    "plug_in": Estimator("joint", "joint", "one", "plug_in"),
    "ipw_ht": Estimator("weighted", "weighted", "one", "weighted"),
    "ipw_hajek": Estimator("weighted", "weighted", "one", "ratio"),
    "aipw": Estimator("weighted", "weighted", "one", "augmented"),
    "triply_robust": Estimator("robust", "robust", "one", "augmented"),
}


class Spec(NamedTuple):
  """What is estimated; a static argument of `jax.jit`.

  Attributes:
    num_classes: C.
    names: of `ESTIMATORS`.
    num_folds: of `aipw`; 1 = not cross-fitted.
    ridge: rows that the shrinkage of slopes counts as (see `regressions`).
  """
  num_classes: int
  names: tuple[str, ...] = tuple(ESTIMATORS)
  num_folds: int = 5
  ridge: float = 1.0


class Estimated(NamedTuple):
  """Effects of the classes 1 .. C-1 against class 0, each [C-1]: the value and its two standard errors."""
  value: jax.Array
  stacked_se: jax.Array
  plain_se: jax.Array


def needed(estimators: tuple[Estimator, ...]) -> tuple[str, ...]:
  """The fits that estimators take something from, in an order of solving."""
  wanted = {fit for one in estimators for fit in (one.arms, one.q)}
  wanted |= {need for name in wanted for need in nuisances.NEEDS[name]}
  return tuple(name for name in nuisances.NEEDS if name in wanted)


def fit(data: Data, spec: Spec) -> tuple[dict, dict]:
  """Fits that the estimators of a spec need: of all rows, and of all but a fold (see `nuisances.fit`)."""
  wanted = needed(tuple(ESTIMATORS[name] for name in spec.names))
  num_folds = spec.num_folds if spec.num_folds > 1 and "aipw" in spec.names else 0
  return nuisances.fit(nuisances.scaled(data, spec.num_classes)[0], wanted, num_folds, spec.ridge)


def scores(own: Estimator, seen: Seen, given: Scaled) -> tuple[jax.Array, jax.Array]:
  """(score, size) [N, C] of an estimator; the mean outcome of a class is the sum of one over that of the other."""
  told, z, ones = seen.told[own.arms], given.data.z[:, None], jnp.ones_like(given.one_hot)
  if own.score == "plug_in":
    return z - told.error, ones
  inverse = seen.q[own.q] / jnp.maximum(jnp.exp(told.log_prior), given.floor)
  if own.score == "weighted":
    return inverse * (z + given.origin), ones
  if own.score == "ratio":
    return inverse * z, inverse
  size = ones if own.size == "one" else ones * (given.recorded if own.size == "recorded" else seen.odds)[:, None]
  return (z - told.error) * size + inverse * told.error, size


def standard_errors(influence: jax.Array, given: Scaled) -> jax.Array:
  """Standard errors [..., C-1] of the differences from class 0 of sums over rows of influence [N, ..., C], independent
  between groups.
  """
  difference, data = influence[..., 1:] - influence[..., :1], given.data
  sums = jax.ops.segment_sum(jnp.concatenate([difference.reshape(len(influence), -1), data.weight[:, None]], axis=1),
                             data.group, len(influence))
  groups = jnp.sum(sums[:, -1] > 0)
  return jnp.sqrt(jnp.sum(sums[:, :-1] ** 2, axis=0) * groups / (groups - 1.0)).reshape(difference.shape[1:])


def estimates(own: dict[str, Estimator], found: dict, given: Scaled, spec: Spec) -> dict[str, Estimated]:
  """Value and standard errors of each estimator at fits of all rows, in deviations of the outcome."""
  weight, M = given.data.weight, len(own) * spec.num_classes

  def of_rows(offsets):
    seen = nuisances.see(found, given, offsets)
    score, size = (jnp.stack(parts, axis=1) for parts in zip(*(scores(one, seen, given) for one in own.values())))
    residuals = nuisances.residuals_of(found, seen, offsets, given)
    return regressions.concatenated(residuals), score, size

  (residuals, score, size), (by_residual, by_score, by_size) = regressions.differentiate(of_rows, found)
  whole = jnp.tensordot(weight, size, 1)
  means = jnp.tensordot(weight, score, 1) / whole  # [estimators, C]
  left = (score - size * means[None]).reshape(-1, M)
  flat = lambda part: part.reshape(-1, M, part.shape[-1])
  by_left = {design: flat(part - by_size[design] * means[None, ..., None]) for design, part in by_score.items()}
  designs = {"recording": given.data.recording, "treatment": given.data.treatment, "outcome": given.data.outcome,
             "ones": jnp.ones_like(weight)[:, None]}
  system = regressions.make_system(residuals, by_residual, found, designs, spec.ridge)
  through = regressions.slopes(system, by_left, designs["ones"], weight)  # [M, parameters]
  directions = jnp.linalg.solve(regressions.bread(system, weight).T, through.T).T
  plain = weight[:, None] * left
  both = jnp.stack([plain - regressions.along(system, directions, weight), plain], axis=1)
  both = both.reshape(-1, 2, *means.shape) / whole[None, None]
  se = standard_errors(both, given)
  solved = nuisances.is_solved(system, found, given)
  made = {}
  for k, (name, one) in enumerate(own.items()):
    fine = jnp.all(jnp.stack([solved[fit] for fit in needed((one,))]))
    made[name] = Estimated(*(jnp.where(fine, part, jnp.nan) for part in (
        means[k, 1:] - means[k, 0], se[0, k], se[1, k])))
  return made


def cross_fitted(own: Estimator, by_fold: dict, given: Scaled) -> jax.Array:
  """Effects [C-1] of rows by nuisances that have not seen their fold."""
  def of_fold(fold, found):
    score, size = scores(own, nuisances.see(found, given, nuisances.no_offsets(found)), given)
    kept = given.data.weight * (given.data.fold == fold)
    return kept @ score, kept @ size
  num_folds = len(by_fold["recording"])
  score, size = jax.vmap(of_fold)(jnp.arange(num_folds), by_fold)
  mean = jnp.sum(score, axis=0) / jnp.sum(size, axis=0)
  return mean[1:] - mean[0]


def effects_of(fits: tuple[dict, dict], data: Data, spec: Spec) -> dict[str, Estimated]:
  """`estimate` with fits that `fit` has found."""
  (found, by_fold), (given, deviation) = fits, nuisances.scaled(data, spec.num_classes)
  own = {name: ESTIMATORS[name] for name in spec.names}
  made = estimates(own, found, given, spec)
  if by_fold:
    solved = jnp.isfinite(made["aipw"].value)  # of all rows; where these have no solution, the folds' means nothing
    made["aipw"] = made["aipw"]._replace(value=jnp.where(solved, cross_fitted(own["aipw"], by_fold, given), jnp.nan))
  return {name: Estimated(*(deviation * part for part in made[name])) for name in spec.names}


def estimate(data: Data, spec: Spec) -> dict[str, Estimated]:
  """Average effects by every estimator that the spec names, in the units of z.

  Args:
    data: rows; all arrays of floats of one type: float64, or float32 with standardised columns.
    spec: what to estimate.

  Returns:
    name -> value and standard errors of each class against class 0. Nothing raises: an outcome that does not vary has
    NaN, and so has an estimator with a fit that was not found. With no row that lacks a treatment, those that differ
    in how such rows are treated agree.
  """
  return effects_of(fit(data, spec), data, spec)


def tilted(fits: tuple[dict, dict], data: Data, spec: Spec, tilts: jax.Array) -> Estimated:
  """`mi_outcome` where, among rows without a record, the odds of a class against the one before are exp(tilt) times
  those that the joint model gives: what an unrecorded treatment that depends on itself would do.

  Args:
    fits: of `fit`, the joint model among them.
    data, spec: as of `estimate`.
    tilts: [T].

  Returns:
    Estimates [T, C-1]; the tilt of 0 is `mi_outcome`.
  """
  own = {"tilted": Estimator("tilted", "tilted", "one", "augmented")}
  given, deviation = nuisances.scaled(data, spec.num_classes)
  joint = {"joint": fits[0]["joint"]}  # the tilt is of what it imputes; it itself stays

  def at(tilt):
    here = given._replace(tilt=tilt)
    seen = nuisances.see(joint, here, nuisances.no_offsets(joint))
    q = data.weight[:, None] * nuisances.memberships("tilted", joint["joint"].log_sd, seen, here)
    found = joint | {"tilted": regressions.fit_arms(here.features, q, here.data.z, spec.ridge)}
    return jax.tree.map(lambda part: deviation * part, estimates(own, found, here, spec)["tilted"])
  return jax.lax.map(at, tilts)
