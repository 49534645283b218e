"""Networks of events: the original's sizes and first values, sets that have no order, slots that are empty."""

import functools
import itertools
import math

import autoencoder_cases as cases
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxtrain import rng
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import latents, nets, nets_decoders, nets_layers

SLOTS, META = cases.slots_and_meta()
MATRIX = list(itertools.product(nets.KINDS, nets.KINDS, latents.KINDS))


def make(settings, meta=META, slots=SLOTS):
  """(network, plan, parameters)."""
  net = nets.build(settings, meta, "float32")
  return net, latents.make_plan(settings.latent, meta), cases.random_params(net, slots)


def through(bound, plan, slots, key):
  """(z, mask, Latent, Decoded) of slots as in training."""
  z, mask = bound.encode(slots)
  noise = rng.normal(key, (*z.shape[:2], plan.dim))
  found = latents.quantise(plan, cases.codes_of(plan), z, mask, noise)
  return z, mask, found, bound.decode(found.z, mask, noise[:, :slots.ids.shape[1]])


def passed(net, plan, params, slots, key):
  """`through` a network of these parameters, compiled."""
  return jax.jit(lambda params, slots: through(net.bind({"params": params}), plan, slots, key))(params, slots)


@functools.cache
def compiled_kind(kind):
  """(encode, decode), compiled, of the network of `cases.same_kind`."""
  net, params = cases.same_kind(kind)
  bound = net.bind({"params": params})
  return jax.jit(bound.encode), jax.jit(bound.decode)


def loss(net, plan, params, slots, key):
  """A number that all outputs have a part in, of real slots and the existence of all."""
  _, mask, found, out = through(net.bind({"params": params}), plan, slots, key)
  real = slots.mask
  cont = jnp.sum(real[..., None] * jnp.square(out.cont - slots.cont))
  kinds = -jnp.sum(real * jnp.take_along_axis(jax.nn.log_softmax(out.id_logits), slots.ids[..., None], 2)[..., 0])
  exists = jnp.sum(jax.nn.softplus(out.exists_logit) - real * out.exists_logit)
  of_event = jnp.sum(jnp.square(out.globals - slots.globals))
  return cont + kinds + exists + of_event + jnp.sum(mask * (found.commitment + found.kl))


@pytest.mark.parametrize("latent, count", [("none", 44_742), ("linear", 45_798), ("vq", 61_126)])
def test_the_originals_network_has_its_number_of_parameters(latent, count):
  slots, meta = cases.slots_and_meta("zscore_legacy", num_slots=18)
  settings = cases.original(latent)
  net, plan = nets.build(settings, meta, "float32"), latents.make_plan(settings.latent, meta)
  sizes = [math.prod(x.shape) for x in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0), slots))]
  codes = jax.eval_shape(lambda z, mask: latents.start(plan, jax.random.key(0), z, mask), jnp.zeros((4, 18, 32)),
                         jnp.ones((4, 18)))
  assert sum(sizes) + (0 if codes is None else math.prod(codes.codes.shape)) == count


def test_the_originals_network_starts_as_its_layers_do():
  """Kernels and biases are uniform in +-1 / sqrt(fan_in); the embedding is normal. 16,384 uniform numbers have a mean
  beyond 5 / sqrt(3 n) of their bound in one of 10^6 tests, 64 normal ones a deviation outside 0.5..1.6 as rarely.
  """
  slots, meta = cases.slots_and_meta("zscore_legacy", num_slots=18)
  net = nets.build(cases.original("none"), meta, "float32")
  encoder = jax.jit(lambda key: net.init(key, slots)["params"]["encoder"])(jax.random.key(0))
  fans = {"layer_0": 12, "layer_1": 128, "layer_2": 128}
  for name, fan_in in fans.items():
    layer = encoder["stack"][name]["linear"]
    for part in (layer["kernel"], layer["bias"]):
      x = np.asarray(part, np.float64).ravel() * math.sqrt(fan_in)
      assert np.abs(x).max() <= 1 + 1e-6 and np.abs(x).max() > 0.85
      assert abs(x.mean()) < 5 / math.sqrt(3 * x.size)
  table = np.asarray(encoder["inputs"]["types"]["table"], np.float64)
  assert table.shape == (8, 8) and 0.5 < table.std() < 1.6 and np.abs(table).max() > 1


