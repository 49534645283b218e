"""Networks of images: shapes, the grid of slots, what a slot's pixels depend on."""

import autoencoder_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import latents, nets, nets_images

IMAGES = np.random.RandomState(0).uniform(size=(3, 28, 28, 1)).astype(np.float32)


@pytest.mark.parametrize("latent", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "vq"))
                                    for kind in latents.KINDS])
def test_images_pass_each_latent_on_a_grid_of_slots(latent):
  settings = cases.model(latent=latent)
  net, plan = nets.build(settings, cases.image_meta(), "float32"), latents.make_plan(settings.latent, {})

  def whole(bound, image):
    z, mask = bound.encode(image)
    found = latents.quantise(plan, cases.codes_of(plan), z, mask, None)
    return z, mask, found.bits, bound.decode(found.z, mask, None)
  run = lambda key: net.init_with_output(key, IMAGES, method=whole)[0]
  z, mask, bits, logits = jax.eval_shape(run, jax.random.key(0))
  assert z.shape[:2] == mask.shape == bits.shape == (3, 49) and logits.shape == IMAGES.shape
  assert logits.dtype == z.dtype == jnp.float32


def test_gradients_reach_all_layers_of_an_image():
  net = nets.build(cases.model(latent="linear"), cases.image_meta(8), "float32")
  params = cases.random_params(net, IMAGES[:, :8, :8])
  grads = jax.jit(jax.grad(lambda p: jnp.sum(jnp.square(net.apply({"params": p}, IMAGES[:, :8, :8])))))(params)
  assert all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in jax.tree.leaves(grads))


def test_a_grid_gets_finer_place_by_place():
  x = np.arange(2 * 3 * 2 * 8, dtype=np.float32).reshape(2, 3, 2, 8)
  y = np.asarray(nets_images.finer(jnp.asarray(x)))
  assert y.shape == (2, 6, 4, 2)
  for row in range(6):
    for column in range(4):
      first = 4 * (row % 2) + 2 * (column % 2)
      np.testing.assert_array_equal(y[:, row, column], x[:, row // 2, column // 2, first:first + 2])


def test_a_slot_says_what_is_near_it():
  net = nets.build(cases.model(latent="none"), cases.image_meta(), "float32")
  params = cases.random_params(net, IMAGES)
  decode = jax.jit(lambda z: net.bind({"params": params}).decode(z, jnp.ones((1, 49)), None))
  z = np.random.RandomState(1).normal(size=(1, 49, 8)).astype(np.float32)
  moved = z.copy()
  moved[0, 24] += 1  # the middle of 7 x 7
  change = np.abs(decode(moved) - decode(z))[0, :, :, 0]
  assert change[12:16, 12:16].max() > 1e-3
  far = np.ones((28, 28), bool)
  far[4:24, 4:24] = False
  assert np.all(change[far] == 0)


@pytest.mark.parametrize("settings, meta, message", [
    (cases.model("gan"), cases.image_meta(), "encoder.kind: got 'gan', allowed mlp for images"),
    (cases.model(dims=(8,)), cases.image_meta(), "images need two widths"),
    (cases.model(legacy=True), cases.image_meta(), "model.legacy: got True, allowed False for images"),
    (cases.model(), cases.image_meta(30), "allowed sides that 4 divides"),
])
def test_images_that_no_network_takes_are_refused(settings, meta, message):
  with pytest.raises(UserError, match=message):
    nets.build(settings, meta, "float32")


@pytest.mark.parametrize("stride", (1, 2))
def test_a_product_with_neighbours_is_a_convolution(stride):
  """Against a float64 convolution by loops over the 3 x 3 kernel."""
  random = np.random.RandomState(0)
  x, kernel = random.normal(size=(2, 8, 6, 3)), random.normal(size=(3, 3, 3, 5))
  wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  wanted = sum(wide[:, i:i + 8:stride, j:j + 6:stride] @ kernel[i, j] for i in range(3) for j in range(3))
  found = nets_images.neighbours(jnp.asarray(x, jnp.float32), stride) @ kernel.reshape(27, 5).astype(np.float32)
  np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)
