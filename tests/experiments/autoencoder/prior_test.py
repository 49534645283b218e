"""The prior of an event's latent: types from a table, latents from a flow that moves nothing of the autoencoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import event_cases as cases
from jaxtrain import step
from jaxtrain.experiments.autoencoder import nets, objective, prior, training
from jaxtrain.errors import UserError


@given(st.integers(0, 2**31 - 1), st.integers(1, 40), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_the_table_of_types_counts_each_event_once(seed, num_events, num_slots):
  random = np.random.RandomState(seed)
  ids, weight = random.randint(0, 4, (num_events, num_slots)), random.uniform(0.1, 3, num_events)
  table = prior.count_types(ids, weight, 4)
  wanted = {}
  for row, w in zip(ids, weight):
    counts = tuple(int((row == k).sum()) for k in (1, 2, 3))
    wanted[counts] = wanted.get(counts, 0.0) + w / weight.sum()
  assert dict(zip(map(tuple, table["counts"]), table["share"])) == pytest.approx(wanted)
  assert table["share"] == sorted(table["share"], reverse=True)
  drawn = prior.draw_types(table, 30, num_slots, np.random.RandomState(0))
  assert {tuple(int((row == k).sum()) for k in (1, 2, 3)) for row in drawn} <= set(wanted)
  assert all((row[:-1] > 0).tolist() == sorted((row[:-1] > 0).tolist(), reverse=True) for row in drawn)


def test_counts_are_drawn_by_their_shares():
  table = {"counts": [[2, 0], [1, 1], [0, 3]], "share": [0.5, 0.3, 0.2]}
  ids = prior.draw_types(table, 20_000, 4, np.random.RandomState(1))
  shares = [np.mean([(row == np.array(wanted)).all() for row in ids])
            for wanted in ([1, 1, 0, 0], [1, 2, 0, 0], [2, 2, 2, 0])]
  np.testing.assert_allclose(shares, table["share"], atol=5 * 0.5 / 20_000**0.5)  # five standard errors
  bits = prior.type_bits(table)
  jets = 2 * 0.5 + 0.3
  others = 0.3 + 3 * 0.2
  np.testing.assert_allclose(bits, [0, -np.log2(jets / (jets + others)), -np.log2(others / (jets + others))])


def test_moments_follow_the_batches():
  z = np.random.RandomState(0).normal(2, 3, (50, 1, 4)).astype(np.float32)
  weight = np.random.RandomState(1).uniform(0, 2, 50).astype(np.float32)
  light = 1e-3 * weight  # less than one event in all
  @jax.jit
  def found(z, weight, light):
    moments = prior.start_moments(z, weight)
    after = lambda old, weight: prior.follow(old, prior.moment_sums(z, weight), weight.sum())
    return (moments, prior.scale_of(moments), prior.start_moments(z, light), after(jnp.zeros((2, 4)), weight),
            after(moments, light), prior.follow(moments, jnp.zeros((2, 4)), 0.0))
  moments, scale, of_light, *after = jax.tree.map(np.asarray, found(z, weight, light))
  mean = np.average(z[:, 0].astype(np.float64), axis=0, weights=weight)
  deviation = np.sqrt(np.average(np.square(z[:, 0] - mean), axis=0, weights=weight))
  for one, wanted in zip(scale, (mean, deviation)):
    np.testing.assert_allclose(one[0, 0], wanted, rtol=1e-4)
  np.testing.assert_allclose(after[0], 0.01 * moments, rtol=1e-5)
  np.testing.assert_allclose(after[1], moments, rtol=1e-5)
  np.testing.assert_allclose(of_light, moments, rtol=1e-5)
  np.testing.assert_array_equal(after[2], moments)


@functools.cache
def event_case(**fields):
  return cases.made(model__latent__per_object=False, **{"model__latent__kind": "vae"} | fields)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("vae", "vq", "fsq", "none"))
def test_the_flow_trains_and_moves_nothing_else(kind):
  made = event_case(model__latent__kind=kind)
  p, state = made.problem, made.state
  batch = training.with_draws(p, made.batch("train"), cases.KEY)
  gradient = step.make_gradient(functools.partial(objective.loss_sums, p), functools.partial(objective.term_counts, p),
                                lambda state: {name: float(name == "prior") for name in p.terms})
  over = lambda function, batch, key: function(batch, key)
  found = jax.jit(lambda s, b: gradient(s, b, cases.KEY, over).grads)(state, batch)
  sizes = {name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(part)) for name, part in found.items()}
  assert sizes.pop("prior") > 0 and set(sizes.values()) == {0.0}
  assert "generate" in made.experiment.predict and set(p.terms) & {"id", "exists"} == set()


def test_generated_events_have_types_of_the_table_and_no_slot_is_half_full():
  made = event_case(model__prior__hidden_dim=16, model__prior__num_blocks=1, model__prior__num_steps=4).filled()
  verb = made.experiment.predict["generate"]
  found = verb.run(made.state, None, 40, cases.KEY)
  ids = np.stack([found[f"id_{t}"] for t in range(18)], axis=1)
  counts = {tuple(int((row == k).sum()) for k in range(1, made.splits.meta["num_types"])) for row in ids}
  assert counts <= set(map(tuple, made.splits.meta["type_counts"]["counts"])) and len(counts) > 5
  pt = np.stack([found[f"pt_{t}"] for t in range(18)], axis=1)
  np.testing.assert_array_equal(pt > 0, ids > 0)
  again = verb.run(made.state, None, 40, cases.KEY)
  other = verb.run(made.state, None, 40, jax.random.key(1))
  assert all((again[name] == found[name]).all() for name in found)
  assert any((other[name] != found[name]).any() for name in found)


def test_places_count_objects_of_a_type():
  ids = np.array([[1, 2, 1, 0, 1, 2], [3, 3, 3, 3, 0, 0]])
  found = np.where(ids > 0, jax.jit(nets.places_of, static_argnums=1)(ids, 4), -1)
  np.testing.assert_array_equal(found, [[0, 0, 1, -1, 2, 1], [0, 1, 2, 3, -1, -1]])


def test_latents_of_objects_have_no_prior():
  assert "generate" not in cases.made().experiment.predict
  with pytest.raises(UserError, match="per_object: got False"):
    cases.made(model__latent__per_object=False, model__globals_slot=False)


@pytest.mark.slow
def test_the_flow_draws_what_it_was_trained_on():
  """Latents of a known mixture, given types: means, deviations and the share of each mode come back."""
  import optax
  from jaxtrain.experiments.autoencoder import nets_layers, nets_prior

  class Bound:
    """What the prior calls of a network with its parameters."""
    def __init__(self, net, params):
      self.prior = lambda x, level, ids: net.apply(params, x, level, ids)

  net = nets_prior.PriorNet(3, 64, 3, nets_layers.Manner("gelu", 0.0, "float32"))
  params = net.init(cases.KEY, jnp.zeros((2, 2)), jnp.zeros(2), jnp.zeros((2, 2), jnp.int32))
  tx = optax.adam(optax.cosine_decay_schedule(3e-3, 3000))
  def truth(key, num):
    side, noise, kind = jax.random.split(key, 3)
    ids = jnp.stack([jax.random.randint(kind, (num,), 1, 3), jnp.zeros(num, jnp.int32)], axis=1)
    sign = jnp.where(jax.random.uniform(side, (num,)) < 0.3, -1.0, 1.0)
    mean = jnp.stack([2 * sign, 5.0 * (ids[:, 0] == 2)], axis=1)
    return ids, (mean + 0.5 * jax.random.normal(noise, (num, 2)))[:, None]
  moments = prior.start_moments(truth(cases.KEY, 20_000)[1], jnp.ones(20_000))
  def one(carry, key):
    params, opt = carry
    ids, z = truth(key, 256)
    batch = {"ids": ids} | prior.draw(jax.random.fold_in(key, 1), 256, 2)
    loss = lambda params: jnp.mean(prior.loss_rows(Bound(net, params), moments, batch, z))
    updates, opt = tx.update(jax.grad(loss)(params), opt)
    return (optax.apply_updates(params, updates), opt), None
  (params, _), _ = jax.jit(lambda c: jax.lax.scan(one, c, jax.random.split(cases.KEY, 3000)))((params, tx.init(params)))
  ids, wanted = truth(jax.random.key(5), 8000)
  found = jax.jit(lambda: prior.sample(Bound(net, params), moments, ids, jax.random.key(6), 40))()[:, 0]
  of_two = np.asarray(ids[:, 0] == 2)
  assert abs(found[of_two, 1].mean() - 5) < 0.15 and abs(found[~of_two, 1].mean()) < 0.15
  assert abs(np.mean(found[:, 0] < 0) - 0.3) < 0.04 and abs(float(found[~of_two, 1].std()) - 0.5) < 0.1
