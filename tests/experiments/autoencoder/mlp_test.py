"""The test experiment against formulas in float64: data, losses, dropout, scores, the verb, what training reaches."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from scipy import special

from jaxtrain import config as config_lib, loop, predict as command, step
from jaxtrain.data import files, writing
from jaxtrain.devices import parallel
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import mlp, nets_mlp
from jaxtrain.run import setup

KEY = jax.random.key(0)
TASKS = ("regression", "binary")


def configured(**fields):
  """A small config of the experiment, with other values of fields by dotted key."""
  config = config_lib.common()
  config.experiment = "jaxtrain.experiments.autoencoder.mlp"
  config.data = {"task": "regression", "num_rows": 300, "num_features": 3, "noise": 0.1, "seed": 42,
                 "split": {"kind": "random", "fractions": (0.8, 0.2, 0.0), "num_folds": 5, "fold": 0}}
  config.model.hidden_dims, config.model.dropout, config.model.activation = (8, 4), 0.0, "relu"
  config.train.batch_size, config.train.num_epochs = 64, 2
  config.log.figures, config.log.progress = "none", False
  for key, value in fields.items():
    config_lib.assign(config, key, value)
  return config


def loaded(**fields):
  """(config, splits)."""
  values = {key.replace("__", "."): value for key, value in fields.items()}
  config = setup.with_horizon(config_lib.resolve(configured(**values)), 99)
  return config, mlp.load(config)


@functools.cache
def made(**fields):
  """(config, splits, experiment, state) at the start."""
  config, splits = loaded(**fields)
  experiment = mlp.make(config, splits.meta)
  return config, splits, experiment, jax.jit(experiment.init)(KEY, {})


def forward(params, x, activation="relu"):
  """The network in float64."""
  of = {"relu": lambda h: np.maximum(h, 0), "tanh": np.tanh, "gelu": lambda h: h * special.ndtr(h)}[activation]
  for k in range(len(params)):
    kernel, bias = (np.asarray(params[f"Linear_{k}"][part], np.float64) for part in ("kernel", "bias"))
    x = x @ (kernel if x.shape[1] <= len(bias) else kernel.T) + bias
    x = x if k == len(params) - 1 else of(x)
  return x[:, 0]


def test_rows_are_linear_in_their_features_up_to_the_noise():
  x, y = mlp.generate(4000, 6, 0.3, "regression", 1)
  w, residual, *_ = np.linalg.lstsq(x.astype(np.float64), y, rcond=None)
  # a mean square of 4,000 Normals errs by 2.2 %; 10 % fails by chance once in 100,000
  assert residual[0] / 4000 == pytest.approx(0.09, rel=0.1) and np.abs(w).max() > 0.1
  same_x, label = mlp.generate(4000, 6, 0.3, "binary", 1)
  np.testing.assert_array_equal(same_x, x)
  np.testing.assert_array_equal(label, y > 0)
  assert not np.array_equal(mlp.generate(4000, 6, 0.3, "regression", 2)[0], x)


def test_parts_and_meta():
  _, splits = loaded()
  assert (splits.train.num_rows, splits.val.num_rows, splits.test) == (240, 60, None)
  assert splits.meta["rows"] == {"train": 240, "val": 60, "test": 0} and splits.meta["steps_per_epoch"] == 4
  assert splits.meta["features"] == ["x_0", "x_1", "x_2"] and splits.meta["class_names"] == []
  _, other = loaded(seed=7)
  np.testing.assert_array_equal(other.train.data["x"], splits.train.data["x"])  # the data has a seed of its own
  _, own = loaded(seed=7, data__seed=-1)
  assert not np.array_equal(own.train.data["x"], splits.train.data["x"])
  assert loaded(data__split__fractions=(0.5, 0.25, 0.25))[1].test.num_rows == 75


@pytest.mark.parametrize("task", TASKS)
def test_evaluation_is_over_real_rows(task):
  """A batch of which padding has absurd values: sums by the formulas over the others."""
  _, splits, experiment, state = made(data__task=task)
  rows = splits.val.rows(np.arange(60))
  pad = lambda values: np.concatenate([values, np.full((4, *values.shape[1:]), 1e3, np.float32)])
  batch = {"x": pad(rows["x"]), "y": pad(rows["y"]), "weight": np.repeat([1.0, 0.0], [60, 4]).astype(np.float32)}
  evaluate = jax.jit(lambda state, batch: experiment.eval_step(state, batch, KEY, parallel.over_whole))
  found = evaluate(state, batch)
  out, y = forward(state.params, rows["x"].astype(np.float64)), rows["y"].astype(np.float64)
  if task == "regression":
    want = {"mse": np.square(out - y).sum()}
  else:
    p = 1 / (1 + np.exp(-out))
    want = {"bce": -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(), "acc": ((p > 0.5) == (y == 1)).sum()}
  want["loss"] = want[mlp.TASKS[task]]
  assert found.keys() == want.keys()
  for name, value in want.items():
    np.testing.assert_allclose(found[name][0], value, rtol=1e-5)
    assert found[name][1] == 60


@pytest.mark.slow
@pytest.mark.parametrize("activation", nets_mlp.ACTIVATIONS)
def test_network_is_the_formula(activation):
  model = nets_mlp.MLP((8, 4), activation, "float32")
  x = np.random.default_rng(0).normal(size=(20, 3))
  params = model.init(KEY, jnp.zeros((2, 3)))["params"]
  np.testing.assert_allclose(model.apply({"params": params}, jnp.asarray(x, jnp.float32)),
                             forward(params, x, activation), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_dropout_scales_what_it_keeps():
  """Units are kept or zeroed as the mask says; a rate of a quarter keeps three of four, and its mean is 1."""
  model = nets_mlp.MLP((500, 500), "relu", "float32")
  assert mlp.draw(model, 0.0, KEY, 4) == {}
  keep = np.asarray(mlp.draw(model, 0.25, KEY, 100)["keep"])
  np.testing.assert_allclose(np.unique(keep), [0.0, 4 / 3], rtol=1e-6)
  assert keep.mean() == pytest.approx(1.0, abs=0.01)  # of 100,000 draws, five deviations
  params = model.init(KEY, jnp.zeros((2, 3)))["params"]
  x = jnp.ones((100, 3))
  silenced = model.apply({"params": params}, x, jnp.asarray(keep).at[:, 500:].set(0.0))
  np.testing.assert_allclose(silenced, np.full(100, params["Linear_2"]["bias"][0]), rtol=1e-6)


def trained(over, **fields):
  """The state after three steps."""
  _, splits, experiment, state = made(**fields)
  one_step = step.make_one_step(experiment, splits.train, over, "halt")
  data = jax.tree.map(jnp.asarray, splits.train.data)
  totals = step.zero_totals(jax.eval_shape(one_step, state, data, step.stream_keys(state))[1])
  return jax.jit(step.make_repeat(one_step))(state, totals, data, 3)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_chunks_of_a_batch_take_the_same_step(task):
  """With dropout, an average of the parameters, and a ragged last batch."""
  fields = {"data__task": task, "model__dropout": 0.3, "optim__ema_decay": 0.9}
  (one, totals), (two, others) = (trained(over, **fields)
                                  for over in (parallel.over_whole, parallel.make_over_chunks(2)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one.params, two.params)
  np.testing.assert_allclose(totals["loss"][0], others["loss"][0], rtol=1e-5)
  assert float(jnp.abs(one.ema["Linear_0"]["kernel"] - one.params["Linear_0"]["kernel"]).max()) > 0


def test_scores_of_a_part_with_their_intervals():
  _, splits, experiment, state = made(data__task="binary")
  scalars, arrays = experiment.assess["val"](state, splits, KEY)
  rows = splits.val.rows(np.arange(60))
  right = (forward(state.params, rows["x"].astype(np.float64)) > 0) == (rows["y"] == 1)
  assert scalars["acc"] == pytest.approx(right.mean()) and scalars["rows"] == 60 and arrays == {}
  assert scalars["acc_ci95"] == pytest.approx(2.000995 * right.std(ddof=1) / 60 ** 0.5, rel=1e-5)  # t of 59 degrees
  _, splits, experiment, state = made()
  scalars, _ = experiment.assess["val"](state, splits, KEY)
  out, y = forward(state.params, splits.val.data["x"].astype(np.float64)), splits.val.data["y"].astype(np.float64)
  assert scalars["mse"] == pytest.approx(np.square(out - y).mean(), rel=1e-5)
  assert scalars["r2"] == pytest.approx(1 - np.square(out - y).mean() / y.var(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_run_learns_and_predicts(task, tmp_path):
  """2,000 rows in ten epochs; the verb and its export against the stored network by the formula."""
  config = configured(**{"data.task": task, "data.num_rows": 2000, "model.hidden_dims": (32,), "train.num_epochs": 10,
                         "optim.learning_rate": 1e-2})
  result = loop.train(config, str(tmp_path / "run"))
  history = result.history
  assert (history["val_acc"][-1] > 0.93) if task == "binary" else (history["val_mse"][-1] < 0.1)
  rows = {f"x_{d}": np.random.default_rng(d).normal(size=17) for d in range(3)}
  rows["x_1"][4] = np.nan
  writing.write(str(tmp_path / "in.csv"), rows)
  run = f"--workdir={tmp_path / 'run'}"
  command.run([run, "--verb=predict", f"--input={tmp_path / 'in.csv'}", f"--output={tmp_path / 'out.npz'}"])
  found = files.read("npz", str(tmp_path / "out.npz")).values
  column = found["y"] if task == "regression" else found["prob_1"]
  assert np.flatnonzero(np.isnan(column)).tolist() == [4]
  command.run([run, "--verb=predict", f"--export={tmp_path / 'net'}"])
  exported = jax_export.deserialize(bytearray((tmp_path / "net").read_bytes()))
  x = np.column_stack(list(rows.values())).astype(np.float32)
  out = np.asarray(exported.call(x))[:, -1]
  np.testing.assert_allclose(np.delete(out, 4), np.delete(column, 4), rtol=1e-4, atol=1e-5)
  if task == "binary":
    assert [float(found["pred_label"][k]) for k in (0, 1)] == [column[k] > 0.5 for k in (0, 1)]
  rows["x_2"][0] = 1e300
  writing.write(str(tmp_path / "in.csv"), rows)
  with pytest.raises(UserError, match="in.csv: .*x_2"):
    command.run([run, "--verb=predict", f"--input={tmp_path / 'in.csv'}", f"--output={tmp_path / 'out.npz'}"])


def test_no_folder_leaves_no_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert np.isfinite(loop.train(configured(), None).history["loss"]).all()
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("field", "value"), [
    ("data.task", "ranking"), ("data.num_rows", 0), ("model.dropout", 1.0), ("model.activation", "swish"),
    ("data.split.kind", "group"), ("data.noise", -1.0)])
def test_values_that_are_refused(field, value):
  with pytest.raises(UserError, match=f"config.{field}: got "):
    config_lib.resolve(configured(**{field: value}))
