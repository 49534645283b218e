"""Schedules at hand-computed points."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import schedules


def values(schedule, positions):
  """The schedule at positions, traced as the step does."""
  return np.asarray(jax.jit(schedule)(jnp.asarray(positions)), np.float64)


def test_warm_up_rises_by_equal_parts_and_meets_the_peak_on_its_last_step():
  for name in ("constant", "cosine", "warmup_cosine"):
    got = values(schedules.learning_rate_shape(name, 100, 8, 0.0), np.arange(9))
    np.testing.assert_allclose(got, np.arange(9) / 8, rtol=1e-6, atol=0)


def test_constant_is_one_everywhere():
  np.testing.assert_array_equal(values(schedules.learning_rate_shape("constant", 10, 0, 0.3), [0, 1, 9, 10, 1000]), 1.0)


@pytest.mark.parametrize("warmup, end", [(0, 0.0), (0, 0.25), (10, 0.0), (10, 0.25)])
def test_cosine_follows_sgdr_between_warm_up_and_horizon(warmup, end):
  num_steps = 50
  steps = np.array([warmup, warmup + 1, 20, 30, 49, 50, 51, 500])
  part = np.clip((steps - warmup) / (num_steps - warmup), 0, 1)
  want = end + (1 - end) * 0.5 * (1 + np.cos(np.pi * part))  # SGDR eq. 5 with peak 1
  got = values(schedules.learning_rate_shape("cosine", num_steps, warmup, end), steps)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  assert got[-1] == got[-3] == pytest.approx(end, abs=1e-7)


def test_step_divides_by_ten_at_a_half_and_at_three_quarters():
  got = values(schedules.learning_rate_shape("step", 80, 0, 0.0), [0, 39, 40, 41, 59, 60, 61, 200])
  np.testing.assert_allclose(got, [1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01], rtol=1e-6)


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match="linear.*constant"):
    schedules.learning_rate_shape("linear", 10, 0, 0.0)
  with pytest.raises(ValueError, match="cosine.*cyclical"):
    schedules.kl_shape("cosine", 0.0, 1.0, 10)


@pytest.mark.parametrize("name, positions, want", [
    ("constant", [0, 5, 20, 99], [0.9, 0.9, 0.9, 0.9]),
    ("linear", [0, 5, 15, 20, 99], [0.1, 0.3, 0.7, 0.9, 0.9]),
    # 4 ramps of 5: up over 2.5, then flat at the end value
    ("cyclical", [0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 19, 20, 99],
     [0.1, 0.42, 0.74, 0.9, 0.9, 0.1, 0.42, 0.74, 0.9, 0.1, 0.9, 0.9, 0.9]),
    ("exponential", [0, 5, 10, 20, 99], [0.1, 0.1 * 9 ** 0.25, 0.3, 0.9, 0.9]),
])
def test_kl_shapes_at_hand_computed_points(name, positions, want):
  got = values(schedules.kl_shape(name, 0.1, 0.9, 20, num_cycles=4), positions)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_sigmoid_is_a_rescaled_logistic_curve():
  f = np.array([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
  logistic = 1 / (1 + np.exp(-10 * (f - 0.5)))
  low, high = 1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5))
  want = 0.2 + 0.6 * (logistic - low) / (high - low)
  np.testing.assert_allclose(values(schedules.kl_shape("sigmoid", 0.2, 0.8, 40), f * 40), want, rtol=1e-5)


@pytest.mark.parametrize("name", ["linear", "sigmoid", "cyclical"])
@pytest.mark.parametrize("num_epochs", [1, 30, 41])
def test_kl_shapes_meet_their_ends_exactly(name, num_epochs):
  # XLA divides by a constant as a product with its reciprocal: 41 * (1 / 41) < 1 in float32.
  got = values(schedules.kl_shape(name, 0.0, 0.75, num_epochs), [0, num_epochs, num_epochs + 1])
  np.testing.assert_array_equal(got, [0.0, 0.75, 0.75])


@pytest.mark.parametrize("name", schedules.KL_SHAPES)
def test_annealing_over_no_epochs_is_at_its_end_at_once(name):
  np.testing.assert_allclose(values(schedules.kl_shape(name, 0.1, 0.9, 0), [0, 1, 50]), 0.9, rtol=1e-6)


@pytest.mark.parametrize("num_epochs, num_cycles", [(20, 4), (25, 5), (50, 10), (55, 5), (82, 2)])
def test_every_ramp_of_cyclical_starts_from_the_start_value(num_epochs, num_cycles):
  position = np.arange(num_epochs)
  want = np.minimum(2 * (position * num_cycles % num_epochs) / num_epochs, 1)  # remainder in whole numbers
  got = values(schedules.kl_shape("cyclical", 0.0, 1.0, num_epochs, num_cycles=num_cycles), position)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_hybrid_recipe_anneals_from_a_millionth_to_a_half_in_thirty_epochs():
  epoch = np.array([0, 1, 2, 15, 29, 30, 99])
  want = 1e-6 + (0.5 - 1e-6) * np.minimum(epoch / 30, 1)
  np.testing.assert_allclose(values(schedules.kl_shape("linear", 1e-6, 0.5, 30), epoch), want, rtol=1e-6)


def test_the_ends_of_a_kl_shape_may_be_tracers():
  halfway = jax.jit(lambda end: schedules.kl_shape("linear", 0.0, end, 10)(jnp.int32(5)))
  assert [float(halfway(end)) for end in (1.0, 4.0)] == [0.5, 2.0]


def test_exponential_from_zero_is_refused_as_a_user_error():
  with pytest.raises(ValueError, match="start"):
    schedules.kl_shape("exponential", 0.0, 0.5, 30)
