"""Weights of the public release: read without PyTorch, equal to a forward pass in float64, and nothing else is read."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile

import jax
import numpy as np
import pytest

from jaxtrain import config as config_lib, memory
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import predict, release, vae

WIDTHS = {"encoder": (6, 64, 32), "decoder": (10, 32, 64)}


class FloatStorage:
  """Stands for PyTorch's class of the same name, so that pickling names it."""


def rebuild(*_):
  """Stands for torch._utils._rebuild_tensor_v2."""


FloatStorage.__module__, rebuild.__module__, rebuild.__qualname__ = "torch", "torch._utils", "_rebuild_tensor_v2"


class Tensor:
  """An array that pickles as PyTorch's do."""

  def __init__(self, array, key):
    self.array, self.key = np.ascontiguousarray(array, np.float32), key

  def __reduce__(self):
    strides = tuple(step // 4 for step in self.array.strides)
    return rebuild, (("storage", self.key), 0, self.array.shape, strides, False, {})


class Pickler(pickle.Pickler):
  """Protocol 2 with persistent storages, as torch.save writes."""

  def persistent_id(self, value):
    if isinstance(value, tuple) and value[:1] == ("storage",):
      return "storage", FloatStorage, value[1], "cpu", 0
    return None


def stack(random, name):
  """State of [Linear, ReLU, BatchNorm] per width."""
  found, widths = {}, WIDTHS[name]
  for k, (D, F) in enumerate(zip(widths, widths[1:])):
    found |= {f"{name}.{3 * k}.weight": random.normal(size=(F, D)) / D ** 0.5,
              f"{name}.{3 * k}.bias": random.normal(size=F),
              f"{name}.{3 * k + 2}.weight": random.uniform(0.5, 2, F),
              f"{name}.{3 * k + 2}.bias": random.normal(size=F),
              f"{name}.{3 * k + 2}.running_mean": random.normal(size=F),
              f"{name}.{3 * k + 2}.running_var": random.uniform(0.5, 2, F)}
  return found


def state_dict(num_classes=0):
  """A state_dict of the release's layout, float64."""
  random = np.random.RandomState(1)
  found = stack(random, "encoder") | stack(random, "decoder")
  shapes = {"fc_mu": (10, 32), "fc_logvar": (10, 32), "fc_out": (6, 64)}
  shapes |= {"classifier.0": (64, 10), "classifier.3": (num_classes, 64)} if num_classes else {}
  for name, (F, D) in shapes.items():
    found |= {f"{name}.weight": random.normal(size=(F, D)) / D ** 0.5, f"{name}.bias": random.normal(size=F)}
  return found


@pytest.fixture
def save(tmp_path, monkeypatch):
  """Writes a .pt file."""
  torch = types.ModuleType("torch")
  utils = types.ModuleType("torch._utils")
  torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, rebuild
  monkeypatch.setitem(sys.modules, "torch", torch)
  monkeypatch.setitem(sys.modules, "torch._utils", utils)

  def save(arrays, wrap=lambda tensors: tensors, order=b"little", extra=None):
    path, text = tmp_path / "weights.pt", io.BytesIO()
    tensors = {name: Tensor(array, str(k)) for k, (name, array) in enumerate(arrays.items())}
    Pickler(text, 2).dump(wrap(tensors) if extra is None else extra)
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("weights/data.pkl", text.getvalue())
      archive.writestr("weights/byteorder", order)
      for tensor in tensors.values():
        archive.writestr(f"weights/data/{tensor.key}", struct.pack(f"<{tensor.array.size}f", *tensor.array.ravel()))
    return str(path)
  return save


def made(kind, **overrides):
  """(experiment, model, fresh state)."""
  config = config_lib.read_file(f"configs/vae.py:{kind}")
  for key, value in overrides.items():
    config_lib.assign(config, key.replace("__", "."), value)
  config = config_lib.resolve(config)
  meta = {"features": list("abcdef"), "num_features": 6, "class_names": [str(k) for k in range(9)],
          "steps_per_epoch": 10,
          "scaler": None}
  experiment = vae.make(config, meta)
  return experiment, vae.make_model(config, meta), jax.jit(experiment.init)(jax.random.key(0), {})


def forward(arrays, name, x):
  """A stack in evaluation mode, float64."""
  for k in range(2):
    x = np.maximum(x @ arrays[f"{name}.{3 * k}.weight"].T + arrays[f"{name}.{3 * k}.bias"], 0)
    norm = f"{name}.{3 * k + 2}."
    x = (x - arrays[norm + "running_mean"]) / np.sqrt(arrays[norm + "running_var"] + 1e-5)
    x = x * arrays[norm + "weight"] + arrays[norm + "bias"]
  return x


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"model_state_dict": t, "epoch": 3, "loss": 0.25}])
def test_a_forward_pass_in_float64_gives_the_same(save, wrap):
  arrays = state_dict(num_classes=9)
  experiment, model, state = made("standard_semisup")
  state = experiment.read_weights(state, save(arrays, wrap))
  x = np.random.RandomState(3).normal(size=(7, 6))
  out = model.apply(predict.variables_of(state), x.astype(np.float32), np.ones(7))
  mean = forward(arrays, "encoder", x) @ arrays["fc_mu.weight"].T + arrays["fc_mu.bias"]
  recon = forward(arrays, "decoder", mean) @ arrays["fc_out.weight"].T + arrays["fc_out.bias"]
  hidden = np.maximum(mean @ arrays["classifier.0.weight"].T + arrays["classifier.0.bias"], 0)
  np.testing.assert_allclose(out.mean, mean, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(out.x_mean, recon, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(out.logits, hidden @ arrays["classifier.3.weight"].T + arrays["classifier.3.bias"],
                             rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_square_kernels_are_not_left_as_they_are(save):
  arrays = state_dict()
  square = np.random.RandomState(5).normal(size=(32, 32))
  arrays["encoder.0.weight"] = np.random.RandomState(6).normal(size=(32, 6))
  arrays["encoder.3.weight"] = square
  arrays |= {name: value[:32] for name, value in arrays.items() if name.startswith(("encoder.0.bias", "encoder.2."))}
  arrays |= {"decoder.3.weight": square, "fc_out.weight": np.ones((6, 32))}
  arrays |= {name: value[:32] for name, value in arrays.items() if name.startswith(("decoder.3.bias", "decoder.5."))}
  experiment, _, state = made("standard", model__hidden_dims=(32, 32))
  state = experiment.read_weights(state, save(arrays))
  np.testing.assert_array_equal(state.params["encoder"]["Linear_1"]["kernel"], square.T.astype(np.float32))


def test_what_is_no_state_dict_is_refused(save, tmp_path):
  experiment, _, state = made("standard")
  arrays = state_dict()
  missing = {name: value for name, value in arrays.items() if name != "fc_mu.bias"}
  (tmp_path / "text.pt").write_text("no archive")
  with zipfile.ZipFile(tmp_path / "empty.pt", "w") as archive:
    archive.writestr("a/b", "")
  cases = [(lambda: str(tmp_path / "text.pt"), "cannot be read as a PyTorch file"),
           (lambda: str(tmp_path / "empty.pt"), "has no data.pkl"),
           (lambda: save(missing), "has no fc_mu.bias"),
           (lambda: save(arrays | {"fc_mu.bias": np.ones(3)}), "the config's model needs"),
           (lambda: save(arrays | {"classifier.0.bias": np.ones(64)}), "is config.model.kind right"),
           (lambda: save(arrays, order=b"big"), "big-endian"),
           (lambda: save({}, extra={"a": 1}), "holds no state_dict"),
           (lambda: save({}, extra=print), "calls|instruction|holds no state_dict")]
  for path, message in cases:
    with pytest.raises(UserError, match=message) as caught:
      experiment.read_weights(state, path())
    assert "\n" not in str(caught.value)


def test_one_array_under_many_names_may_not_fill_the_memory(save, monkeypatch):
  monkeypatch.setattr(memory, "free_bytes", lambda: int((1 << 20) / memory.SHARE))
  many = lambda count: lambda tensors: {f"a{k}": Tensor(tensors["a"].array, tensors["a"].key) for k in range(count)}
  small = {"a": np.ones(16_000)}
  assert len(release.read_arrays(save(small, wrap=many(10)))) == 10
  path = save(small, wrap=many(400))
  assert os.path.getsize(path) < 1 << 17
  with pytest.raises(UserError, match="weights.pt: cannot be read as a PyTorch file: what it holds unfolds to"):
    release.read_arrays(path)


class Attack:
  """Unpickled, it would write a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), "w")


def test_a_file_that_would_run_code_when_unpickled_runs_none(save, tmp_path):
  experiment, _, state = made("standard")
  with pytest.raises(UserError, match="which a state_dict does not need; not read"):
    experiment.read_weights(state, save({}, extra={"encoder.0.weight": Attack(tmp_path / "made")}))
  assert not (tmp_path / "made").exists()


def test_an_array_may_not_reach_outside_its_numbers(save):
  experiment, _, state = made("standard")
  arrays = state_dict()
  path = save(arrays)
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(path + "2", "w") as new:
    for name in old.namelist():
      new.writestr(name, old.read(name)[:8] if name.endswith("data/0") else old.read(name))
  with pytest.raises(UserError, match="reaches outside its numbers"):
    release.read_weights(state, path + "2")


def test_an_array_may_not_be_larger_than_its_numbers(save, monkeypatch):
  """A stride of 0 would make terabytes of one number."""
  experiment, _, state = made("standard")
  monkeypatch.setattr(Tensor, "__reduce__", lambda self: (rebuild, (("storage", self.key), 0, (1 << 40,), (0,), False,
                                                                    {})))
  with pytest.raises(UserError, match="reaches outside its numbers"):
    experiment.read_weights(state, save(state_dict()))


@pytest.mark.slow
def test_averaged_parameters_are_arrays_of_their_own(save):
  """The state is donated: two leaves may not share a buffer."""
  experiment, _, state = made("standard", optim__ema_decay=0.9)
  state = experiment.read_weights(state, save(state_dict()))
  jax.jit(lambda s: jax.tree.map(lambda x: x, s), donate_argnums=0)(state)
  params, ema = (jax.tree.leaves(tree) for tree in (state.params, state.ema))
  assert all(a is not b for a, b in zip(params, ema))
