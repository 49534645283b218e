"""A table of numbers, whole numbers and categories, from file to file: terms of the loss, and each verb's types."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import runs
from jaxtrain import config as config_lib, loop, predict
from jaxtrain.data import files, writing
from jaxtrain.experiments.tabular_vae import likelihoods, novelty, objective, predict as predict_verbs, samples, survey
from jaxtrain.experiments.tabular_vae import vae
from jaxtrain.run import trained

NAMES = ("size", "kind", "count", "code", "rain")
FIELDS = {"data.source": "csv", "data.features": NAMES, "data.categorical": ("kind", "code"),
          "data.integer": ("count",), "data.spikes": ("rain",), "data.transforms": ("rain=log1p", "count=log1p"),
          "data.incomplete": "mask", "loss.mask_rate": 0.1, "loss.reduction": "mean", "data.label": "grade",
          "model.kind": "semisup", "model.hidden_dims": (8,), "model.latent_dim": 2,
          "model.head_dim": 4, "train.batch_size": 32, "train.num_epochs": 2, "log.figures": "none",
          "log.progress": False, "optim.learning_rate": 0.01,
          # What says nothing of kinds is left out, since each program costs its tracing: held-out parts and a plateau.
          "data.split.kind": "none", "train.monitor": "train_loss", "optim.plateau.factor": 0.0, "optim.clip_norm": 0.0}


def table(num_rows: int = 160) -> dict[str, np.ndarray]:
  """Columns that go together; some cells are missing."""
  random = np.random.default_rng(0)
  kind = random.integers(3, size=num_rows)
  made = {"note": np.arange(num_rows), "size": (kind + random.normal(size=num_rows)).round(3).astype(object),
          "kind": np.array(["red", "green, light", "blue"], object)[kind], "count": random.poisson(1 + kind),
          "code": np.array([7, 12], int)[(kind + random.integers(2, size=num_rows)) % 2],
          "rain": np.where(random.random(num_rows) < 0.5, 0.0, random.gamma(2, 3 + kind, num_rows)).round(2),
          "grade": np.array(["low", "high"], object)[(kind > 0).astype(int)]}
  made["size"][::9] = None
  made["kind"][1::11] = None
  return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A trained run in `run`, and its table in `t.csv`."""
  path = tmp_path_factory.mktemp("mixed")
  writing.write(str(path / "t.csv"), table())
  config = config_lib.read_file("configs/vae.py:mixed")
  for key, value in (FIELDS | {"data.path": str(path / "t.csv")}).items():
    config_lib.assign(config, key, value)
  result = loop.train(config, str(path / "run"))
  assert np.isfinite(result.history["loss"]).all()
  assert {"recon", "integer", "categorical", "masked", "class"} <= result.history.keys()
  with runs.restored_once():
    yield path


def apply(folder, verb: str, output: str, *flags: str) -> dict[str, np.ndarray]:
  predict.run([f"--workdir={folder / 'run'}", f"--verb={verb}", f"--output={folder / output}", *flags])
  return files.read(files.kind_of(output), str(folder / output)).values


@pytest.mark.parametrize("suffix", ["csv", pytest.param("parquet", marks=pytest.mark.slow)])
def test_sampled_rows_have_the_columns_and_types_of_the_table(folder, suffix):
  made = apply(folder, "sample", f"made.{suffix}", "--num=300")
  assert tuple(made) == NAMES
  assert set(made["kind"]) <= {"red", "green, light", "blue"}
  counts, codes = ([int(cell) for cell in made[name]] for name in ("count", "code"))  # text in CSV: no 3.0 among them
  assert min(counts) >= 0 and max(counts) <= table()["count"].max() and set(codes) == {7, 12}
  rain = np.asarray([float(cell) for cell in made["rain"]])
  assert 0.1 < (rain == 0).mean() < 0.9