def test_the_originals_network_counts_empty_slots():
  """Its globals are of the plain mean over all slots, whose padding moves it; it decodes no types and no existence."""
  slots, meta = cases.slots_and_meta("zscore_legacy")
  net, plan, params = make(cases.model(latent="none", legacy=True), meta, slots)
  z, mask, _, out = passed(net, plan, params, slots, jax.random.key(0))
  np.testing.assert_array_equal(mask, np.ones_like(mask))
  weights = params["decoder"]["globals"]
  act = lambda x: x * 0.5 * (1 + special.erf(x / math.sqrt(2)))
  kernel = lambda layer, rows: np.asarray(layer["kernel"] if layer["kernel"].shape[0] == rows else layer["kernel"].T,
                                          np.float64)
  first, last = weights["layer_0"]["linear"], weights["layer_1"]["linear"]
  hidden = act(np.asarray(z, np.float64).mean(axis=1) @ np.asarray(first["kernel"], np.float64).T
               + np.asarray(first["bias"]))
  np.testing.assert_allclose(out.globals, hidden @ kernel(last, 6) + np.asarray(last["bias"]), rtol=1e-4, atol=1e-5)
  assert out.id_logits is None and out.exists_logit is None and out.cont.shape == slots.cont.shape


@pytest.mark.parametrize("kind", nets.KINDS)
def test_the_order_of_slots_is_the_order_of_results(kind):
  (encode, still), order = compiled_kind(kind), np.array([3, 0, 5, 1, 4, 2])
  turned = SLOTS._replace(cont=SLOTS.cont[:, order], ids=SLOTS.ids[:, order], mask=SLOTS.mask[:, order])
  z, z_turned = (np.asarray(encode(slots)[0]) for slots in (SLOTS, turned))
  places = np.append(order, len(order))
  np.testing.assert_allclose(z_turned, z[:, places], rtol=1e-4, atol=1e-5)
  mask = np.pad(SLOTS.mask, ((0, 0), (0, 1)), constant_values=1.0)
  noise = np.random.RandomState(1).normal(size=(*SLOTS.mask.shape, 8)).astype(np.float32)
  out, out_turned = (jax.tree.map(np.asarray, still(*given)) for given in (
      (z, mask, noise), (z[:, places], mask[:, places], noise[:, order])))
  for name in ("cont", "id_logits", "exists_logit"):
    np.testing.assert_allclose(getattr(out_turned, name), getattr(out, name)[:, order], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(out_turned.globals, out.globals, rtol=1e-4, atol=1e-5)
  assert np.abs(z[2:] - z[2:, :1]).max() > 1e-2  # slots do differ


@pytest.mark.parametrize("kind", nets.KINDS)
def test_what_is_in_an_empty_slot_changes_no_bit(kind):
  encode, decode = compiled_kind(kind)
  empty = SLOTS.mask == 0
  other = SLOTS._replace(cont=np.where(empty[..., None], np.float32(1e3), SLOTS.cont),
                         ids=np.where(empty, np.int32(5), SLOTS.ids))
  z, mask = map(np.asarray, encode(SLOTS))
  np.testing.assert_array_equal(encode(other)[0], z)
  np.testing.assert_array_equal(z[:, :-1][empty], 0.0)
  draws = np.random.RandomState(4).normal(size=(2, *SLOTS.mask.shape, 8)).astype(np.float32)
  noise = np.where(empty[..., None], draws[0], draws[1]), draws[1]
  filled = np.where(mask[..., None] > 0, z, np.float32(7.0))
  outs = (jax.tree.map(np.asarray, decode(*given)) for given in ((z, mask, noise[0]), (filled, mask, noise[1])))
  for one, two in zip(*outs):
    real = SLOTS.mask > 0 if one.ndim > 1 and one.shape[:2] == SLOTS.mask.shape else slice(None)
    np.testing.assert_array_equal(one[real], two[real])


@pytest.mark.parametrize("kind", nets.KINDS)
def test_objects_of_an_event_see_each_other_unless_each_is_by_itself(kind):
  encode, _ = compiled_kind(kind)
  full = int(np.argmax(np.sum(SLOTS.mask, axis=1)))
  first, second = np.flatnonzero(SLOTS.mask[full])[:2]
  moved = SLOTS._replace(cont=SLOTS.cont.copy())
  moved.cont[full, first] += 0.5
  change = np.abs(np.subtract(encode(moved)[0], encode(SLOTS)[0])).max(axis=-1)
  assert change[full, first] > 1e-3 and change[full, -1] > 1e-4  # the object, and the event
  assert (change[full, second] > 1e-5) == (kind != "mlp")
  assert np.all(np.delete(change, full, axis=0) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", nets.KINDS)
@pytest.mark.parametrize("decoder", nets.KINDS)
def test_every_pair_of_parts_has_the_shapes_of_its_events(encoder, decoder):
  B, T, C = SLOTS.cont.shape
  for latent in latents.KINDS:
    settings = cases.model(encoder, decoder, latent, encoder__num_blocks=1, decoder__num_blocks=1)
    net, plan = nets.build(settings, META, "float32"), latents.make_plan(settings.latent, META)
    whole = lambda bound, slots, key: through(bound, plan, slots, key)
    run = lambda key: net.init_with_output(key, SLOTS, key, method=whole)
    z, mask, found, out = jax.eval_shape(run, jax.random.key(0))[0]
    assert z.shape == (B, T + 1, {"fsq": 2, "vae": 16}.get(latent, 8)) and mask.shape == (B, T + 1)
    assert found.z.shape == (B, T + 1, 2 if latent == "fsq" else 8)
    assert found.bits.shape == found.commitment.shape == found.kl.shape == (B, T + 1)
    assert [x.shape for x in out] == [(B, T, C), (B, T, 8), (B, T), (B, 3)]
    assert all(x.dtype == jnp.float32 for x in out)


@pytest.mark.slow
@pytest.mark.parametrize("encoder, decoder, latent", MATRIX)
def test_every_combination_has_finite_gradients(encoder, decoder, latent):
  """Also with events of no object and of one; each parameter that the loss depends on moves."""
  net, plan, params = make(cases.model(encoder, decoder, latent))
  assert np.sum(SLOTS.mask[0]) == 0 and np.sum(SLOTS.mask[1]) == 1
  grad = jax.jit(jax.value_and_grad(lambda params: loss(net, plan, params, SLOTS, jax.random.key(5))))
  value, grads = grad(params)
  assert np.isfinite(value)
  for path, x in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(x).all() and np.abs(x).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "gan"])
