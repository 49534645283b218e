"""The critic: no order of slots, no part of empty ones, and gradients of its gradient against a plain network's."""

import functools

import autoencoder_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import adversarial, nets_critic

SLOTS, META = cases.slots_and_meta()
HEADS = 2


def settings(activation="gelu", **changes):
  """`config.model` with a small critic."""
  found = cases.model(activation=activation)
  with found.unlocked():
    found.critic = {"hidden_dims": (8, 12), "num_blocks": 1, "num_heads": HEADS} | changes
  return found


@functools.cache
def made(activation="gelu"):
  """(`(params, slots) -> logits`, compiled; parameters)."""
  critic = nets_critic.build_critic(settings(activation), META, "float32")
  return jax.jit(lambda params, slots: critic.apply({"params": params}, slots)), cases.random_params(critic, SLOTS)


def longer(slots, more):
  """The slots with so many empty ones behind them, full of numbers."""
  B, _, C = slots.cont.shape
  return slots._replace(cont=np.concatenate([slots.cont, np.full((B, more, C), 9.0, np.float32)], axis=1),
                        ids=np.pad(slots.ids, ((0, 0), (0, more)), constant_values=3),
                        mask=np.pad(slots.mask, ((0, 0), (0, more))))


def test_the_order_of_slots_changes_no_logit():
  """Each event in an order of its own."""
  logits, params = made()
  draw = np.random.RandomState(0)
  order = np.stack([draw.permutation(cases.NUM_SLOTS) for _ in SLOTS.ids])
  turn = lambda x: np.take_along_axis(np.asarray(x), order if x.ndim == 2 else order[..., None], axis=1)
  turned = SLOTS._replace(cont=turn(SLOTS.cont), ids=turn(SLOTS.ids), mask=turn(SLOTS.mask))
  np.testing.assert_allclose(logits(params, turned), logits(params, SLOTS), rtol=1e-4, atol=1e-5)


def test_what_is_in_an_empty_slot_changes_no_bit():
  logits, params = made()
  empty = SLOTS.mask == 0
  other = SLOTS._replace(cont=np.where(empty[..., None], np.float32(1e3), SLOTS.cont),
                         ids=np.where(empty, np.int32(5), SLOTS.ids))
  np.testing.assert_array_equal(logits(params, other), logits(params, SLOTS))


def test_more_empty_slots_change_no_logit():
  logits, params = made()
  np.testing.assert_allclose(logits(params, longer(SLOTS, 3)), logits(params, SLOTS), rtol=1e-4, atol=1e-5)


def test_all_of_an_event_has_a_part_in_its_own_logit_alone():
  """A change of one event's features, types, globals or number of objects moves its logit, and no other bit."""
  logits, params = made()
  full = int(np.argmax(np.sum(SLOTS.mask, axis=1)))
  place = int(np.flatnonzero(SLOTS.mask[full])[0])
  changed = jax.tree.map(np.copy, SLOTS)
  changed.cont[full, place] += 0.5
  changed.globals[full] += 0.5
  changed.ids[full, place] = changed.ids[full, place] % 7 + 1
  changed.mask[full, place] = 0
  before = np.asarray(logits(params, SLOTS))
  for name in ("cont", "globals", "ids", "mask"):
    after = np.asarray(logits(params, SLOTS._replace(**{name: getattr(changed, name)})))
    assert abs(after[full] - before[full]) > 1e-3, name
    np.testing.assert_array_equal(np.delete(after, full), np.delete(before, full))


@functools.cache
def penalty_of(activation="gelu"):
  """(the penalty of all events, its gradients by parameters)."""
  logits, params = made(activation)
  penalty = lambda params: jnp.sum(adversarial.penalty_rows(functools.partial(logits, params), SLOTS))
  return jax.jit(jax.value_and_grad(penalty))(params)


