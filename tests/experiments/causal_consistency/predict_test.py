"""The verbs against a forward pass of the stored parameters in float64 NumPy, and the laws that they obey."""

import functools
import os

import jax
import numpy as np
import pytest
from jax import export as jax_export
from scipy import special

import consistency_cases as cases
import runs
from jaxtrain import config as config_lib, ensemble, loop, predict as command, rng
from jaxtrain.data import blocks, files, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import joint, outputs, predict
from jaxtrain.run import checkpoints

CLASSES, OUTCOMES, FEATURES = ("drug", "knife", "wait"), ("pain", "cost"), ("pain", "cost", "distance", "age", "dose")
TRANSFORMS = ("standardise", "min_max", "log1p", "standardise", "log1p")
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # float32 against float64, in units of the outcomes


def table(num_rows=150, seed=0):
  """Three treatments by name, a third of them not recorded; two outcomes, an instrument, two covariates."""
  random = np.random.RandomState(seed)
  y = random.randint(3, size=num_rows)
  age, dose = random.normal(50, 9, num_rows), np.exp(random.normal(size=num_rows))
  label = np.array(CLASSES, object)[y]
  label[::3] = None
  return {"pain": y + age / 10 + random.normal(size=num_rows), "cost": 900 + 50 * y + random.normal(size=num_rows),
          "distance": np.exp(random.normal(size=num_rows)), "age": age, "dose": dose, "treated": label}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run on such a table that keeps an average of its parameters."""
  folder = tmp_path_factory.mktemp("predict")
  writing.write(str(folder / "table.parquet"), table())
  config = cases.configured("csv", **{
      "data.source": "parquet", "data.path": str(folder / "table.parquet"), "data.treatment": "treated",
      "data.outcomes": OUTCOMES, "data.instruments": ("distance",), "data.features": ("age", "dose"),
      "data.transforms": TRANSFORMS, "data.num_samples": 1000, "train.batch_size": 30, "optim.ema_decay": 0.5,
      "train.num_epochs": 1, "loss.warmup_epochs": 0})
  loop.train(config, str(folder / "run"))
  with runs.restored_once():
    yield str(folder / "run")


class Forward:
  """The stored network in float64 NumPy, from the formulas: linear layers, exact GELU, softplus."""

  def __init__(self, workdir):
    step = int(os.readlink(os.path.join(workdir, "checkpoints", "best")))
    leaves, record = checkpoints.read(os.path.join(workdir, "checkpoints"), step)
    self.leaves = {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items() if "key" not in name}
    scaler = record["meta"]["scaler"]
    self.mean, self.std = np.array(scaler["mean"]), np.array(scaler["std"])
    self.params = "ema"

  def stack(self, name, x, arm=None):
    """One hidden layer; `arm` is the class where there is a network for each."""
    for k in range(2):
      kernel, bias = (self.leaves[f"state/{self.params}/{name}/Linear_{k}/{part}"] for part in ("kernel", "bias"))
      kernel, bias = (kernel, bias) if arm is None else (kernel[arm], bias[arm])
      x = x @ (kernel if x.shape[1] <= len(bias) else kernel.T) + bias
      x = x * 0.5 * (1 + special.erf(x / np.sqrt(2))) if k == 0 else x
    return x

  def scale(self, columns):
    raw = [np.log1p(columns[name]) if kind == "log1p" else columns[name] for name, kind in zip(FEATURES, TRANSFORMS)]
    return (np.column_stack(raw) - self.mean) / self.std

  def arm(self, columns, k):
    """(mean, deviation) [N, 2] of the outcomes under class k, raw units."""
    out = self.stack("outcome", self.scale(columns)[:, 3:], k)
    sd = 0.01 + np.log1p(np.exp(out[:, 2:]))
    return out[:, :2] * self.std[:2] + self.mean[:2], sd * self.std[:2]

  def impute(self, columns):
    z = self.scale(columns)
    return special.softmax(self.stack("head", np.concatenate([z[:, 3:], z[:, 2:3], z[:, :2]], axis=1)), axis=1)


def apply(workdir, verb, columns, folder, suffix=".npz"):
  """Columns that the command writes for a table."""
  writing.write(str(folder / f"in{suffix}"), columns)
  summary = command.run([f"--workdir={workdir}", f"--verb={verb}", f"--input={folder / f'in{suffix}'}",
                         f"--output={folder / 'out.npz'}"])
  return summary, files.read("npz", str(folder / "out.npz")).values


def test_outcomes_and_effects_are_those_of_the_networks(run, tmp_path):
  """Of the averaged parameters; with several outcomes, three classes, and each kind of transform."""
  forward, rows = Forward(run), table(40, 1)
  y = np.array([CLASSES.index(name) if name else -1 for name in rows["treated"]])
  arms = [forward.arm(rows, k) for k in range(3)]
  _, own = apply(run, "predict_z", rows, tmp_path)
  _, if_all = apply(run, "counterfactual_z", rows, tmp_path)
  _, effects = apply(run, "effect", {name: rows[name] for name in ("age", "dose")}, tmp_path)
  for d, name in enumerate(OUTCOMES):
    for what, part in (("mean", 0), ("sd", 1)):
      want = np.choose(np.maximum(y, 0), [arm[part][:, d] for arm in arms])
      np.testing.assert_allclose(own[f"{name}_{what}"], np.where(y >= 0, want, np.nan), **TOLERANCE)
    z, (mean, sd) = rows[name], (np.stack([arm[part][:, d] for arm in arms], axis=1) for part in (0, 1))
    noise = np.where(y >= 0, (z - mean[np.arange(40), y]) / sd[np.arange(40), y], np.nan)
    for k, c in enumerate(CLASSES):
      np.testing.assert_allclose(if_all[f"{name}_if_{c}"], mean[:, k], **TOLERANCE)
      np.testing.assert_allclose(if_all[f"{name}_cf_{c}"], mean[:, k] + sd[:, k] * noise, rtol=1e-4, atol=1e-3)
      if k:
        np.testing.assert_allclose(effects[f"effect_{name}_{c}"], mean[:, k] - mean[:, 0], rtol=1e-3, atol=1e-4)
    for k, c in enumerate(CLASSES):  # with its own class it is its own z, bit for bit
      np.testing.assert_array_equal(if_all[f"{name}_cf_{c}"][y == k], z[y == k])
  forward.params = "params"
  assert np.abs(forward.arm(rows, 0)[0] - arms[0][0]).max() > 1e-3  # the average is another network
  assert "effect_pain_drug" not in effects and len(effects) == 4 + 2  # the input's own two beside them


def test_imputed_treatments(run, tmp_path):
  """They read outcomes and instruments, sum to 1, and do not look at a recorded treatment."""
  rows = table(40, 1)
  _, found = apply(run, "impute_y", rows, tmp_path)
  prob = np.stack([found[f"prob_{name}"] for name in CLASSES], axis=1)
  np.testing.assert_allclose(prob, Forward(run).impute(rows), **TOLERANCE)
  np.testing.assert_allclose(prob.sum(axis=1), 1, rtol=1e-6)
  assert [CLASSES[k] for k in prob.argmax(axis=1)] == found["pred_label"].tolist()
  rows["treated"][:] = "of no interest"
  _, again = apply(run, "impute_y", rows, tmp_path)
  np.testing.assert_array_equal(again["prob_knife"], found["prob_knife"])
  _, moved = apply(run, "impute_y", rows | {"distance": rows["distance"] + 1}, tmp_path)
  assert np.abs(moved["prob_knife"] - found["prob_knife"]).min() > 0
  del rows["distance"]
  with pytest.raises(UserError, match="has no column 'distance'; the run needs pain, cost, distance, age"):
    apply(run, "impute_y", rows, tmp_path)


def test_what_is_not_there_gives_empty_results(run, tmp_path):
  """An empty covariate, treatment or outcome; a file without a treatment has the means alone."""
  rows = table(6, 1)
  rows["treated"][:] = ["wait", "wait", "wait", None, "wait", "wait"]
  rows["age"][1], rows["pain"][2] = np.nan, np.nan
  empty = lambda found, name: np.flatnonzero(np.isnan(found[name])).tolist()
  summary, found = apply(run, "counterfactual_z", rows, tmp_path, ".csv")
  assert empty(found, "pain_if_drug") == [1] and empty(found, "pain_cf_drug") == [1, 2, 3]
  assert empty(found, "pain_cf_wait") == [1, 2, 3] and empty(found, "cost_cf_drug") == [1, 3]
  assert summary["rows_incomplete"] == 3
  assert empty(apply(run, "predict_z", rows, tmp_path, ".csv")[1], "cost_mean") == [1, 3]
  assert empty(apply(run, "effect", rows, tmp_path, ".csv")[1], "effect_cost_wait") == [1]
  _, imputed = apply(run, "impute_y", rows, tmp_path, ".csv")
  assert empty(imputed, "prob_wait") == [1, 2] and not imputed["pred_label"][1] and imputed["pred_label"][0]
  del rows["treated"]
  _, found = apply(run, "counterfactual_z", rows, tmp_path)
  assert "pain_if_drug" in found and "pain_cf_drug" not in found
  with pytest.raises(UserError, match="has no column 'treated', the treatment"):
    apply(run, "predict_z", rows, tmp_path)
  with pytest.raises(UserError, match="has no column 'dose'; the run needs age, dose"):
    apply(run, "effect", {"age": rows["age"]}, tmp_path)


def test_treatments_that_training_did_not_have(run, tmp_path):
  rows = table(6, 1)
  rows["treated"][4] = "herbs"
  with pytest.raises(UserError, match=r"in.csv: column 'treated', row 6: 'herbs', allowed drug, knife, wait$"):
    apply(run, "counterfactual_z", rows, tmp_path, ".csv")


@pytest.mark.parametrize("cells, want", [
    (["1", "0", "", "1"], [1, 0, -1, 1]), (np.array([1.0, 0.0, np.nan, 1.0]), [1, 0, -1, 1]),
    (np.array([1, 0, 0, 1]), [1, 0, 0, 1]), (["1.0", "0.00", "NA", "1"], [1, 0, -1, 1]), (["", ""], [-1, -1])])
def test_numbers_that_mean_the_same_class(cells, want):
  cells = cells if isinstance(cells, np.ndarray) else np.array(cells, object)
  found = predict.read_classes(files.Columns("a.csv", {"y": cells}, {}), "y", ["0", "1"])
  assert found.tolist() == want


@functools.cache
def untrained(bayesian=False, hidden_dims=(8,)):
  """(verbs, state, meta, model) of a config at its start."""
  fields = {"model.bayesian": bayesian, "model.hidden_dims": hidden_dims}
  config = config_lib.resolve(cases.configured(**fields))
  meta = joint.load(config).meta
  experiment = joint.make(config_lib.with_values(config, {"optim.decay_steps": 100}), meta)
  return experiment.predict, jax.jit(experiment.init)(rng.root_key(1), {}), meta, joint.make_model(config, meta)


@pytest.mark.slow
@pytest.mark.parametrize("bayesian, more", [
    (False, ["effects of single rows have no interval here; --config.model.bayesian=true trains a model that gives "
             "one"]), (True, [])])
def test_what_is_said_of_effects(bayesian, more):
  assert untrained(bayesian)[0]["effect"].say(None, {}) == ["effects are against 0", *more]


def test_units_of_a_table_do_not_matter():
  """The same parameters on scaled numbers, and on raw ones with the scaler: equal up to the units of the outcome."""
  verbs, state, meta, model = untrained()
  scaler = meta["scaler"] | {"transforms": ["standardise"] * 2, "mean": [40.0, -3.0], "std": [7.0, 0.5]}
  of_raw = predict.make_verbs(model, meta | {"scaler": scaler}, False)
  x, z, y = np.linspace(-2, 2, 9), np.linspace(-1, 2, 9), np.arange(9) % 2
  plain = files.Columns("a.csv", {"x": x, "z": z, "y": y}, {})
  raw = files.Columns("a.csv", {"x": -3 + 0.5 * x, "z": 40 + 7 * z, "y": y}, {})
  for name in ("predict_z", "counterfactual_z", "impute_y", "effect"):
    one, other = verbs[name].run(state, plain, 0, cases.KEY), of_raw[name].run(state, raw, 0, cases.KEY)
    for column, values in one.items():
      shift = 0 if name == "effect" or column.endswith("_sd") else 40
      want = values if name == "impute_y" else shift + 7 * values
      (np.testing.assert_array_equal if column == "pred_label" else
       lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5))(other[column], want)


def test_exports_are_the_verbs(run, tmp_path):
  """Of 17 rows in raw units: the columns of the verb, for a run of three classes, two outcomes and an instrument."""
  rows = table(17, 2)
  for verb, names, prefix in (("impute_y", FEATURES, "prob_"), ("effect", ("age", "dose"), "effect_")):
    command.run([f"--workdir={run}", f"--verb={verb}", f"--export={tmp_path / verb}"])
    exported = jax_export.deserialize(bytearray((tmp_path / verb).read_bytes()))
    found = np.asarray(exported.call(np.column_stack([rows[name] for name in names]).astype(np.float32)))
    _, want = apply(run, verb, rows, tmp_path)
    want = np.stack([column for name, column in want.items() if name.startswith(prefix)], axis=1)
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4)
  with pytest.raises(UserError, match="allowed nothing with --verb=predict_z"):
    command.run([f"--workdir={run}", "--verb=predict_z", f"--export={tmp_path / 'no'}"])


@pytest.mark.slow
def test_posterior_intervals_of_a_row(monkeypatch):
  """One linear layer: the effect of a row is Normal with variance x^2 (s0^2 + s1^2) + (b0^2 + b1^2), by the formula;
  the mean is the posterior's, and blocks of rows see the same draws.
  """
  verbs, state, _, _ = untrained(bayesian=True, hidden_dims=())
  params = state.params
  x = np.array([-2.0, 0.0, np.nan, 1.5])
  monkeypatch.setattr(outputs, "DRAWS", 4000)
  found = verbs["effect"].run(state, files.Columns("a.csv", {"x": x}, {}), 0, cases.KEY)
  layer, sd = params["mean"]["Linear_0"], jax.tree.map(np.exp, params["log_sd"]["Linear_0"])
  slope, bias = (np.asarray(layer[part], np.float64) for part in ("kernel", "bias"))
  mean = (slope[1] - slope[0])[0, 0] * x + (bias[1] - bias[0])[0]
  half = 1.959964 * np.sqrt(x ** 2 * np.square(sd["kernel"][:, 0, 0]).sum() + np.square(sd["bias"][:, 0]).sum())
  np.testing.assert_allclose(found["effect_1"], mean, rtol=1e-5)
  # an end is 1.96 deviations of which an estimate from 4,000 draws errs by 2.1 %; 8 % fails by chance once in 10,000
  np.testing.assert_allclose(found["effect_1_low"], mean - half, atol=0.08 * np.nanmax(half))
  np.testing.assert_allclose(found["effect_1_high"], mean + half, atol=0.08 * np.nanmax(half))
  monkeypatch.setattr(blocks, "BLOCK", 4)  # 2 rows
  again = verbs["effect"].run(state, files.Columns("a.csv", {"x": x}, {}), 0, cases.KEY)
  np.testing.assert_allclose(again["effect_1_low"], found["effect_1_low"], rtol=1e-5)
  assert set(found) == {"effect_1", "effect_1_low", "effect_1_high"}


def test_members_that_disagree_are_averaged():
  """0.9 and 0.2 for the class 1: 0.55, which decides."""
  verb = untrained()[0]["impute_y"]
  each = [{"prob_0": np.array([1 - p]), "prob_1": np.array([p]), "pred_label": np.array(["x"], object)}
          for p in (0.9, 0.2)]
  found = ensemble.join(verb, each)
  assert found["prob_1"] == pytest.approx([0.55]) and found["pred_label"].tolist() == ["1"]