def test_results_name_categories_and_new_ones_count_as_missing(folder, capsys):
  given = {name: column.astype(object) for name, column in table().items()}
  given["kind"][2], given["kind"][3] = "mauve", "red"
  given["count"][4] = given["code"][5] = None
  writing.write(str(folder / "in.csv"), given)
  found = apply(folder, "reconstruct", "back.csv", f"--input={folder / 'in.csv'}")
  assert "column 'kind': 1 cells count as missing" in capsys.readouterr().out
  assert set(found["kind_recon"]) <= {"red", "green, light", "blue"} and set(found["code_recon"]) <= {"7", "12"}
  assert all(cell.isdigit() for cell in found["count_recon"]) and "size_recon" in found
  filled = apply(folder, "impute", "filled.csv", f"--input={folder / 'in.csv'}")
  assert filled["kind"][3] == "red" and filled["kind"][2] in ("red", "green, light", "blue")
  assert filled["imputed"][2] == "kind" and filled["imputed"][4] == "count" and filled["count"][4].isdigit()
  prob = filled["kind_prob"].astype(float)
  assert prob[3] == 1 and 0 < prob[2] < 1 and (prob[2] > 1 / 3 - 1e-6)
  assert not any(apply(folder, "embed", "e.csv", f"--input={folder / 'in.csv'}")["emb_0"] == "")
  classified = apply(folder, "classify", "c.csv", f"--input={folder / 'in.csv'}")
  assert set(classified["pred_label"]) <= {"low", "high"}
  novel = classified["novelty"].astype(float)
  assert ((novel >= 0) & (novel <= 100)).all() and len(set(novel)) > 3


def test_what_is_exported_takes_codes_and_gives_what_the_verb_gives(folder):
  run = trained.restore(str(folder / "run"), "best")
  verb, known = run.experiment.predict["embed"], vae.load(run.config).meta["kinds"]["categories"]
  given = files.read("csv", str(folder / "t.csv"))
  found = verb.run(run.state, given, 0, jax.random.key(0))
  raw = np.stack([np.asarray([known[name].index(cell) if cell else np.nan for cell in given.values[name]])
                  if name in known else given.numbers(name) for name in NAMES], axis=1)
  function, width = verb.pure(run.state)
  want = np.stack([found["emb_0"], found["emb_1"]], axis=1)
  np.testing.assert_allclose(function(jnp.asarray(raw, jnp.float32)), want, rtol=1e-4, atol=1e-5)
  assert width == len(NAMES)


def test_the_terms_of_all_kinds_add_up_to_a_mean_over_entries(folder):
  """In the mean reduction each term is divided by the entries of all columns; masked entries count where they are."""
  run = trained.restore(str(folder / "run"), "best")
  splits = vae.load(run.config)
  model = vae.make_model(run.config, splits.meta)
  o = objective.Objective(model, run.config.loss, 1, 0.0, {}, {})
  batch = {name: jnp.asarray(column[:20]) for name, column in splits.train.rows(np.arange(20)).items()}
  batch |= {"weight": jnp.asarray([1.0] * 17 + [0.0] * 3), "mask": jnp.asarray(np.arange(100).reshape(20, 5) % 3 == 0,
                                                                                         jnp.float32)}

  @jax.jit  # one program in the place of one for each operation
  def of_batch(batch):
    out = model.apply({"params": run.state.params, **run.state.model_state}, batch["x"], batch["weight"])
    return (objective.term_sums(o, batch, out)[0], objective.term_counts(o, batch),
            likelihoods.nats(model.layout, batch["x"], out.given),
            novelty.parts(model, predict_verbs.variables_of(run.state), batch["x"]))
  (sums, counts, by_kind, surprise), nats = of_batch(batch), np.zeros((20, 5))
  for kind, lost in by_kind.items():
    nats[:, model.layout.places(kind)] = lost
  np.testing.assert_allclose(surprise[:17, :5], nats[:17], rtol=1e-5, atol=1e-5)
  there = np.asarray(batch["observed"], np.float64) * np.asarray(batch["weight"])[:, None]
  total = sum(float(sums[name]) / float(counts[name]) for name in ("recon", "integer", "categorical"))
  np.testing.assert_allclose(total, (there * nats).sum() / there.sum(), rtol=1e-5)
  hidden = there * np.asarray(batch["mask"])
  np.testing.assert_allclose(sums["masked"] / counts["masked"], (hidden * nats).sum() / hidden.sum(), rtol=1e-5)


