"""The stream of tasks: random access, purposes, chunks, standardisation, interventions, padding, rejection, signal."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import rng
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import families, noises, scores, tasks

DEFAULTS = {"graphs": ("er edge_prob=0.4", "sf m=2"), "mechanisms": ("linear", "mlp hidden_dim=4", "square"),
            "noises": ("gaussian", "laplace"), "corruptions": ("none",), "mixture": "node",
            "noise_mixture": "task", "noise_share": (0.1, 0.9),
            "num_rows": 30, "num_rows_int": 10, "p_obs_only": 0.25, "intervention_value": 2.0,
            "intervention_scale": 0.5, "normalize": True, "reject_constant": True, "task_chunk": 4, "num_nodes": (5, 6)}
KEY = jax.random.key(11)
# What is compiled is called once or twice; the tests of bits compile as training does.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.lru_cache
def maker(purpose="train", padded=6, batch=8, quick=True, **changed):
  """`(numbers [batch], key) -> batch` of a spec; `quick`: compiled for few calls."""
  data = SimpleNamespace(**(DEFAULTS | changed))
  spec = tasks.make_spec(data)
  def make(numbers, key):
    return tasks.make_batch(spec, padded, tuple(data.num_nodes), key, purpose, numbers, jnp.ones((batch,)), True)
  return jax.jit(make, compiler_options=QUICK if quick else None)


def batch_of(first=0, purpose="train", batch=8, key=KEY, **changed):
  """A batch of consecutive tasks, on the host."""
  made = maker(purpose, batch=batch, **changed)(jnp.arange(first, first + batch, dtype=jnp.uint32), key)
  return {name: np.asarray(value) for name, value in made.items()}


@pytest.mark.slow
def test_a_task_is_the_same_bits_in_whatever_batch():
  """Task 16 alone among 4, among 8, among 16: also where the batch is a single chunk."""
  whole = batch_of(8, batch=16, quick=False)
  for first, size in ((16, 4), (16, 8)):
    part = batch_of(first, batch=size, quick=False)
    for name in whole:
      np.testing.assert_array_equal(part[name], whole[name][first - 8:first - 8 + size], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(8, marks=pytest.mark.slow)])
def test_another_chunk_gives_the_same_graphs_kinds_and_masks_and_values_to_rounding(chunk):
  one, other = batch_of(quick=False), batch_of(task_chunk=chunk, quick=False)
  for name in one:
    if name == "values":
      np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    else:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
def test_purposes_and_seeds_never_give_the_same_task():
  seen = [batch_of(purpose=purpose, key=rng.key_for(seed, "data"), mechanisms=("linear",))["values"]
          for purpose in tasks.PURPOSES for seed in (0, 1)]
  flat = np.concatenate(seen).reshape(len(seen) * 8, -1)
  assert len(np.unique(flat.round(6), axis=0)) == len(flat)


@pytest.mark.slow
def test_values_are_standardised_per_task_over_all_rows_and_zero_in_padding():
  made = batch_of()
  for x, real in zip(made["values"], made["node_mask"] > 0):
    np.testing.assert_allclose(x[:, real].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, real].std(0), 1, atol=1e-4)
    assert (x[:, ~real] == 0).all()
  assert set(made["node_mask"].sum(1)) <= {5, 6}
  big = batch_of(mechanisms=("avici_linear", "square"), normalize=False)["values"].std(1)
  assert big.max() > 2  # otherwise the test above would hold of anything


@pytest.mark.slow
def test_graphs_are_acyclic_and_padding_has_no_edges():
  made = batch_of(batch=16)
  for A, real in zip(made["adjacency"], made["node_mask"] > 0):
    assert bool(scores.is_acyclic(A)) and not A[~real].any() and not A[:, ~real].any()
  assert ((made["mechanism_kinds"] >= 0) == (made["node_mask"] > 0)).all()


@pytest.mark.slow
def test_no_label_tells_a_direction():
  """Edges i -> j and j -> i are equally likely for every pair: binomial at 1e-6 over 15 pairs, 4,000 graphs."""
  made = batch_of(batch=4000, num_nodes=(6,), num_rows=2, num_rows_int=0, mechanisms=("linear",),
                  reject_constant=False)
  count = made["adjacency"].sum(0)
  forward, both = count[np.triu_indices(6, 1)], (count + count.T)[np.triu_indices(6, 1)]
  assert (abs(forward - both / 2) < 5.5 * 0.5 * both**0.5).all() and both.min() > 1000


@pytest.mark.slow
def test_interventions_cut_the_node_from_its_parents_and_are_marked():
  made = batch_of(normalize=False, batch=16, p_obs_only=0.0, intervention_scale=0.0)
  rows = made["intervened"].sum(2)
  assert (rows[:, :30] == 0).all() and (rows[:, 30:] == 1).all()
  assert (made["values"][made["intervened"] > 0] == 2.0).all()
  share = np.mean([batch_of(first, batch=16)["intervened"].any((1, 2)).mean() for first in range(0, 160, 16)])
  assert 0.55 < share < 0.92  # a quarter of 160 tasks is observational: 0.75 +- 5 standard errors


@pytest.mark.slow
def test_an_intervention_reaches_descendants_alone():
  """In two tasks of the same numbers with other do-values, only rows of descendants of the target differ."""
  low, high = (batch_of(normalize=False, batch=16, p_obs_only=0.0, intervention_value=v, mechanisms=("linear",),
                        noises=("gaussian",), intervention_scale=0.0) for v in (1.0, -3.0))
  reached = 0
  for a, b, A, marks in zip(low["values"], high["values"], low["adjacency"], low["intervened"]):
    reach = np.linalg.matrix_power(np.eye(6) + A, 6) > 0
    for row in range(30, 40):
      differ = np.abs(a[row] - b[row]) > 1e-6
      target = int(np.flatnonzero(marks[row])[0])
      assert (differ <= reach[target]).all() and differ[target]
      reached += differ.sum() - 1
  assert reached > 100


@pytest.mark.slow
def test_tasks_that_are_constant_or_not_finite_are_rejected_and_counted():
  constant = batch_of(mechanisms=("legacy_logistic",), num_rows_int=0)
  assert (constant["weight"] == 0).all() and (constant["rejected"] == 1).all() and (constant["values"] == 0).all()
  kept = batch_of(mechanisms=("legacy_logistic",), num_rows_int=0, reject_constant=False)
  assert (kept["weight"] == 1).all() and (kept["rejected"] == 0).all()
  overflow = batch_of(mechanisms=("legacy_pnl nonlinearity=cube",), graphs=("er edge_prob=1.0",), num_nodes=(6,),
                      normalize=False)
  assert np.isfinite(overflow["values"]).all() and overflow["rejected"].sum() > 0
  np.testing.assert_array_equal(overflow["weight"], 1 - overflow["rejected"])
  again = batch_of(8, mechanisms=("legacy_pnl nonlinearity=cube",), graphs=("er edge_prob=1.0",), num_nodes=(6,),
                   normalize=False)
  assert again["rejected"].sum() > 0


@pytest.mark.slow
def test_one_mechanism_per_task_or_per_node():
  kinds = batch_of(mixture="task", batch=16)["mechanism_kinds"]
  assert all(len(set(k[k >= 0])) == 1 for k in kinds) and len(set(kinds[kinds >= 0])) == 3
  kinds = batch_of(mixture="node", batch=16)["mechanism_kinds"]
  assert any(len(set(k[k >= 0])) > 1 for k in kinds)


@pytest.mark.parametrize("mixture", ["task", "node", "either"])
def test_who_draws_a_family_and_that_each_gets_its_share(mixture):
  found = families.parse("data.noises", ("gaussian weight=2", "laplace", "uniform"), noises.NOISES)
  bits = np.repeat(np.random.RandomState(0).randint(2**32, size=(400, 2 + 6), dtype=np.uint32), families.PERIOD, 0)
  numbers = jnp.arange(len(bits))
  kinds = np.asarray(tasks.draw_kinds(mixture, found, numbers, bits[:, 0], bits[:, 2:], bits[:, 1]))
  whole = (kinds == kinds[:, :1]).all(1).reshape(-1, families.PERIOD)
  np.testing.assert_allclose(np.bincount(kinds.ravel()) / kinds.size, (0.5, 0.25, 0.25), atol=0.03)
  shares = {"task": (1, 1), "node": (0, 0.02), "either": (0.4, 0.6)}[mixture]
  assert shares[0] <= whole.all(1).mean() <= shares[1]
  for group in kinds.reshape(-1, families.PERIOD, 6):  # each place of a group has exactly its shares
    assert [(group == k).sum(0).tolist() for k in range(3)] == [[4] * 6, [2] * 6, [2] * 6]


@pytest.mark.slow
def test_noise_of_a_place_is_of_its_own_family():
  batch = batch_of(noise_mixture="node", noises=("binary", "gaussian"), num_rows_int=0, graphs=("er edge_prob=0.0",),
                   batch=16)
  levels = np.asarray([[len(np.unique(x[:, i])) for i in np.flatnonzero(mask)][:5]
                       for x, mask in zip(batch["values"], batch["node_mask"])])
  assert ((levels == 2) | (levels == 30)).all() and any(len(set(row)) == 2 for row in levels.tolist())
  assert abs((levels == 2).mean() - 0.5) < 0.25


@pytest.mark.slow
def test_heteroscedastic_noise_depends_on_the_parents_in_scale_alone():
  family = SimpleNamespace(name="gaussian", params={"heteroscedastic": 1})
  x = jnp.stack([jnp.linspace(-30, 30, 4000), jnp.zeros(4000)])
  eps = jax.random.normal(jax.random.key(0), (4000,))
  scaled = tasks.scale_noise(family, jax.random.key(1), x, jnp.array([1.0, 0.0]), eps, jnp.ones(4000))
  scale = np.asarray(scaled / eps)
  assert abs((scale**2).mean() - 1) < 1e-3 and scale.std() > 0.1 and (scale > 0).all()
  plain = SimpleNamespace(name="gaussian", params={"heteroscedastic": 0})
  assert tasks.scale_noise(plain, None, x, None, eps, None) is eps


@pytest.mark.slow
def test_sizes_go_to_the_smallest_padded_size_and_streams_take_turns():
  buckets = tasks.make_buckets((3, 4, 5, 9), (5, 9, 12))
  assert buckets == tasks.Buckets((5, 9), ((3, 4, 5), (9,))) and buckets.turns() == [0, 0, 0, 1]
  assert tasks.make_buckets((6, 4), ()) == tasks.Buckets((4, 6), ((4,), (6,)))
  with pytest.raises(UserError, match="config.data.pad_to: got .5,., allowed up to at least 9"):
    tasks.make_buckets((9,), (5,))
  spec = tasks.make_spec(SimpleNamespace(**DEFAULTS))
  stream = tasks.make_stream(spec, buckets, 8)
  assert [stream.bucket(step) for step in (0, 47, 48, 63, 64)] == [0, 0, 1, 1, 0]
  assert stream.end_of_bucket(3, 100) == 48 and stream.end_of_bucket(3, 10) == 10
  shapes = [jax.eval_shape(stream.in_bucket(k).batch_at, {}, jnp.int32(0), KEY)["values"].shape for k in (0, 1)]
  assert shapes == [(8, 40, 5), (8, 40, 9)]


@pytest.mark.slow
def test_fixed_tasks_are_shared_out_counted_once_and_take_lists_of_seeds():
  spec = tasks.make_spec(SimpleNamespace(**DEFAULTS))
  buckets = tasks.make_buckets((5, 6), ())
  fixed = tasks.make_fixed(spec, buckets, 4, "val", 3, 11, ())
  assert fixed.num_rows == 11 and fixed.num_batches == 4 and [fixed.bucket(s) for s in range(4)] == [0, 0, 1, 1]
  assert fixed.data["counts"].sum() == 11 and set(fixed.data["numbers"][0]) == {0, 2, 4, 6}
  other = tasks.make_fixed(spec, buckets, 4, "val", 3, 11, (7, 4, 1003))  # a number has its size in any list
  assert list(other.data["numbers"][0][:1]) == [4] and list(other.data["numbers"][1][:2]) == [7, 1003]
  assert sorted(fixed.data["numbers"][fixed.data["counts"] > 0]) == list(range(11))
  listed = tasks.make_fixed(spec, tasks.make_buckets((6,), ()), 4, "val", 3, 100, (1000, 1001, 2000))
  assert listed.num_rows == 3 and list(listed.data["numbers"][0][:3]) == [1000, 1001, 2000]
  batch = jax.jit(listed.batch_at, compiler_options=QUICK)(listed.data, jnp.int32(0), KEY)
  again = batch_of(1000, purpose="val", key=rng.key_for(3, "data"), batch=4, num_nodes=(6,))
  np.testing.assert_allclose(batch["values"][:2], again["values"][:2], atol=1e-5)
  np.testing.assert_array_equal(batch["adjacency"][:2], again["adjacency"][:2])
  assert list(np.asarray(batch["weight"])) == [1, 1, 1, 0]