def test_events_of_no_object_have_finite_gradients(kind):
  """All kinds: the slow test above, of events of which the first has no object; only attention is in danger."""
  net, plan, params = make(cases.model(kind, "mlp", "vq", latent__gradient="rotation", encoder__num_blocks=1))
  alone = jax.tree.map(lambda x: x[:2], SLOTS)
  value, grads = jax.jit(jax.value_and_grad(lambda p: loss(net, plan, p, alone, jax.random.key(5))))(params)
  assert np.isfinite(value) and all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_an_empty_slots_type_never_wins():
  net, plan, params = make(cases.model(latent="none"))
  logits = np.asarray(passed(net, plan, params, SLOTS, jax.random.key(0))[-1].id_logits)
  assert np.all(np.argmax(logits, axis=-1) > 0)
  assert np.isfinite(logits).all() and np.all(jax.jit(jax.nn.softmax)(logits)[..., 0] == 0)


def test_without_a_slot_of_its_own_the_event_is_the_mean_of_its_objects():
  net, plan, params = make(cases.model(latent="none", globals_slot=False))
  z, mask, _, out = passed(net, plan, params, SLOTS, jax.random.key(0))
  assert z.shape[1] == cases.NUM_SLOTS and "event" not in params
  np.testing.assert_array_equal(mask, SLOTS.mask)
  mean = np.asarray(z, np.float64).sum(axis=1) / np.maximum(np.asarray(mask).sum(axis=1, keepdims=True), 1)
  decode = jax.jit(lambda event: net.bind({"params": params}).decoder(z, event, mask, None).globals)
  np.testing.assert_allclose(decode(mean.astype(np.float32)), out.globals, rtol=1e-4, atol=1e-6)


