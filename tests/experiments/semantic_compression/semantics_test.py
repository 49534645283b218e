"""Differentiable features and losses of meaning against formulas in float64, their gradients, and feature weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxtrain.experiments.semantic_compression import generators, schema, semantics
from jaxtrain.experiments.semantic_compression.schema import AGENT15, LEGACY10, Column, Feature, Schema

TAU = 0.05
RECORD = generators.draw("independent", 200, 0)
V = schema.encode(AGENT15, RECORD)
R = np.random.default_rng(1).normal(size=V.shape).astype(np.float32) * 0.5
ORDER = np.random.default_rng(2).permutation(11)
PERMUTED = schema.checked(AGENT15._replace(columns=tuple(AGENT15.columns[k] for k in ORDER)))
TO_PERMUTED = np.concatenate([np.arange(15)[AGENT15.slices[column.name]] for column in PERMUTED.columns])


def perfect(v):
  """An output that says with certainty what the vectors [N, 15] say."""
  sure = np.array(v)
  sure[:, 7] *= 60
  sure[:, 10:] *= 60
  return sure


LOSSES = jax.jit(semantics.losses, static_argnums=(0, 3))
FEATURES = jax.jit(semantics.features, static_argnums=(0, 2, 3))
VALUE_AND_GRADIENT = jax.jit(jax.value_and_grad(
    lambda r: sum(jnp.sum(loss) for loss in semantics.losses(AGENT15, V, r, TAU).values())))


def kl(p, q):
  """KL between bits, each given by the probabilities of yes and no, which cancel nothing, float64."""
  return special.rel_entr(p[0], q[0]) + special.rel_entr(p[1], q[1])


def logistic(logit):
  """The probabilities of yes and no."""
  return special.expit(logit), special.expit(-logit)


def both(p, q):
  """The probabilities that two bits are true, and that they are not."""
  return p[0] * q[0], p[1] + p[0] * q[1]


def test_losses_by_independent_formulas():
  """In physical units, from the record; the reconstruction's numbers by hand from the places of the vector."""
  found = LOSSES(AGENT15, V, R, TAU)
  assert set(found) == {feature.name for feature in AGENT15.features}
  r = R.astype(np.float64)
  position = (np.stack([RECORD["position_x"] / 200, RECORD["position_y"] / 200, RECORD["position_z"] / 20], 1)
              - r[:, :3]) ** 2
  above, below = (lambda health, at: logistic((health - at) / TAU)), (lambda health, at: logistic((at - health) / TAU))
  mine, theirs = RECORD["current_health"], r[:, 6] + 0.5
  logits = r[:, 10:]
  want = {"position": position.mean(axis=1), "health": ((RECORD["health"] - 0.55) / 0.9 - r[:, 3]) ** 2,
          "age": (RECORD["age"] / 500 - 0.5 - r[:, 8]) ** 2, "total_reward": (RECORD["total_reward"] / 150 - 1 / 6
                                                                            - r[:, 9]) ** 2,
          "is_alive": kl(above(mine, 0.1), above(theirs, 0.1)),
          "threatened": kl(both(above(mine, 0.1), below(mine, 0.3)), both(above(theirs, 0.1), below(theirs, 0.3))),
          "has_target": np.log1p(np.exp(np.where(RECORD["is_defending"], -r[:, 7], r[:, 7]))),
          "role": special.logsumexp(logits, axis=1) - np.take_along_axis(logits, RECORD["role"][:, None], 1)[:, 0]}
  for name, values in want.items():
    np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=2e-6, err_msg=name)


def test_a_perfect_reconstruction_has_no_loss_and_no_gradient():
  loss, gradient = VALUE_AND_GRADIENT(perfect(V))
  assert abs(loss) < 1e-3 and np.abs(gradient).max() < 1e-3


@pytest.mark.parametrize("size", [1e2, 1e6, 1e15])
def test_losses_and_gradients_of_far_outputs_are_finite(size):
  loss, gradient = VALUE_AND_GRADIENT((np.sign(R) * size).astype(np.float32))
  assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_gradients():
  """A bit has sigmoid(logit) - p, a class softmax - one-hot, a rule (q - p) / temperature, the original none."""
  total = lambda name, v, r: jnp.sum(semantics.losses(AGENT15, v, r, TAU)[name])
  of = lambda name: jax.jit(jax.grad(total, argnums=(1, 2)), static_argnums=0)(name, V, R)
  for name, place, want in (("has_target", slice(7, 8), special.expit(R[:, 7:8]) - RECORD["is_defending"][:, None]),
                            ("role", slice(10, 15), special.softmax(R[:, 10:], axis=1) - V[:, 10:]),
                            ("is_alive", slice(6, 7), (special.expit((R[:, 6:7] + 0.4) / TAU)
                                                       - special.expit((V[:, 6:7] + 0.4) / TAU)) / TAU)):
    to_original, gradient = of(name)
    np.testing.assert_allclose(gradient[:, place], want, atol=3e-5, rtol=1e-4)
    assert not np.delete(gradient, np.arange(15)[place], axis=1).any() and not to_original.any()


