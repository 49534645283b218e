"""Predict: every verb against a forward pass of the stored parameters in float64 NumPy, through files of all kinds."""

import csv
import json
import os
import sqlite3

import jax
import numpy as np
import pytest
from jax import export as jax_export

import outside
import runs
from jaxtrain import config as config_lib, errors, loop, predict, rng
from jaxtrain.data import blocks, cells, files, writing
from jaxtrain.experiments.tabular_vae import predict as vae_predict
from jaxtrain.run import checkpoints, trained, verbs
from jaxtrain.workdir import records

FEATURES, CLASSES, LATENT = ("depth [m]", "density", "redness"), ("clay", "nannofossil ooze", "sand"), 3
TRANSFORMS = ("log1p", "standardise", "signed_log1p")
NUM_ROWS, SEED = 120, 7
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # float32 against float64, through exponentials of the inverse transforms


def columns(num_rows=NUM_ROWS, seed=0):
  """Features in raw units, a text label and a column that no model knows."""
  random = np.random.RandomState(seed)
  rock = random.randint(3, size=num_rows)
  values = np.exp(random.normal(3 + rock / 2, 0.3)), 1.5 + 0.3 * rock + random.normal(size=num_rows) / 10, \
      30 * random.standard_t(5, num_rows)
  return dict(zip(FEATURES, values)) | {"rock": np.array(CLASSES, object)[rock],
                                        "note": np.array([f"row {i}, ü" for i in range(num_rows)], object)}