def test_events_of_no_object_have_a_logit_and_finite_gradients():
  """Also of second order, where a softmax over no key would have none."""
  logits, params = made()
  assert np.sum(SLOTS.mask[0]) == 0 and np.isfinite(logits(params, SLOTS)).all()
  value, grads = penalty_of()
  assert np.isfinite(value) and all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def plain_logits(params, slots, act):
  """The critic written out of operations that JAX differentiates by itself, in the dtype of its arguments."""
  def affine(layer, x):
    kernel = layer["linear"]["kernel"]
    return x @ (kernel if kernel.shape[0] == x.shape[-1] else kernel.T) + layer["linear"]["bias"]

  def norm(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / jnp.sqrt((centred ** 2).mean(axis=-1, keepdims=True) + 1e-5)

  def attention(qkv):
    q, k, v = (x.reshape(*x.shape[:2], HEADS, -1) for x in jnp.split(qkv, 3, axis=-1))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / q.shape[-1] ** 0.5
    weights = jax.nn.softmax(jnp.where(slots.mask[:, None, None, :] > 0, scores, -1e9), axis=-1)
    return jnp.einsum("bhts,bshk->bthk", weights, v).reshape(*qkv.shape[:2], -1)

  real = slots.mask[..., None]
  count = slots.mask.sum(axis=1, keepdims=True)
  whole = jnp.concatenate([slots.globals, jnp.log(1 + count)], axis=-1)
  kinds = params["inputs"]["types"]["table"][jnp.where(slots.mask > 0, slots.ids, 0)]
  net = params["transformer"]
  h = affine(net["embedding"]["layer_0"], jnp.concatenate([slots.cont * real, kinds], axis=-1))
  h = h + affine(net["embedding"]["context"], whole)[:, None]
  block = net["block_0"]
  h = h + affine(block["attended"], attention(affine(block["query_key_value"], norm(h))))
  h = h + affine(block["output"], act(affine(block["hidden"], norm(h))))
  h = (norm(h) * real).sum(axis=1) / jnp.maximum(count, 1)
  h = jnp.concatenate([h, whole], axis=-1)
  for name in ("layer_0", "layer_1"):
    h = act(affine(params["event"][name], h))
  return affine(params["event"]["layer_2"], h)[:, 0]


def exact_gelu(x):
  """x times the standard Normal's distribution function at x."""
  return x * 0.5 * (1 + jax.scipy.special.erf(x / 2 ** 0.5))


@pytest.mark.slow
def test_the_penaltys_gradient_is_that_of_a_plain_network_in_float64():
  """Norm, attention, activation and affine layers have gradients of their own; those must have the right ones again.

  The plain network's gradient is itself held to central differences, whose error in float64 is about 1e-6 of it.
  """
  _, params = made()
  value, grads = penalty_of()
  with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
    exact = lambda tree: jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64 if x.dtype == np.float32 else
                                                            x.dtype), tree)
    slots, params64 = exact(SLOTS), exact(params)
    critic = lambda params: lambda slots: plain_logits(params, slots, exact_gelu)
    plain = jax.jit(lambda params: jnp.sum(adversarial.penalty_rows(critic(params), slots)))
    wanted = jax.jit(jax.grad(plain))(params64)
    draw = np.random.RandomState(3)
    direction = jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape)), params64)
    at = lambda step: plain(jax.tree.map(lambda x, d: x + step * d, params64, direction))
    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    along = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(wanted), jax.tree.leaves(direction)))
    np.testing.assert_allclose(along, slope, rtol=1e-5)
    np.testing.assert_allclose(value, plain(params64), rtol=1e-4)
    wanted = jax.tree.map(np.asarray, wanted)
  largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted))
  for (path, found), other in zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(wanted)):
    np.testing.assert_allclose(found, other, rtol=1e-3, atol=1e-5 * largest, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("activation", [pytest.param("relu", marks=pytest.mark.slow), "silu"])
def test_other_activations_have_finite_gradients_of_the_penalty(activation):
  grads = penalty_of(activation)[1]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
  assert max(np.abs(x).max() for x in jax.tree.leaves(grads)) > 0


@pytest.mark.parametrize("changes, message", [
    ({"hidden_dims": ()}, "config.model.critic.hidden_dims: got none"),
    ({"num_heads": 3}, "config.model.critic.num_heads: got 3, allowed divisors of the first width 8"),
])
def test_critics_that_do_not_fit_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    nets_critic.build_critic(settings(**changes), META, "float32")


def test_images_have_no_critic():
  with pytest.raises(UserError, match="config.data.source: got images, allowed events"):
    nets_critic.build_critic(settings(), cases.image_meta(), "float32")


def test_half_precision_gives_logits_in_full():
  critic = nets_critic.build_critic(settings(), META, "bfloat16")
  params = jax.eval_shape(critic.init, jax.random.key(0), SLOTS)["params"]
  found = jax.eval_shape(lambda params: critic.apply({"params": params}, SLOTS), params)
  assert found.shape == (len(SLOTS.ids),)
  assert {x.dtype for x in jax.tree.leaves((params, found))} == {jnp.dtype("float32")}