def test_features_are_hard_with_soft_gradients():
  """Values are those of the record; with `soft` each carries the gradient of its sigmoid, else none."""
  soft, hard = (FEATURES(AGENT15, V, kind, TAU) for kind in (True, False))
  health = RECORD["current_health"]
  want = {"is_alive": health > 0.1, "threatened": (health > 0.1) & (health < 0.3), "has_target": RECORD["is_defending"],
          "role": np.eye(5)[RECORD["role"]], "position": V[:, :3]}
  for name, values in want.items():
    np.testing.assert_allclose(soft[name], values, atol=1e-6)
    np.testing.assert_array_equal(hard[name], values)
  gradient = jax.jit(jax.grad(lambda v, soft: jnp.sum(semantics.features(AGENT15, v, soft, TAU)["threatened"])),
                     static_argnums=1)
  slope = gradient(V, True)[:, 6]
  p, q = special.expit((health - 0.1) / TAU), special.expit((0.3 - health) / TAU)
  np.testing.assert_allclose(slope, (p * (1 - p) * q - p * q * (1 - q)) / TAU, atol=2e-4)
  assert not gradient(V, False).any()


def test_columns_in_another_order_have_the_same_features_and_losses():
  """Whatever reads a place and not a name would differ."""
  one, other = LOSSES(AGENT15, V, R, TAU), LOSSES(PERMUTED, V[:, TO_PERMUTED], R[:, TO_PERMUTED], TAU)
  np.testing.assert_array_equal(schema.encode(PERMUTED, RECORD), V[:, TO_PERMUTED])
  for name in one:
    np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-7)
  one, other = (FEATURES(s, x, True, TAU) for s, x in ((AGENT15, R), (PERMUTED, R[:, TO_PERMUTED])))
  for name in one:
    np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-7)


def test_legacy_features():
  """A role as expected index over 5; threatened = a target and little health, KL of products of probabilities."""
  record = {"position_x": [3.0, -4.0], "position_y": [0.0, 1.0], "health": [0.2, 0.05], "has_target": [1, 0],
            "energy": [0.5, 0.25], "role": [4, 1]}
  v = schema.encode(LEGACY10, {name: np.asarray(values) for name, values in record.items()})
  np.testing.assert_array_equal(v[0], np.float32([3, 0, 0.2, 0.5, 0.5, 0, 0, 0, 0, 1]))
  r = np.float32([[2.5, 0.5, 0.35, 0.7, 0.25, 0, 0, 1, 0, 0], [-4, 1, 0.05, -2, 0.25, 3, 0, 0, 0, 0]])
  found = LOSSES(LEGACY10, v, r, TAU)
  index = special.softmax(r[:, 5:].astype(np.float64), axis=1) @ (np.arange(5) / 5)
  q = both(logistic((0.3 - r[:, 2].astype(np.float64)) / TAU), logistic(r[:, 3].astype(np.float64)))
  p = np.array([[special.expit(2.0), 0.0], [special.expit(-2.0), 1.0]])
  want = {"position": [0.25, 0], "health": [0.0225, 0], "energy": [0.0625, 0],
          "role": (index - [0.8, 0.2]) ** 2, "threatened": kl(p, q),
          "has_target": np.log1p(np.exp([-0.7, -2.0]))}
  for name, values in want.items():
    np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=1e-6, err_msg=name)


def test_weights():
  """The published normalised weights of the seven features, and equal ones."""
  names = [feature.name for feature in LEGACY10.features]
  want = {"position": 0.57708, "health": 0.15625, "energy": 0.10521, "is_alive": 0.05208, "has_target": 0.03646,
          "threatened": 0.02083, "role": 0.05208}
  np.testing.assert_allclose(semantics.weights(LEGACY10, "canonical"), [want[name] for name in names], atol=1e-5)
  np.testing.assert_allclose(semantics.weights(AGENT15, "equal"), 1 / 11)
  two = Schema("two", (Column("a", "binary"),), (Feature("a", "binary", ("a",), weight=0.0),))
  for bad, of in (("even", AGENT15), ("canonical", two)):
    with pytest.raises(ValueError, match="feature weights"):
      semantics.weights(of, bad)


def test_progressive_weights():
  """By hand: p = 0.25 of the way."""
  start, end = np.float32([0.5, 0.5]), np.float32([0.9, 0.1])
  np.testing.assert_allclose(semantics.progressive_weights(start, end, 0.25, "linear"), [0.6, 0.4], rtol=1e-6)
  np.testing.assert_allclose(semantics.progressive_weights(start, end, 0.25, "exp"), [0.675, 0.325], rtol=1e-6)
  np.testing.assert_allclose(semantics.progressive_weights(start, end, 7.0, "exp"), end, rtol=1e-6)
  with pytest.raises(ValueError, match="progressive weights: got 'slow', allowed linear, exp"):
    semantics.progressive_weights(start, end, 0.5, "slow")


def test_weighted_losses_go_by_name():
  """A compiled function returns a dict in the order of its names; weights are in the schema's order."""
  found = LOSSES(AGENT15, V, R, TAU)
  weight = semantics.weights(AGENT15, "canonical")
  want = sum(feature.weight * np.asarray(found[feature.name], np.float64) for feature in AGENT15.features)
  np.testing.assert_allclose(semantics.weighted(AGENT15, found, weight), want, rtol=1e-5)
