"""Parametric nuisances of effects, fitted by Newton's method, in closed form and by EM: pure JAX functions of fixed
shapes, for one table or, by `jax.vmap`, for many.

Features [N, P] have a column of ones first; the other columns, and outcomes z [N], should have mean 0 and deviation 1.
q [N, C] says how much a row counts as one of each class. It holds all weights of rows: padding has zeros, and a row may
count more than once, or, in augmented equations, less than not at all.

  treatment   log p(y = j | x) = b_j f(x) - log sum_k exp(b_k f(x)), b_0 = 0; parameters [C-1, P]
  outcome     E[z | x, y = j] = a_j g(x); parameters [C, P]
  joint       the two, and z Normal around its mean with a deviation for each class, where y is recorded for some rows

Each has an `Equation`, a sum over rows that is zero at the fit; intervals differentiate it. All slopes are shrunk by a
ridge that counts as that many rows, intercepts by a thousandth of it: it makes every system solvable, also where a
class is separated or empty, and moves estimates by about ridge / N.

**Source:** iteratively reweighted least squares: McCullagh & Nelder 1989; EM for a treatment that is missing at random:
Dempster, Laird & Rubin 1977.
"""

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

INTERCEPT = 1e-3  # of the ridge, for the first column
MOST_STEP, MOST_STEPS, CLOSE = 4.0, 30, 1e-6  # of Newton's method: the largest step of a parameter, steps, the last
EM_STEPS, POLISH_STEPS = 40, 5
LEAST_SD = 1e-3  # of an outcome within a class, in deviations of the outcome


class Arms(NamedTuple):
  """Parameters of `treatment` [C-1, P] and of `outcome` [C, P]."""
  treatment: jax.Array
  outcome: jax.Array


class Joint(NamedTuple):
  """Parameters of the joint model: its arms, and log_sd [C] of the outcome within each class."""
  arms: Arms
  log_sd: jax.Array


class Features(NamedTuple):
  """Columns [N, P] that regressions of the treatment and of the outcome see of the covariates."""
  treatment: jax.Array
  outcome: jax.Array


def penalty(features: jax.Array, ridge: float) -> jax.Array:
  """The ridge of each column [P]."""
  return jnp.asarray(ridge * np.where(np.arange(features.shape[1]), 1.0, INTERCEPT), features.dtype)


def class_log_probs(treatment: jax.Array, features: jax.Array, offset: jax.Array | float = 0.0) -> jax.Array:
  """log p(y | x) [N, C] of parameters [C-1, P]; an offset [C-1] is added to the logits of all rows."""
  logits = features @ treatment.T + jnp.atleast_2d(offset)
  return jax.nn.log_softmax(jnp.concatenate([jnp.zeros_like(logits[:, :1]), logits], axis=1), axis=1)


def class_residual(q: jax.Array, log_prior: jax.Array) -> jax.Array:
  """Residuals [N, C-1] of the equation of `treatment`, from log p(y | x)."""
  return (q - jnp.sum(q, axis=1, keepdims=True) * jnp.exp(log_prior))[:, 1:]


def class_step(treatment: jax.Array, features: jax.Array, q: jax.Array, ridge: float) -> jax.Array:
  """Parameters [C-1, P] of `treatment` after a step of Newton's method, which is bounded."""
  own, size = penalty(features, ridge), jnp.sum(q, axis=1)
  share = jnp.exp(class_log_probs(treatment, features))[:, 1:]
  gradient = (q[:, 1:] - size[:, None] * share).T @ features - own[None] * treatment
  spread = size[:, None, None] * (share[:, :, None] * jnp.eye(share.shape[1], dtype=share.dtype)[None]
                                  - share[:, :, None] * share[:, None])
  curvature = jnp.einsum("njk,np,nr->jpkr", spread, features, features)
  K, P = treatment.shape
  curvature = curvature.reshape(K * P, K * P) + jnp.diag(jnp.tile(own, K))
  factor = jax.scipy.linalg.cho_factor(curvature)
  move = jax.scipy.linalg.cho_solve(factor, gradient.reshape(-1)).reshape(K, P)
  return treatment + move * jnp.minimum(1.0, MOST_STEP / jnp.maximum(jnp.max(jnp.abs(move)), 1e-30))


def fit_classes(features: jax.Array, q: jax.Array, ridge: float) -> jax.Array:
  """Parameters [C-1, P] of `treatment`, by Newton's method from 0 until a step is below CLOSE, whose square is left."""
  def turn(carry):
    treatment, _, count = carry
    new = class_step(treatment, features, q, ridge)
    return new, jnp.max(jnp.abs(new - treatment)), count + 1

  start = jnp.zeros((q.shape[1] - 1, features.shape[1]), features.dtype)
  first = (start, jnp.asarray(jnp.inf, features.dtype), 0)
  return jax.lax.while_loop(lambda carry: (carry[1] > CLOSE) & (carry[2] < MOST_STEPS), turn, first)[0]