def test_a_denoiser_as_a_decoder_starts_from_noise_at_the_highest_level():
  """Karras et al.'s table 1 in float64, at a deviation of 80; noise in empty slots changes nothing."""
  net, _, params = make(cases.model(decoder="diffusion", latent="none", decoder__num_blocks=1))
  denoiser = net.bind({"params": params}).decoder
  assert isinstance(denoiser, nets_decoders.Denoiser)
  z, event = np.ones((12, 6, 8), np.float32), np.ones((12, 8), np.float32)
  noise, real = np.random.RandomState(0).normal(size=(12, 6, 8)), SLOTS.mask > 0
  x = 80 * noise[..., :SLOTS.cont.shape[2]] * real[..., None]
  level = np.full(12, math.log(80), np.float32)
  raw = jax.jit(lambda scaled: denoiser.raw(scaled, level, z, event, SLOTS.mask).cont)(
      (x / np.sqrt(80**2 + 1)).astype(np.float32))
  wanted = x / (80**2 + 1) + 80 / np.sqrt(80**2 + 1) * np.asarray(raw, np.float64)
  decode = jax.jit(lambda noise: denoiser(z, event, SLOTS.mask, noise).cont)
  one, other = (np.asarray(decode(given.astype(np.float32))) for given in (
      noise, np.where(real[..., None], noise, 7.0)))
  np.testing.assert_allclose(one[real], wanted[real], rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(other[real], one[real])


def test_dropout_needs_a_stream_of_random_numbers():
  net, _, params = make(cases.model(latent="none", dropout=0.5))
  apply = jax.jit(lambda streams: net.apply({"params": params}, SLOTS, rngs=streams).cont)
  drawn = [np.asarray(apply({"dropout": jax.random.key(seed)})) for seed in (0, 0, 1)]
  np.testing.assert_array_equal(drawn[0], drawn[1])
  assert np.abs(drawn[0] - drawn[2]).max() > 1e-3 and np.abs(drawn[0] - apply({})).max() > 1e-3


def test_half_precision_gives_results_in_full():
  settings = cases.model("gan", "gnn", "vq", encoder__num_blocks=1, decoder__num_blocks=1)
  net, plan = nets.build(settings, META, "bfloat16"), latents.make_plan(settings.latent, META)
  params = jax.eval_shape(net.init, jax.random.key(0), SLOTS)["params"]
  found = jax.eval_shape(lambda p: passed(net, plan, p, SLOTS, jax.random.key(0)), params)
  assert {x.dtype for x in jax.tree.leaves((params, found[0], found[2].z, found[3]))} == {jnp.dtype("float32")}


class Summed(nn.Module):
  """An encoder and a decoder of one's own: each is one linear layer, of numbers beside each other."""
  width: int
  heads: nets_layers.SlotHeads | None = None

  @nn.compact
  def __call__(self, first, event=None, mask=None, noise=None):
    if self.heads is None:
      return nn.Dense(self.width)(jnp.concatenate([first.cont, jax.nn.one_hot(first.ids, 8)], axis=-1))
    return self.heads.split(nn.Dense(self.heads.size)(first + event[:, None]), nn.Dense(self.width)(event))


def own_encoder(settings, meta):
  """A factory as `model.encoder.own` names it."""
  return Summed(settings.latent.dim)


def own_decoder(settings, meta):
  """A factory as `model.decoder.own` names it."""
  return Summed(meta["num_globals"], nets_layers.SlotHeads(meta["num_features"], meta["num_types"]))


def test_parts_of_ones_own_are_named_by_their_paths():
  own = {f"{part}__own": (f"{__name__}.own_{part}",) for part in ("encoder", "decoder")}
  net, plan, params = make(cases.model(**own))
  assert set(params["encoder"]) == {"Dense_0"} and set(params["decoder"]) == {"Dense_0", "Dense_1"}
  z, mask, _, out = passed(net, plan, params, SLOTS, jax.random.key(0))
  np.testing.assert_array_equal(z[:, :-1][SLOTS.mask == 0], 0.0)
  assert out.cont.shape == SLOTS.cont.shape and np.isfinite(out.globals).all()


@pytest.mark.parametrize("settings, message", [
    (cases.model("perceiver"), "model.encoder.kind: got 'perceiver', allowed mlp, gnn, gan, diffusion"),
    (cases.model("gnn", legacy=True), "with model.legacy, allowed mlp"),
    (cases.model(latent="rvq", legacy=True), "'rvq' with model.legacy, allowed none, linear, vq"),
    (cases.model("gan", encoder__num_heads=3), "num_heads: got 3, allowed divisors of the first width 8"),
    (cases.model("gnn", dims=()), "hidden_dims: got none"),
])
def test_parts_that_do_not_fit_are_refused(settings, message):
  with pytest.raises(UserError, match=message):
    nets.build(settings, META, "float32")