def make_run(folder, name, **overrides):
  """Trains a small semi-supervised run, at a rate so high that the last state is not the best; returns its folder."""
  path, config = str(folder / f"{name}.parquet"), config_lib.read_file("configs/vae.py:csv")
  writing.write(path, columns())
  fields = {"data.source": "parquet", "data.path": path, "data.features": FEATURES, "data.label": "rock",
            "data.transforms": TRANSFORMS, "data.split.kind": "random", "model.kind": "semisup",
            "model.hidden_dims": (8, 6), "model.latent_dim": LATENT, "model.head_dim": 5, "train.num_epochs": 4,
            "train.batch_size": 16, "checkpoint.every_epochs": 1, "checkpoint.keep_last": 4,
            "seed": SEED, "optim.plateau.factor": 0.0, "log.figures": "none", "log.progress": False,
            "optim.learning_rate": 0.01}
  for key, value in (fields | overrides).items():
    config_lib.assign(config, key, value)
  loop.train(config, str(folder / name))
  return str(folder / name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = make_run(tmp_path_factory.mktemp("predict"), "run")
  with runs.restored_once():
    yield folder


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
  """A run that keeps an average of its parameters, trained without masking; its network has no BatchNorm."""
  return make_run(tmp_path_factory.mktemp("averaged"), "run", **{"optim.ema_decay": 0.9, "loss.mask_rate": 0.0,
                                                                      "model.batch_norm": False})


class Forward:
  """The network of a stored state in float64 NumPy, from the formulas: Linear, ReLU, BatchNorm as it ran."""

  def __init__(self, workdir, step, params="params"):
    leaves, record = checkpoints.read(os.path.join(workdir, "checkpoints"), step)
    self.leaves = {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items() if "key" not in name}
    self.params, self.scaler = f"state/{params}", record["meta"]["scaler"]
    self.mean, self.std = (np.array(self.scaler[name]) for name in ("mean", "std"))

  def linear(self, name, x):
    kernel, bias = (self.leaves[f"{self.params}/{name}/{part}"] for part in ("kernel", "bias"))
    return x @ (kernel if kernel.shape == (x.shape[1], len(bias)) else kernel.T) + bias

  def stack(self, name, x):
    for k in range(2):
      x = np.maximum(self.linear(f"{name}/Linear_{k}", x), 0)
      if f"{self.params}/{name}/BatchNorm_{k}/scale" not in self.leaves:
        continue
      statistics = f"state/model_state/batch_stats/{name}/BatchNorm_{k}"
      mean, var = self.leaves[f"{statistics}/mean"], self.leaves[f"{statistics}/var"]
      scale, bias = (self.leaves[f"{self.params}/{name}/BatchNorm_{k}/{part}"] for part in ("scale", "bias"))
      x = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    return x

  def scale(self, x):
    t = np.column_stack([np.log1p(x[:, 0]), x[:, 1], np.sign(x[:, 2]) * np.log1p(np.abs(x[:, 2]))])
    return (t - self.mean) / self.std

  def unscale(self, z):
    t = z * self.std + self.mean
    return np.column_stack([np.expm1(t[:, 0]), t[:, 1], np.sign(t[:, 2]) * np.expm1(np.abs(t[:, 2]))])

  def embed(self, x):
    return self.linear("posterior", self.stack("encoder", self.scale(x)))[:, :LATENT]

  def surprise(self, x, variance=None):
    """(surprise of x [N, D] in scaled units, variances of the errors of its features, if not given)."""
    mean, log_var = np.split(self.linear("posterior", self.stack("encoder", x)), 2, axis=1)
    errors = (x - self.decode(mean)) ** 2
    variance = errors.mean(axis=0) if variance is None else variance
    kl_nats = 0.5 * (mean ** 2 + np.exp(log_var) - 1 - log_var).sum(axis=1)
    return 0.5 * (errors / variance).sum(axis=1) + kl_nats, variance

  def decode(self, z):
    return self.linear("output", self.stack("decoder", z))

  def reconstruct(self, x):
    return self.unscale(self.decode(self.embed(x)))

  def classify(self, x):
    logits = self.linear("head_output", np.maximum(self.linear("head", self.embed(x)), 0))
    prob = np.exp(logits - logits.max(axis=1, keepdims=True))
    return prob / prob.sum(axis=1, keepdims=True)

  def impute(self, x, passes):
    missing = np.isnan(x)
    filled = np.where(missing, self.unscale(np.zeros_like(x)), x)
    for _ in range(passes):
      filled = np.where(missing, self.reconstruct(filled), x)
    return filled


def steps_of(workdir):
  """(best, last) step by the links."""
  return [int(os.readlink(os.path.join(workdir, "checkpoints", name))) for name in ("best", "last")]


def features_of(table):
  return np.column_stack([table[name] for name in FEATURES])


def call(workdir, verb, tmp_path, table=None, suffix=".npz", **flags):
  """(summary, columns of the output file) of the command on a table."""
  output = str(tmp_path / f"out{suffix}")
  argv = [f"--workdir={workdir}", f"--verb={verb}", f"--output={output}"]
  if table is not None:
    writing.write(str(tmp_path / "in.parquet"), table)
    argv.append(f"--input={tmp_path / 'in.parquet'}")
  summary = predict.run(argv + [f"--{key}={value}" for key, value in flags.items()])
  return summary, files.read(files.kind_of(output), output).values


@pytest.mark.parametrize("which", ["best", "last", "step"])
def test_each_checkpoint_embeds_with_its_own_parameters(which, run, tmp_path):
  best, last = steps_of(run)
  assert best != last
  step = {"best": best, "last": last, "step": records.committed_steps(f"{run}/checkpoints")[1]}[which]
  table = columns(50, 1)
  flags = {} if which == "best" else {"checkpoint": step if which == "step" else which}
  summary, found = call(run, "embed", tmp_path, table, **flags)
  assert (summary["step"], summary["rows"], summary["rows_incomplete"]) == (step, 50, 0)
  assert list(found) == [*table, "emb_0", "emb_1", "emb_2", "novelty"] and found["emb_0"].dtype == np.float32
  got = np.column_stack([found[f"emb_{k}"] for k in range(LATENT)])
  np.testing.assert_allclose(got, Forward(run, step).embed(features_of(table)), **TOLERANCE)


def test_novelty_is_the_percentile_among_the_kept_training_rows(run, tmp_path):
  table, step = columns(50, 1), steps_of(run)[0]
  table["density"][0] += 40
  _, found = call(run, "embed", tmp_path, table)
  kept = checkpoints.read(os.path.join(run, "checkpoints"), step)[1]["meta"]["kept_rows"]
  model = Forward(run, step)
  reference, variance = model.surprise(np.array(kept))
  own = model.surprise(model.scale(features_of(table)), variance)[0]
  want = [100 * (reference < one).mean() for one in own]
  np.testing.assert_allclose(found["novelty"], want, atol=150 / len(kept))  # a row or so in 32 bits
  assert found["novelty"][0] == 100 and found["novelty"].min() < 30
  _, more = call(run, "classify", tmp_path, found)  # one verb takes what the other gave
  assert list(more)[:len(found)] == list(found)
  np.testing.assert_array_equal(more["classify_novelty"], found["novelty"])


def test_reconstructions_are_in_raw_units(run, tmp_path):
  table = columns(50, 1)
  _, found = call(run, "reconstruct", tmp_path, table)
  want = Forward(run, steps_of(run)[0]).reconstruct(features_of(table))
  for d, name in enumerate(FEATURES):
    np.testing.assert_allclose(found[f"{name}_recon"], want[:, d], rtol=1e-4, atol=1e-3)
  assert list(found) == [*table, *(f"{name}_recon" for name in FEATURES)]


def test_classes_by_name_with_their_probabilities(run, tmp_path):
  table = columns(50, 1)
  _, found = call(run, "classify", tmp_path, table, checkpoint="last")
  want = Forward(run, steps_of(run)[1]).classify(features_of(table))
  assert list(found) == [*table, *(f"prob_{name}" for name in CLASSES), "pred_label", "pred_group", "pred_group_prob",
                         "novelty"]
  np.testing.assert_allclose(np.column_stack([found[f"prob_{name}"] for name in CLASSES]), want, **TOLERANCE)
  assert found["pred_label"].tolist() == [CLASSES[k] for k in want.argmax(axis=1)]
  assert len(set(found["pred_label"])) > 1
  groups = {"clay": "Clay/Mud", "nannofossil ooze": "Carbonate", "sand": "Sand"}  # each of one class
  assert found["pred_group"].tolist() == [groups[name] for name in found["pred_label"]]
  np.testing.assert_allclose(found["pred_group_prob"], want.max(axis=1), **TOLERANCE)


def with_gaps(num_rows=40):
  table = columns(num_rows, 2)
  table["density"][3], table["redness"][[3, 9]], table["depth [m]"][[20, 21]] = np.nan, np.nan, np.nan
  return table, np.isnan(features_of(table))


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["embed", "reconstruct", "classify"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz", ".h5"])
def test_rows_with_missing_features_are_empty_and_counted(verb, suffix, run, tmp_path, capsys):
  table, gaps = with_gaps()
  _, whole = call(run, verb, tmp_path, {name: column[~gaps.any(axis=1)] for name, column in table.items()}, suffix)
  summary, found = call(run, verb, tmp_path, table, suffix)
  assert (summary["rows"], summary["rows_incomplete"]) == (40, 4)
  assert "40 rows, 4 of them without a result (missing features)" in capsys.readouterr().out
  for name in set(found) - set(table):
    assert [cells.is_missing(cell) for cell in found[name]] == gaps.any(axis=1).tolist(), name
    assert found[name][~gaps.any(axis=1)].tolist() == whole[name].tolist()


def test_a_file_without_a_complete_row_has_no_results(run, tmp_path):
  table = columns(3, 2) | {"density": np.full(3, np.nan)}
  summary, found = call(run, "classify", tmp_path, table)
  assert summary["rows_incomplete"] == 3 and np.isnan(found["prob_clay"]).all() and set(found["pred_label"]) == {""}


@pytest.mark.parametrize("is_averaged", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_imputing_fills_gaps_and_leaves_the_rest_to_the_bit(is_averaged, tmp_path, request):
  workdir = request.getfixturevalue("averaged" if is_averaged else "run")
  table, gaps = with_gaps()
  summary, found = call(workdir, "impute", tmp_path, table)
  x, got = features_of(table), features_of(found)
  np.testing.assert_array_equal(got[~gaps].view(np.uint64), x[~gaps].view(np.uint64))
  forward = Forward(workdir, steps_of(workdir)[0], "ema" if is_averaged else "params")
  want = forward.impute(x, vae_predict.NUM_IMPUTE if is_averaged else 1)
  np.testing.assert_allclose(got[gaps], want[gaps], rtol=1e-3)
  assert found["num_imputed"].tolist() == gaps.sum(axis=1).tolist() and summary["rows_incomplete"] == 0
  ends = {"log1p": ("sd", "mean", "low", "high"), "signed_log1p": ("sd", "mean", "low", "high")}
  spread = [f"{name}_{end}" for d, name in enumerate(FEATURES) if gaps[:, d].any()
            for end in ends.get(forward.scaler["transforms"][d], ("sd",))]
  assert list(found) == [*table, "num_imputed", "imputed", *spread] and found["note"].tolist() == table["note"].tolist()
  assert found["imputed"].tolist() == [";".join(np.asarray(FEATURES)[row]) for row in gaps]
  for d, name in enumerate(FEATURES):
    if gaps[:, d].any():
      assert ((found[f"{name}_sd"] > 0) == gaps[:, d]).all()


def test_samples_are_means_for_draws_of_the_prior(run, tmp_path):
  summary, found = call(run, "sample", tmp_path, num=200)
  [line] = trained.restore(run, "best").experiment.predict["sample"].say(None, found)
  assert "without the noise" in line and "vary less" in line
  assert summary["rows"] == 200 and list(found) == list(FEATURES)
  noise = np.asarray(jax.random.normal(rng.stream_key(rng.root_key(SEED), "report"), (200, LATENT)), np.float64)
  forward = Forward(run, steps_of(run)[0])
  np.testing.assert_allclose(features_of(found), forward.unscale(forward.decode(noise)), rtol=1e-3, atol=1e-3)
  _, again = call(run, "sample", tmp_path, num=200)
  _, other = call(run, "sample", tmp_path, num=200, seed=8)
  assert np.array_equal(features_of(again), features_of(found))
  assert not np.allclose(features_of(other), features_of(found))


@pytest.mark.slow
def test_the_average_of_the_parameters_is_what_predicts(averaged, tmp_path):
  table, step = columns(50, 1), steps_of(averaged)[1]
  _, found = call(averaged, "embed", tmp_path, table, checkpoint="last")
  got = np.column_stack([found[f"emb_{k}"] for k in range(LATENT)])
  np.testing.assert_allclose(got, Forward(averaged, step, "ema").embed(features_of(table)), **TOLERANCE)
  assert not np.allclose(got, Forward(averaged, step).embed(features_of(table)), rtol=1e-2, atol=1e-2)


def write_database(path, table):
  database = sqlite3.connect(path)
  database.execute(f"create table t ({', '.join(f'[{name}]' if ']' not in name else repr(name) for name in table)})")
  database.executemany(f"insert into t values ({', '.join('?' * len(table))})",
                       list(zip(*(column.tolist() for column in table.values()))))
  database.commit()
  database.close()


@pytest.mark.parametrize("source, target", [(".csv", ".h5"), (".parquet", ".csv"), (".npz", ".parquet"),
                                            (".h5", ".npz"), (".db", ".parquet"), (".csv", ".csv")])
def test_every_format_gives_the_same_and_carries_all_columns(source, target, run, tmp_path):
  table = columns(30, 3)
  given, written = str(tmp_path / f"given{source}"), str(tmp_path / f"made{target}")
  write_database(given, table) if source == ".db" else writing.write(given, table)
  predict.run([f"--workdir={run}", "--verb=embed", f"--input={given}", f"--output={written}"])
  found = files.read(files.kind_of(written), written).values
  got = np.column_stack([[float(cell) for cell in found[f"emb_{k}"]] for k in range(LATENT)])
  np.testing.assert_allclose(got, Forward(run, steps_of(run)[0]).embed(features_of(table)), **TOLERANCE)
  assert found["note"].tolist() == table["note"].tolist()
  for name in FEATURES:
    assert [float(cell) for cell in found[name]] == table[name].tolist()


def test_many_blocks_are_one_result(run, tmp_path, monkeypatch):
  table = columns(50, 1)
  _, whole = call(run, "embed", tmp_path, table)
  monkeypatch.setattr(blocks, "BLOCK", 16)  # 16, 16, 16 and 2
  _, parts = call(run, "embed", tmp_path, table)
  np.testing.assert_allclose(parts["emb_1"], whole["emb_1"], rtol=1e-5, atol=1e-6)


def test_the_summary_as_json(run, tmp_path, capsys):
  writing.write(str(tmp_path / "in.csv"), columns(5, 1))
  capsys.readouterr()
  summary = predict.run([f"--workdir={run}", "--verb=embed", f"--input={tmp_path / 'in.csv'}",
                         f"--output={tmp_path / 'out.csv'}", "--json"])
  said = capsys.readouterr()
  assert json.loads(said.out) == summary and len(said.out.splitlines()) == 1 and said.err == ""
  assert summary.pop("compute_seconds") > 0
  worth = summary.pop("quality")
  assert worth["monitor"] == "val_loss" and worth["step"] == steps_of(run)[0]
  assert worth["warnings"] and all("of the test part" in words for words in worth["warnings"])  # four epochs are few
  step = steps_of(run)[0]
  record = records.read_record(f"{run}/checkpoints", step)
  assert summary == {"workdir": run, "step": step, "epoch": record["epoch"], "digest": f"sha256:{record['digest']}",
                     "verb": "embed", "options": {}, "rows": 5, "rows_incomplete": 0,
                     "output": str(tmp_path / "out.csv"), "replaced": False, "lost": []}
  with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
    assert next(csv.reader(file)) == [*columns(1), "emb_0", "emb_1", "emb_2", "novelty"]


def complaint(argv, monkeypatch, capsys):
  """The one line on stderr of the command with exit code 2."""
  monkeypatch.setattr("sys.argv", ["predict", *argv])
  capsys.readouterr()
  assert predict.main() == 2
  said = capsys.readouterr()
  assert said.out == "" and len(said.err.splitlines()) == 1 and said.err.startswith("jaxtrain: ")
  return said.err


def test_a_foreign_experiment_is_refused_unless_named(tmp_path, monkeypatch, capsys):
  workdir = str(tmp_path / "run")
  loop.train(outside.get_config("table"), workdir)
  argv = [f"--workdir={workdir}", "--verb=embed", f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv"]
  refused = complaint(argv, monkeypatch, capsys)
  assert "was trained by 'outside', which is not part of jaxtrain; --experiment=outside runs its code" in refused
  assert refused == complaint([*argv, "--experiment=other"], monkeypatch, capsys)
  assert "--verb: got 'embed', allowed nothing for this run of outside" in complaint([*argv, "--experiment=outside"],
                                                                                    monkeypatch, capsys)


def test_a_count_that_the_input_has_already_is_not_overwritten(run, tmp_path, monkeypatch, capsys):
  writing.write(str(tmp_path / "in.npz"), columns(5, 1) | {"num_imputed": np.arange(5)})
  argv = [f"--workdir={run}", "--verb=impute", f"--input={tmp_path}/in.npz", f"--output={tmp_path}/out.npz"]
  assert "in.npz already has a column 'num_imputed'; rename it" in complaint(argv, monkeypatch, capsys)


def test_rows_that_are_lost_fail_the_command_and_the_rest_replaces_an_earlier_file(run, tmp_path, monkeypatch, capsys):
  pick, there, out = verbs.pick, f"{tmp_path}/in.csv", f"{tmp_path}/out.csv"
  argv = [f"--workdir={run}", "--verb=embed", f"--input={there}", f"--output={out}"]
  writing.write(there, columns(5, 1))
  assert predict.run(argv)["replaced"] is False
  monkeypatch.setattr(verbs, "pick", lambda *given: pick(*given)._replace(lost=lambda columns: ["block 1 is lost"] * 2))
  monkeypatch.setattr("sys.argv", ["predict", *argv])
  capsys.readouterr()
  assert predict.main() == errors.FAILED
  said = capsys.readouterr()
  assert said.err == f"jaxtrain: {there}: block 1 is lost, and 1 more; the others are in {out}\n"
  assert said.out.splitlines()[-1].endswith("out.csv, which replaces an earlier file")
  assert len(files.read("csv", out).values["emb_0"]) == 5


@pytest.mark.parametrize("verb", ["embed", "reconstruct", "classify", "impute", "sample"])
def test_an_exported_verb_gives_what_the_command_gives(verb, run, tmp_path):
  pytest.importorskip("flatbuffers")
  path = str(tmp_path / "verb.stablehlo")
  summary = predict.run([f"--workdir={run}", f"--verb={verb}", f"--export={path}", "--checkpoint=last"])
  with open(path, "rb") as file:
    loaded = jax_export.deserialize(bytearray(file.read()))
  assert loaded.platforms == ("cpu", "cuda", "tpu") and summary["bytes"] == os.path.getsize(path)
  for num_rows in (1, 33):
    table, _ = with_gaps() if verb == "impute" else (columns(40, 1), None)
    table = {name: column[:num_rows] for name, column in table.items()}
    if verb == "sample":
      given = np.asarray(jax.random.normal(rng.stream_key(rng.root_key(SEED), "report"), (num_rows, LATENT)))
      _, found = call(run, verb, tmp_path, checkpoint="last", num=num_rows)
    else:
      given = features_of(table).astype(np.float32)
      _, found = call(run, verb, tmp_path, table, checkpoint="last")
    names = {"embed": [f"emb_{k}" for k in range(LATENT)], "reconstruct": [f"{name}_recon" for name in FEATURES],
             "classify": [f"prob_{name}" for name in CLASSES]}.get(verb, FEATURES)
    got = np.asarray(loaded.call(given))
    assert got.shape == (num_rows, len(names)) and got.dtype == np.float32
    np.testing.assert_allclose(got, np.column_stack([found[name] for name in names]), rtol=1e-3, atol=1e-3)


def test_the_first_lines_say_how_good_the_model_is(run, tmp_path, capsys):
  capsys.readouterr()
  call(run, "sample", tmp_path, num=3)
  best, results, *warnings, done, _ = capsys.readouterr().out.splitlines()
  with open(f"{run}/history.json", encoding="utf-8") as file:
    values = json.load(file)["val_loss"]
  epoch = values.index(min(values)) + 1
  assert best == f"jaxtrain: best val_loss {min(values):.6g} at step {steps_of(run)[0]}, epoch {epoch}"
  with open(f"{run}/eval/test.json", encoding="utf-8") as file:
    accuracy = json.load(file)["scalars"]["accuracy"]
  assert results.startswith(f"jaxtrain: on the held-out test part of its own data: accuracy {accuracy:.4g} (")
  assert warnings and all(line.startswith("jaxtrain: warning: ") for line in warnings)  # four epochs are few
  assert done.startswith("jaxtrain: sample, state of step ")