def fit_outcomes(features: jax.Array, q: jax.Array, z: jax.Array, ridge: float) -> jax.Array:
  """Parameters [C, P] of `outcome`, by least squares within each class."""
  squares = jnp.einsum("nj,np,nr->jpr", q, features, features) + jnp.diag(penalty(features, ridge))[None]
  return jnp.linalg.solve(squares, jnp.einsum("nj,np,n->jp", q, features, z)[..., None])[..., 0]


def fit_arms(features: Features, q: jax.Array, z: jax.Array, ridge: float) -> Arms:
  """Both regressions, each by itself, where rows count as q says."""
  return Arms(fit_classes(features.treatment, q, ridge), fit_outcomes(features.outcome, q, z, ridge))


class Said(NamedTuple):
  """What both regressions say of rows: log_prior [N, C] = log p(y | x), and error [N, C] = z - E[z | x, y]."""
  log_prior: jax.Array
  error: jax.Array


NO_OFFSET = Arms(0.0, 0.0)
NO_OFFSETS = Joint(NO_OFFSET, 0.0)


def said(arms: Arms, features: Features, z: jax.Array, offset: Arms = NO_OFFSET) -> Said:
  """What both regressions say of rows; an offset is added to all logits and to all means."""
  return Said(class_log_probs(arms.treatment, features.treatment, offset.treatment),
              z[:, None] - features.outcome @ arms.outcome.T - jnp.atleast_2d(offset.outcome))


def arms_residual(q: jax.Array, told: Said) -> Arms:
  """Residuals of the equations of both regressions, of which `told` is what they say."""
  return Arms(class_residual(q, told.log_prior), q * told.error)


def posterior(log_sd: jax.Array, told: Said) -> jax.Array:
  """p(y | x, z) [N, C] by Bayes' rule, from deviations and from what the regressions say."""
  log_sd = log_sd[None]
  return jax.nn.softmax(told.log_prior - log_sd - 0.5 * (told.error * jnp.exp(-log_sd)) ** 2, axis=1)


def where_recorded(one_hot: jax.Array, recorded: jax.Array, other: jax.Array) -> jax.Array:
  """[N, C]: the recorded class of a row, else `other`."""
  return jnp.where(recorded[:, None] > 0, one_hot, other)


def joint_residual(log_sd: jax.Array, q: jax.Array, told: Said) -> Joint:
  """Residuals of the joint model, with q = p(y | x, z) where y is not recorded: the mean of those of full rows."""
  return Joint(arms_residual(q, told), q * ((told.error * jnp.exp(-log_sd)[None]) ** 2 - 1))


def parts_by_design(found: dict) -> dict[str, list]:
  """The leaves of a tree of fits, such as parameters, by the design that they are of, in a fixed order."""
  arms = [fit.arms if isinstance(fit, Joint) else fit for name, fit in sorted(found.items()) if name != "recording"]
  parts = {"recording": [found["recording"]] if "recording" in found else [],
           "treatment": [one.treatment for one in arms], "outcome": [one.outcome for one in arms],
           "ones": [fit.log_sd for fit in found.values() if isinstance(fit, Joint)]}
  return {design: leaves for design, leaves in parts.items() if leaves}


class System(NamedTuple):
  """Equations sum over rows of weight residual (x) features - ridge parameters = 0 at given parameters.

  Attributes:
    features: design -> [N, P].
    params: design -> [K, P], of all fits.
    residuals: design -> [N, K].
    derivatives: design -> design -> [N, K, K'], of residuals by linear predictors of the row.
    ridge: design -> [P].
  """
  features: dict[str, jax.Array]
  params: dict[str, jax.Array]
  residuals: dict[str, jax.Array]
  derivatives: dict[str, dict[str, jax.Array]]
  ridge: dict[str, jax.Array]


def differentiate(function: Callable, found: dict) -> tuple:
  """(residuals, derivatives by design) of a row-wise function of offsets, with a leading axis N in all its results.

  What a parameter changes in a row it changes through a linear predictor of that row alone. So the derivative by an
  offset that all rows share, which is one number, is that by the predictors of every row.
  """
  zero = jax.tree.map(lambda leaf: jnp.zeros(len(leaf), leaf.dtype), found)
  flat, unravel = ravel_pytree(zero)
  by_flat = jax.jacfwd(lambda flat: function(unravel(flat)))(flat)
  places = parts_by_design(unravel(jnp.arange(len(flat), dtype=flat.dtype)))
  places = {design: jnp.concatenate(leaves).astype(int) for design, leaves in places.items()}
  return function(zero), jax.tree.map(lambda leaf: {design: leaf[..., at] for design, at in places.items()}, by_flat)


def make_system(residuals: dict, derivatives: dict, found: dict, features: dict[str, jax.Array],
                ridge: float) -> System:
  """The equations of fits; residuals and derivatives are of `differentiate`, by design."""
  columns = {design: jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves])
             for design, leaves in parts_by_design(found).items()}
  shrink = {design: penalty(features[design], 0.0 if design == "ones" else ridge) for design in columns}
  return System(features, columns, residuals, derivatives, shrink)


