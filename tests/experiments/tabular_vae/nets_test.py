"""The networks of the tabular VAE: sizes, initialisation, evaluation mode, half precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.experiments.tabular_vae import nets


def make(num_classes=139, precision="float32", **fields):
  settings = dict(num_features=6, num_classes=num_classes, latent_dim=10, hidden_dims=(64, 32), batch_norm=True,
                  head_dim=64, precision=precision)
  return nets.VAE(**settings | fields)


def init(model, key):
  return model.init(key, jnp.zeros((2, 6)), jnp.ones(2), jnp.zeros((2, model.latent_dim)))


# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)


@functools.cache
def variables():
  """Initialised variables of the largest model."""
  return quick_jit(lambda key: init(make(), key))(jax.random.key(0))


def count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("fields, want", [
    ({"num_classes": 0}, 6_426), ({"num_classes": 139}, 16_165),  # those of the public release
    ({"num_classes": 0, "hidden_dims": (32, 16), "batch_norm": False}, 2_010),
])
def test_parameter_counts(fields, want):
  shapes = jax.eval_shape(lambda key: init(make(**fields), key), jax.random.key(0))
  assert count(shapes["params"]) == want
  # Mean and variance of each hidden unit of encoder and decoder.
  assert count(shapes.get("batch_stats", {})) == (2 * 2 * (64 + 32) if fields.get("batch_norm", True) else 0)


def test_linear_layers_start_within_one_over_root_fan_in():
  fan_in = {"encoder/Linear_0": 6, "encoder/Linear_1": 64, "posterior": 32, "decoder/Linear_0": 10,
            "decoder/Linear_1": 32, "output": 64, "head": 10, "head_output": 64}
  params = variables()["params"]
  for path, n in fan_in.items():
    layer = functools.reduce(lambda tree, name: tree[name], path.split("/"), params)
    kernel, bias = np.abs(layer["kernel"]), np.abs(layer["bias"])
    assert max(kernel.max(), bias.max()) <= n ** -0.5 * (1 + 1e-6), path
    # At least 384 uniform draws: all below 0.9 of the bound with chance 0.9^384 < 1e-17; sd is bound / sqrt(3).
    assert kernel.max() > 0.9 * n ** -0.5, path
    assert np.asarray(layer["kernel"]).std() == pytest.approx(n ** -0.5 / np.sqrt(3), rel=0.15), path
    assert bias.max() > 0.3 * n ** -0.5, path
  assert len(jax.tree.leaves(params)) == 2 * (len(fan_in) + 4)


@quick_jit
def run(variables, x, weight, noise, keep):
  """Training (with noise) and evaluation outputs."""
  train, _ = make().apply(variables, x, weight, noise, keep, mutable=["batch_stats"])
  return train, make().apply(variables, x, weight)


@quick_jit
def classify(z):
  return make().apply(variables(), z, None, method="classify")


def inputs(num_rows=16):
  random = np.random.RandomState(0)
  x, noise = (jnp.asarray(random.normal(size=(num_rows, n)), jnp.float32) for n in (6, 10))
  return x, jnp.ones(num_rows), noise, jnp.ones((num_rows, 64))


def test_evaluation_decodes_the_posterior_mean_of_each_row_alone():
  x, weight, noise, keep = inputs()
  _, out = run(variables(), x, weight, noise, keep)
  decode = quick_jit(lambda z: make().apply(variables(), z, weight, False, method="decode"))
  np.testing.assert_allclose(out.x_mean, decode(out.mean), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(out.logits, classify(out.mean), rtol=1e-5, atol=1e-6)
  assert [leaf.shape for leaf in out[:4]] == [(16, 6), (16, 10), (16, 10), (16, 139)]
  # No row sees another: reversing rows reverses outputs.
  _, reversed_out = run(variables(), x[::-1], weight, noise, keep)
  np.testing.assert_allclose(reversed_out.x_mean[::-1], out.x_mean, rtol=1e-5, atol=1e-6)


def test_training_samples_with_the_noise_given():
  x, weight, noise, keep = inputs()
  train, evaluated = run(variables(), x, weight, noise, keep)
  quiet, _ = run(variables(), x, weight, jnp.zeros_like(noise), keep)
  assert np.abs(train.x_mean - quiet.x_mean).max() > 0.1  # the noise reaches the reconstruction
  np.testing.assert_array_equal(train.mean, quiet.mean)  # but not the posterior
  # Without noise, training differs from evaluation by BatchNorm's statistics alone.
  assert np.abs(quiet.mean - evaluated.mean).max() > 0.01
  z = train.mean + jnp.exp(train.log_var / 2) * noise
  np.testing.assert_allclose(train.logits, classify(z), rtol=1e-4, atol=1e-5)  # the classifier sees the sample


def test_dropout_multiplies_the_hidden_units_of_the_classifier():
  x, weight, noise, keep = inputs()
  dropped, _ = run(variables(), x, weight, noise, jnp.zeros_like(keep))
  want = np.broadcast_to(variables()["params"]["head_output"]["bias"], (16, 139))
  np.testing.assert_allclose(dropped.logits, want, rtol=1e-6)


def test_without_classes_there_is_no_classifier():
  model = make(num_classes=0)
  out = jax.eval_shape(lambda key: model.apply(init(model, key), jnp.zeros((3, 6)), jnp.ones(3)), jax.random.key(0))
  assert out.logits is None and out.x_mean.shape == (3, 6)


@pytest.mark.slow
def test_half_precision_is_close_and_keeps_float32_parameters_and_outputs():
  x, weight, noise, keep = inputs(64)
  both = {}
  for precision in ("float32", "bfloat16"):
    model = make(precision=precision)
    started = jax.eval_shape(functools.partial(init, model), jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(started))
    def loss(params):
      out, new = model.apply({**variables(), "params": params}, x, weight, noise, keep, mutable=["batch_stats"])
      return jnp.mean(jnp.square(out.x_mean - x)) + jnp.mean(out.logits ** 2), (out, new)
    both[precision] = quick_jit(jax.value_and_grad(loss, has_aux=True))(variables()["params"])
  ((loss32, aux32), grads32), ((loss16, aux16), grads16) = both["float32"], both["bfloat16"]
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((aux16, grads16)))
  assert float(loss16) == pytest.approx(float(loss32), rel=0.02) and float(loss16) != float(loss32)
  # bfloat16 has 8 bits: outputs to about a per cent of their spread, the gradient's direction to a few per cent.
  for name in ("x_mean", "mean", "log_var", "logits"):
    a, b = (np.asarray(getattr(aux[0], name)) for aux in (aux32, aux16))
    assert np.sqrt(((a - b) ** 2).mean()) < 0.05 * a.std(), name
  flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
  a, b = flat(grads32), flat(grads16)
  assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.995
