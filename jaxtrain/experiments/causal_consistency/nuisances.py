"""Fits of what effects of a partly recorded treatment need: the probability of being recorded, the treatment, and the
outcome, with rows that count as members of classes by different rules; see `estimators`. Pure JAX functions.

  recording   R given (x, z)                      complete   e and m, q = R 1{y}
  weighted    e and m, q = R 1{y} / pi            imputed    e and m, q = R 1{y} + (1 - R) e of `complete`
  joint       e, m and deviations, all rows       robust     e and m, q = lambda + (R / pi) (1{y} - lambda)
  tilted      as `joint` imputes, tilted

**Source:** as of `estimators` and `regressions`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_consistency import regressions
from jaxtrain.experiments.causal_consistency.regressions import Features

LEAST_RECORDED = 0.1  # of the share that is recorded: smaller probabilities of being recorded count as that
MOST_FLOOR = 0.1  # of propensities, whatever the number of rows
SOLVED = 0.4  # equations count as solved below the precision of numbers to this power, a row: 5e-7 of float64
NEEDS = {  # fit -> those that it takes something from, in the order of solving
    "complete": (), "recording": (), "weighted": ("recording",), "imputed": ("complete",), "joint": (),
    "robust": ("recording", "joint"), "tilted": ("joint",)}
RECORDED = ("complete", "weighted")  # fits of recorded rows alone, and these over pi


class Data(NamedTuple):
  """Rows of a table; every array may have a leading axis of tables, under `jax.vmap`.

  Attributes:
    y: [N] int32, the class of the treatment; -1 = not recorded.
    z: [N], the outcome, in any unit.
    recording: [N, P], features of (x, z) for the probability of being recorded; the first column is 1.
    treatment, outcome: [N, P] features of x for e and m, likewise. A study makes a nuisance wrong by wrong features.
    weight: [N], 1, or 0 for padding; or how many rows a row stands for.
    group: [N] int32 in 0 .. N-1, rows that are not independent of each other; `jnp.arange(N)` without.
    fold: [N] int32 in 0 .. num_folds - 1, of the cross-fitted estimate.
  """
  y: jax.Array
  z: jax.Array
  recording: jax.Array
  treatment: jax.Array
  outcome: jax.Array
  weight: jax.Array
  group: jax.Array
  fold: jax.Array


class Scaled(NamedTuple):
  """Rows as the equations see them: the data with z of mean 0 and deviation 1, and what stands for all rows.

  Attributes:
    data: rows; z scaled.
    one_hot: [N, C], recorded classes.
    recorded: [N], 1 or 0.
    origin: what of a scaled outcome is its zero in units.
    rows: sum of weights.
    share: mean of `recorded`.
    floor: smallest propensity.
    tilt: logit of a class more, where y is not recorded (`estimators.tilted`).
  """
  data: Data
  one_hot: jax.Array
  recorded: jax.Array
  origin: jax.Array
  rows: jax.Array
  share: jax.Array
  floor: jax.Array
  tilt: jax.Array

  @property
  def features(self) -> Features:
    """Of treatment and outcome."""
    return Features(self.data.treatment, self.data.outcome)


def scaled(data: Data, num_classes: int, tilt: float = 0.0) -> tuple[Scaled, jax.Array]:
  """(rows as the equations see them, deviation of z). An outcome that does not vary has deviation 0, and NaN."""
  rows = jnp.sum(data.weight)
  mean = jnp.sum(data.weight * data.z) / rows
  deviation = jnp.sqrt(jnp.sum(data.weight * (data.z - mean) ** 2) / rows)
  recorded = (data.y >= 0).astype(data.z.dtype)
  count = jnp.maximum(jnp.sum(data.weight * recorded), 3.0)
  floor = jnp.minimum(MOST_FLOOR, 5 / (jnp.sqrt(count) * jnp.log(count)))
  one_hot = jax.nn.one_hot(data.y, num_classes, dtype=data.z.dtype)
  return Scaled(data._replace(z=(data.z - mean) / deviation), one_hot, recorded, mean / deviation, rows,
                jnp.sum(data.weight * recorded) / rows, floor, jnp.asarray(tilt, data.z.dtype)), deviation


class Seen(NamedTuple):
  """What fits say of rows, by the name of a fit.

  Attributes:
    q: [N, C], how much a row counts as one of each class.
    told: what its regressions say.
    share, odds: P(R = 1 | x, z) [N], and R over it, small ones counted as LEAST_RECORDED of the mean; of `recording`.
  """
  q: dict[str, jax.Array]
  told: dict[str, regressions.Said]
  share: jax.Array | None = None
  odds: jax.Array | None = None


def recording(found: dict, given: Scaled, offset: jax.Array | float = 0.0) -> Seen:
  """What the fit `recording` says."""
  share = jnp.exp(regressions.class_log_probs(found["recording"], given.data.recording, offset))[:, 1]
  return Seen({}, {}, share, given.recorded / jnp.maximum(share, LEAST_RECORDED * given.share))


def memberships(rule: str, log_sd: jax.Array | None, seen: Seen, given: Scaled) -> jax.Array:
  """q [N, C] by a rule, from what the fits that it needs say; log_sd [C] is of the joint model."""
  own, recorded = given.one_hot, given.recorded
  if rule == "complete":
    return recorded[:, None] * own
  if rule == "weighted":
    return seen.odds[:, None] * own
  if rule == "imputed":
    return regressions.where_recorded(own, recorded, jnp.exp(seen.told["complete"].log_prior))
  posterior = regressions.posterior(log_sd, seen.told["joint"])
  if rule == "joint":
    return regressions.where_recorded(own, recorded, posterior)
  if rule == "tilted":
    raised = posterior * jnp.exp(given.tilt * jnp.arange(own.shape[1], dtype=own.dtype))[None]
    return regressions.where_recorded(own, recorded, raised / jnp.sum(raised, axis=1, keepdims=True))
  return posterior + seen.odds[:, None] * (own - posterior)


def see(found: dict, given: Scaled, offsets: dict) -> Seen:
  """What fits say of rows, with offsets that are added to their linear predictors."""
  seen = recording(found, given, offsets["recording"]) if "recording" in found else Seen({}, {})
  log_sd = found["joint"].log_sd + offsets["joint"].log_sd if "joint" in found else None
  for name in (name for name in NEEDS if name in found and name != "recording"):
    arms, offset = (one[name].arms if name == "joint" else one[name] for one in (found, offsets))
    seen.told[name] = regressions.said(arms, given.features, given.data.z, offset)
    seen.q[name] = memberships(name, log_sd, seen, given)
  return seen


def fit_recorded(given: Scaled, ridge: float) -> dict:
  """The fits of recorded rows: `recording`, `complete` and `weighted`."""
  weight, data = given.data.weight[:, None], given.data
  both = weight * jnp.stack([1 - given.recorded, given.recorded], axis=1)
  found = {"recording": regressions.fit_classes(data.recording, both, ridge)}
  seen = recording(found, given)
  arms = lambda size: regressions.fit_arms(given.features, weight * size[:, None] * given.one_hot, data.z, ridge)
  two = jax.vmap(arms)(jnp.stack([given.recorded, seen.odds]))
  return found | {name: jax.tree.map(lambda leaf, at=at: leaf[at], two) for at, name in enumerate(RECORDED)}


def fit(given: Scaled, wanted: tuple[str, ...], num_folds: int, ridge: float) -> tuple[dict, dict]:
  """The wanted fits: of all rows, and, where there are folds, those of recorded rows of all but a fold, with a leading
  axis of folds.
  """
  weight = given.data.weight

  def of_rest(fold):  # -1 is no row's
    rest = given.data._replace(weight=weight * (given.data.fold != fold))
    return fit_recorded(given._replace(data=rest), ridge)
  every = jax.lax.map(of_rest, jnp.arange(-1, num_folds))
  found, by_fold = (jax.tree.map(lambda leaf, at=at: leaf[at], every) for at in (0, slice(1, None)))
  if "joint" in wanted:
    found["joint"] = regressions.fit_joint(given.features, given.one_hot, given.recorded, given.data.z, weight,
                                           ridge, found["complete"])
  if last := [name for name in ("imputed", "robust") if name in wanted]:
    seen, joint = see(found, given, no_offsets(found)), found.get("joint")
    arms = lambda q: regressions.fit_arms(given.features, weight[:, None] * q, given.data.z, ridge)
    both = jax.vmap(arms)(jnp.stack([memberships(name, joint and joint.log_sd, seen, given) for name in last]))
    found |= {name: jax.tree.map(lambda leaf, at=at: leaf[at], both) for at, name in enumerate(last)}
  return {name: found[name] for name in wanted}, by_fold if num_folds else {}


def residuals_of(found: dict, seen: Seen, offsets: dict, given: Scaled) -> dict:
  """Residuals of the equations of fits, a tree like their parameters with a leading axis N."""
  made = {}
  for name in found:
    if name == "recording":
      both, log_share = jnp.stack([1 - given.recorded, given.recorded], axis=1), jnp.log(jnp.stack(
          [1 - seen.share, seen.share], axis=1))
      made[name] = regressions.class_residual(both, log_share)
    elif name == "joint":
      log_sd = found[name].log_sd + offsets[name].log_sd
      made[name] = regressions.joint_residual(log_sd, seen.q[name], seen.told[name])
    else:
      made[name] = regressions.arms_residual(seen.q[name], seen.told[name])
  return made


def no_offsets(found: dict) -> dict:
  """Offsets of 0 for fits."""
  return jax.tree.map(lambda leaf: jnp.zeros(len(leaf), leaf.dtype), found)


def is_solved(system: regressions.System, found: dict, given: Scaled) -> dict[str, jax.Array]:
  """Whether the equations of each fit hold."""
  off, place, made = regressions.total(system, given.data.weight), {design: 0 for design in system.params}, {}
  for name, params in sorted(found.items()):
    parts = []
    for design, leaves in regressions.parts_by_design({name: params}).items():
      parts.append(jnp.max(jnp.abs(off[design][place[design]:place[design] + len(leaves[0])])))
      place[design] += len(leaves[0])
    made[name] = jnp.max(jnp.stack(parts)) / given.rows < jnp.finfo(parts[0].dtype).eps ** SOLVED
  return made
