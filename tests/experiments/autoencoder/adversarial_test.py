"""Adversarial losses against float64 NumPy, penalties against critics whose gradient is known, the adaptive weight."""

import autoencoder_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxtrain.experiments.autoencoder import adversarial

SLOTS, META = cases.slots_and_meta()
REAL, FAKE = (np.random.RandomState(seed).normal(0, 2, 64) for seed in (0, 1))

softplus = lambda x: -special.log_expit(-x)
WANTED = {  # kind: (the critic's loss of a row, the generator's), of logits r and f
    "hinge": (lambda r, f: np.maximum(1 - r, 0) + np.maximum(1 + f, 0), lambda r, f: -f),
    "nonsat": (lambda r, f: softplus(-r) + softplus(f), lambda r, f: softplus(-f)),
    "lsgan": (lambda r, f: (r - 1) ** 2 / 2 + f ** 2 / 2, lambda r, f: (f - 1) ** 2 / 2),
    "wgan_gp": (lambda r, f: f - r, lambda r, f: -f),
    "rpgan": (lambda r, f: softplus(-(r - f)), lambda r, f: softplus(-(f - r))),
}


def logits():
  """The logits in float32."""
  return jnp.asarray(REAL, jnp.float32), jnp.asarray(FAKE, jnp.float32)


@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_each_loss_is_its_formula(kind):
  of_critic, of_generator = WANTED[kind]
  np.testing.assert_allclose(sum(adversarial.critic_rows(kind, *logits())), of_critic(REAL, FAKE), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(adversarial.generator_rows(kind, *logits()), of_generator(REAL, FAKE), rtol=1e-5,
                             atol=1e-6)


@pytest.mark.parametrize("kind", ["hinge", "nonsat", "lsgan", "wgan_gp"])
def test_the_critics_share_of_real_events_does_not_see_the_made_ones(kind):
  real, fake = logits()
  first, second = adversarial.critic_rows(kind, real, fake), adversarial.critic_rows(kind, real, -fake)
  np.testing.assert_array_equal(first[0], second[0])
  np.testing.assert_array_equal(first[1], adversarial.critic_rows(kind, -real, fake)[1])


@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_the_critic_parts_logits_and_the_generator_closes_the_gap(kind):
  """At logits of 0 each gradient has the sign of its game."""
  zero = jnp.zeros(1)
  by_real, by_fake = jax.grad(lambda r, f: jnp.sum(sum(adversarial.critic_rows(kind, r, f))), (0, 1))(zero, zero)
  assert by_real[0] < 0 < by_fake[0] or (kind == "lsgan" and by_real[0] < 0 == by_fake[0])
  assert jax.grad(lambda f: adversarial.generator_rows(kind, zero, f)[0])(zero)[0] < 0


@pytest.mark.parametrize("function", [adversarial.critic_rows, adversarial.generator_rows])
def test_other_kinds_and_logits_that_are_no_pairs_are_refused(function):
  with pytest.raises(ValueError, match="got 'wasserstein', allowed hinge, nonsat, lsgan, wgan_gp, rpgan"):
    function("wasserstein", *logits())
  with pytest.raises(AssertionError):
    function("hinge", jnp.zeros(3), jnp.zeros(4))


def quadratic(slots):
  """A critic whose gradient is 2 x_tc of every feature and 3 of every global; it sees empty slots too."""
  return jnp.sum(jnp.square(slots.cont), axis=(1, 2)) + 3 * jnp.sum(slots.globals, axis=1)


def linear(slots):
  """A critic whose gradient has norm 5: 3 of one feature, 4 of one global."""
  return 3 * slots.cont[:, 1, 0] + 4 * slots.globals[:, 0]


def test_the_penalty_is_the_squared_gradient_over_objects_and_globals():
  """Of objects alone: this critic would see what is in an empty slot."""
  slots = SLOTS._replace(cont=jnp.where(SLOTS.mask[..., None] > 0, SLOTS.cont, 7.0))
  real, x = np.asarray(SLOTS.mask, np.float64)[..., None], np.asarray(SLOTS.cont, np.float64)
  wanted = 4 * (real * x ** 2).sum(axis=(1, 2)) + 9 * SLOTS.globals.shape[1]
  np.testing.assert_allclose(adversarial.penalty_rows(quadratic, slots), wanted, rtol=1e-5)


def test_the_gradient_penalty_is_zero_at_a_norm_of_one_and_ten_times_the_squared_distance_from_it():
  """At (norm 5): 10 (5 - 1)^2 = 160, wherever the events between are; events without a second object have norm 4."""
  fake = SLOTS._replace(cont=SLOTS.cont + 1, globals=SLOTS.globals - 1)
  rows = lambda critic, share: adversarial.gradient_penalty_rows(critic, SLOTS, fake, jnp.full(len(SLOTS.ids), share))
  has_second = np.asarray(SLOTS.mask)[:, 1] > 0
  for share in (0.0, 0.3, 1.0):
    np.testing.assert_allclose(rows(linear, share), np.where(has_second, 160.0, 90.0), rtol=1e-5)
  np.testing.assert_allclose(rows(lambda slots: slots.globals[:, 0], 0.5), 0.0, atol=1e-9)


def test_the_gradient_penalty_is_taken_between_the_two_events_of_a_row():
  """The norm of the quadratic critic says where: at x = share real + (1 - share) fake."""
  fake = SLOTS._replace(cont=2 * SLOTS.cont + 1, globals=-SLOTS.globals)
  share = np.linspace(0, 1, len(SLOTS.ids))
  x = np.asarray(SLOTS.cont, np.float64)
  x = share[:, None, None] * x + (1 - share[:, None, None]) * (2 * x + 1)
  squared = 4 * (np.asarray(SLOTS.mask)[..., None] * x ** 2).sum(axis=(1, 2)) + 9 * SLOTS.globals.shape[1]
  found = adversarial.gradient_penalty_rows(quadratic, SLOTS, fake, jnp.asarray(share, jnp.float32))
  np.testing.assert_allclose(found, 10 * (np.sqrt(squared) - 1) ** 2, rtol=1e-4)


def test_a_flat_critic_has_a_finite_gradient_of_its_penalty():
  """A root has none at 0; the penalty is 10 there."""
  flat = lambda scale: jnp.sum(adversarial.gradient_penalty_rows(
      lambda slots: scale * linear(slots), SLOTS, SLOTS, jnp.zeros(len(SLOTS.ids))))
  value, slope = jax.value_and_grad(flat)(0.0)
  assert np.isfinite(slope)
  np.testing.assert_allclose(value, 10.0 * len(SLOTS.ids), rtol=1e-4)


def test_the_adaptive_weight_is_the_ratio_of_norms_within_its_bounds():
  """The norm is over all of a layer: |(3, 4, 12)| = 13."""
  rec = {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.array([12.0])}
  adv = {"kernel": jnp.array([[0.0], [0.0]]), "bias": jnp.array([2.0])}
  np.testing.assert_allclose(adversarial.adaptive_weight(rec, adv), 6.5, rtol=1e-5)
  none = jax.tree.map(jnp.zeros_like, adv)
  assert adversarial.adaptive_weight(rec, none) == 1e4
  assert adversarial.adaptive_weight(none, adv) == 0.0
  assert np.isfinite(adversarial.adaptive_weight(none, none))


def test_the_adaptive_weight_has_no_gradient():
  slope = jax.grad(lambda x: adversarial.adaptive_weight({"w": x}, {"w": jnp.ones(2)}))(jnp.ones(2))
  np.testing.assert_array_equal(slope, 0.0)