@pytest.mark.slow
def test_parts_of_the_assessment_beside_methods_that_read_categories_as_columns(tmp_path):
  """A category that is the class itself is read off by methods of the raw features, which a code could not be."""
  columns = table(400)
  columns["grade"] = columns["kind"]
  writing.write(str(tmp_path / "t.csv"), columns)
  config = config_lib.read_file("configs/vae.py:mixed")
  parts = {"eval.parts": ("clusters", "probes", "imputation", "transfer"), "eval.clusters": (3,),
           "eval.transfer": ("note",), "data.path": str(tmp_path / "t.csv"), "data.split.kind": "random"}
  for key, value in (FIELDS | parts).items():
    config_lib.assign(config, key, value)
  loop.train(config, str(tmp_path / "run"))
  with open(tmp_path / "run" / "eval" / "test.json", encoding="utf-8") as file:
    scalars = json.load(file)["scalars"]
  assert scalars["probe_accuracy/raw_logistic"] == 1.0 and "transfer_r2/linear_raw/note" in scalars
  assert "imputation (the table has whole numbers" in scalars["parts_reason"] and "cluster_ari/raw_kmeans_k3" in scalars


def test_gaps_and_associations_are_their_definitions():
  """Against a count by hand, scipy's Kolmogorov-Smirnov distance, and known associations."""
  assert samples.marginal_gap(np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 1, 2]), 3) == pytest.approx(0.25)
  random = np.random.default_rng(0)
  a, b = random.normal(size=200), random.normal(0.5, 1, 300)
  assert samples.marginal_gap(a, b, 0) == pytest.approx(stats.ks_2samp(a, b).statistic)
  codes = np.tile([0.0, 1.0, 2.0], 40)
  assert samples.association(codes, codes, 3, 3) == pytest.approx(1) == samples.association(a, np.exp(a), 0, 0)
  assert samples.association(codes, np.repeat([0.0, 1.0], 60), 3, 2) == pytest.approx(0)
  assert samples.association(codes, stats.rankdata(codes) + 5, 3, 0) == pytest.approx(1)
  table = np.histogram2d(codes, np.roll(codes, 1) // 2, (3, 2))[0]
  assert samples.cramers_v(table) == pytest.approx(stats.contingency.association(table.astype(int)))


def test_scores_of_categories_leave_missing_cells_out():
  meta = {"features": ["k", "x"], "kinds": {"categories": {"k": ["a", "b"]}, "integer": {}, "spikes": {}}}
  seen = np.array([[1.0, 0], [2, 0], [np.nan, 0], [2, 0]])
  found = samples.category_scores(meta, seen, np.array([[1.0, 0], [1, 0], [1, 0], [2, 0]]))
  assert found == {"accuracy_of/k": pytest.approx(2 / 3), "majority_of/k": pytest.approx(2 / 3),
                   "categories_accuracy": pytest.approx(2 / 3)}
  assert samples.numbers(meta) == [1]


def test_the_assessment_says_nothing_of_the_variance_of_codes(folder):
  with open(folder / "run" / "eval" / "train.json", encoding="utf-8") as file:
    text = file.read()
  assert '"r2_raw/size"' in text and '"r2_raw/kind"' not in text and '"accuracy_of/kind"' in text
  assert '"marginal_gap_floor"' in text and '"association_gap"' in text


def test_the_survey_is_what_its_formulas_say():
  """Shares and means of 20,000 rows within 5 standard errors."""
  made = survey.columns(20_000, seed=3)
  share = np.mean(made["region"] == "city")
  assert abs(share - 0.40) < 5 * np.sqrt(0.24 / 20_000)
  assert abs(np.mean([cell is None for cell in made["sector"]]) - survey.MISSING) < 0.01
  assert set(made["owner"]) == {"yes", "no"} and (made["rooms"] == np.rint(made["rooms"])).all()
  assert (made["savings"] == 0).mean() > 0.2 and made["age"].min() >= 18
