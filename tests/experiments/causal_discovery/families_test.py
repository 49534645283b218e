"""Families named in a config, and which of them a task gets: words, shares, gathering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import families, graphs, mechanisms

KNOWN = {"a": {"p": 0.5, "m": 2}, "b": {}, "c": {"name": "x"}}


def named(weights):
  """Families of these weights."""
  return families.parse("data.graphs", tuple(f"b weight={w}" for w in weights), KNOWN)


def test_words_become_parameters_of_the_defaults_types():
  found = families.parse("data.graphs", ("a m=3 weight=1", "c name=y weight=3"), KNOWN)
  assert [family.params for family in found] == [{"p": 0.5, "m": 3}, {"name": "y"}]
  assert [family.weight for family in found] == [0.25, 0.75]


@pytest.mark.parametrize("texts, words", [
    (("d",), "got 'd', allowed a, b, c"), (("",), "got '', allowed a, b, c"),
    (("a q=1",), "got 'q=1' in 'a q=1', allowed a with NAME=VALUE of p, m, weight"),
    (("a p",), "got 'p' in 'a p'"), (("a m=1.5",), "got 'm=1.5' in 'a m=1.5', allowed a value of type int"),
    (("a weight=-1",), "got weight=-1.0"), (("a weight=nan",), "got 'weight=nan'"), ((), "at least one family"),
    (("a weight=0",), "at least one family")])
def test_bad_words_are_refused_in_a_line(texts, words):
  with pytest.raises(UserError) as caught:
    families.parse("data.graphs", texts, KNOWN)
  assert words in str(caught.value) and "config.data.graphs" in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.integers(0, 2**20))
def test_of_a_period_each_family_gets_its_share_rounded_down_or_up(weights, bits, group):
  found = named(weights)
  number = np.arange(families.PERIOD, dtype=np.uint32) + families.PERIOD * group
  kinds = np.asarray(families.kind_of(jnp.full((families.PERIOD,), bits, jnp.uint32), jnp.asarray(number), found))
  count = np.bincount(kinds, minlength=len(found))
  share = np.diff([0, *families.bounds(found)]) * families.PERIOD / families.CIRCLE
  assert (count >= np.floor(share)).all() and (count <= np.ceil(share)).all()
  assert (count <= families.capacities(found, families.PERIOD, True)).all()


def test_a_single_task_has_the_weights_as_probabilities():
  """False alarms: 1e-6 by the binomial's normal tail, 3 families."""
  found, num = named((0.34, 0.33, 0.33)), 200_000
  bits = np.random.RandomState(0).randint(2**32, size=num, dtype=np.uint32)
  kind_of = jax.jit(lambda bits, task: families.kind_of(bits, task, found))
  for task in (0, 5):
    share = np.bincount(np.asarray(kind_of(bits, np.full(num, task, np.uint32)))) / num
    np.testing.assert_allclose(share, [0.34, 0.33, 0.33], atol=5.1 * (0.25 / num) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [1, 2, 4, 8, 12, 16, 24])
def test_capacities_hold_for_any_aligned_run_of_tasks(num_tasks):
  found = named((0.5, 0.3, 0.2))
  most = families.capacities(found, num_tasks, True)
  for seed in range(40):
    group_bits = np.asarray(jax.random.bits(jax.random.key(seed), (64,)))
    number = np.arange(num_tasks * 3, num_tasks * 4, dtype=np.uint32)
    kinds = families.kind_of(jnp.asarray(group_bits[number // families.PERIOD]), jnp.asarray(number), found)
    assert (np.bincount(np.asarray(kinds), minlength=3) <= most).all()


@pytest.mark.slow
def test_by_kind_is_each_function_on_its_own_tasks():
  found = named((0.5, 0.3, 0.2))
  kinds, x = jnp.asarray([0, 1, 0, 2, 0, 1, 0, 1]), jnp.arange(24.0).reshape(8, 3)
  functions = [lambda v: v + 1, lambda v: v * 2, lambda v: -v]
  out = families.by_kind(kinds, functions, families.capacities(found, 8, True), x)
  want = np.stack([functions[k](v) for k, v in zip(np.asarray(kinds), np.asarray(x))])
  np.testing.assert_array_equal(np.asarray(out), want)


@pytest.mark.parametrize("text, words", [
    ("er edge_prob=1.5", "edge_prob=1.5"), ("er num_edges=11", "0 to 10"), ("sf m=5", "1 to 4"), ("ws k=3", "even"),
    ("sbm n_blocks=6", "1 to 5"), ("sf_directed transpose=2", "0 | 1"), ("grg dim=0", "1 to 100")])
def test_graphs_that_cannot_be_are_refused(text, words):
  with pytest.raises(UserError, match="config.data.graphs") as caught:
    graphs.check(families.parse("data.graphs", (text,), graphs.KNOWN)[0], 5)
  assert words in str(caught.value)


@pytest.mark.parametrize("text, words", [
    ("gp length_low=3", "at most length_high=2.0"), ("pnl nonlinearity=cos", "cube | sigmoid | tanh"),
    ("mlp hidden_dim=0", "1e-09 to 65536"), ("mlp depth=65", "0 to 64"),
    ("legacy_linear noise_concentration=2.3", "a multiple of 0.5")])
def test_mechanisms_that_cannot_be_are_refused(text, words):
  with pytest.raises(UserError, match="config.data.mechanisms") as caught:
    mechanisms.check(families.parse("data.mechanisms", (text,), mechanisms.KNOWN)[0])
  assert words in str(caught.value)