def total(system: System, weight: jax.Array) -> dict[str, jax.Array]:
  """Left-hand sides [K, P] by design."""
  return {design: (weight[:, None] * residual).T @ system.features[design]
          - system.ridge[design][None] * system.params[design] for design, residual in system.residuals.items()}


def slopes(system: System, derivatives: dict[str, jax.Array], features: jax.Array, weight: jax.Array) -> jax.Array:
  """Derivatives [K P, parameters] of sums over rows of weight r (x) features [N, P] by all parameters, from those of r
  [N, K] by predictors.
  """
  found = []
  for design, part in derivatives.items():
    one = jnp.einsum("nkl,np,nr->kplr", weight[:, None, None] * part, features, system.features[design])
    found.append(one.reshape(one.shape[0] * one.shape[1], -1))
  return jnp.concatenate(found, axis=1)


def bread(system: System, weight: jax.Array) -> jax.Array:
  """The Jacobian of `total` by all parameters, both in the order of designs."""
  rows = [slopes(system, system.derivatives[design], system.features[design], weight) for design in system.params]
  shrink = [jnp.tile(system.ridge[design], len(params)) for design, params in system.params.items()]
  return jnp.concatenate(rows) - jnp.diag(jnp.concatenate(shrink))


def along(system: System, directions: jax.Array, weight: jax.Array) -> jax.Array:
  """What each row adds to the left-hand sides, times directions [M, parameters]: [N, M]; rows share the ridge."""
  made, start, share = 0.0, 0, weight / jnp.sum(weight)
  for design, params in system.params.items():
    own = directions[:, start:start + params.size].reshape(-1, *params.shape)
    start += params.size
    made += weight[:, None] * jnp.einsum("nk,nmk->nm", system.residuals[design],
                                         jnp.einsum("np,mkp->nmk", system.features[design], own))
    made -= share[:, None] * jnp.einsum("kp,mkp->m", system.ridge[design][None] * params, own)[None]
  return made


def concatenated(residuals: dict) -> dict[str, jax.Array]:
  """Residuals [N, K] of fits by design."""
  return {design: jnp.concatenate(leaves, axis=1) for design, leaves in parts_by_design(residuals).items()}


def fit_joint(features: Features, one_hot: jax.Array, recorded: jax.Array, z: jax.Array, weight: jax.Array,
              ridge: float, start: Arms) -> Joint:
  """The joint model of all rows by EM, then by Newton's method on its equation.

  Args:
    features: of covariates.
    one_hot: [N, C] recorded classes; zeros where none is recorded.
    recorded: [N], 1 or 0.
    z: [N] outcomes.
    weight: [N], 0 for padding.
    ridge: see the module.
    start: both regressions of recorded rows.
  """
  def membership(joint, offset=NO_OFFSETS):
    told = said(joint.arms, features, z, offset.arms)
    return where_recorded(one_hot, recorded, posterior(joint.log_sd + offset.log_sd, told)), told

  def deviations(q, outcome):
    squares = jnp.sum(q * (z[:, None] - features.outcome @ outcome.T) ** 2, axis=0)
    return 0.5 * jnp.log(jnp.maximum(squares / jnp.maximum(jnp.sum(q, axis=0), 1e-30), LEAST_SD ** 2))

  def turn(_, joint):
    q = weight[:, None] * membership(joint)[0]
    outcome = fit_outcomes(features.outcome, q, z, ridge)
    return Joint(Arms(class_step(joint.arms.treatment, features.treatment, q, ridge), outcome), deviations(q, outcome))

  def system(joint):
    def residuals(offsets):
      q, told = membership(joint, offsets["joint"])
      return concatenated({"joint": joint_residual(joint.log_sd + offsets["joint"].log_sd, q, told)})
    found = {"joint": joint}
    designs = {"treatment": features.treatment, "outcome": features.outcome, "ones": jnp.ones_like(z)[:, None]}
    return make_system(*differentiate(residuals, found), found, designs, ridge)

  def polish(_, carry):
    joint, old = carry
    value = jnp.concatenate([one.ravel() for one in total(old, weight).values()])
    move, start, leaves = jnp.linalg.solve(bread(old, weight), value), 0, {}
    for design, params in old.params.items():
      leaves[design] = params - move[start:start + params.size].reshape(params.shape)
      start += params.size
    new = Joint(Arms(leaves["treatment"], leaves["outcome"]), leaves["ones"][:, 0])
    made = system(new)
    worst = lambda one: jnp.max(jnp.stack([jnp.max(jnp.abs(part)) for part in total(one, weight).values()]))
    better = worst(made) < worst(old)  # not where one is NaN
    return jax.tree.map(lambda own, other: jnp.where(better, own, other), (new, made), carry)

  first = jax.lax.fori_loop(0, EM_STEPS, turn, Joint(start, deviations(weight[:, None] * one_hot, start.outcome)))
  return jax.lax.fori_loop(0, POLISH_STEPS, polish, (first, system(first)))[0]
