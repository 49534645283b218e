"""End-of-run evaluation against NumPy and scikit-learn."""

import json

import jax
import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.decomposition import PCA

from jaxtrain.data import arrays, scaling
from jaxtrain.experiments.tabular_vae import evaluate, grouped, nets
from jaxtrain.types import Splits, TrainState


def test_errors_per_column():
  random = np.random.RandomState(0)
  x = random.normal(size=(50, 3)) * [1, 10, 0.1] + [0, 100, -5]
  x_mean = x + random.normal(size=(50, 3)) * [0.5, 20, 0.01]
  got = evaluate.errors(x, x_mean, ["a", "b", "c"], "raw")
  assert len(got) == 12
  for d, name in enumerate("abc"):
    assert got[f"r2_raw/{name}"] == pytest.approx(sk.r2_score(x[:, d], x_mean[:, d]), rel=1e-12)
    assert got[f"rmse_raw/{name}"] == pytest.approx(np.sqrt(sk.mean_squared_error(x[:, d], x_mean[:, d])), rel=1e-12)
    assert got[f"mae_raw/{name}"] == pytest.approx(sk.mean_absolute_error(x[:, d], x_mean[:, d]), rel=1e-12)
    assert got[f"r2_raw_ci95/{name}"] == pytest.approx(evaluate.mean_r2(x[:, [d]], x_mean[:, [d]])["r2_mean_ci95"])
  assert got["r2_raw/b"] < 0  # worse than the mean


def test_perfect_mean_and_constant_columns():
  x = np.stack([np.arange(10.0), np.arange(10.0), np.full(10, 3.0)], axis=1)
  x_mean = np.stack([np.arange(10.0), np.full(10, 4.5), np.full(10, 4.0)], axis=1)
  got = evaluate.errors(x, x_mean, ["same", "mean", "constant"], "scaled")
  assert got["r2_scaled/same"] == 1.0 and got["rmse_scaled/same"] == 0.0
  assert got["r2_scaled/mean"] == pytest.approx(0, abs=1e-12)
  assert np.isnan(got["r2_scaled/constant"]) and got["mae_scaled/constant"] == 1.0
  assert got["r2_scaled_ci95/same"] == 0 and "r2_scaled_ci95/constant" not in got


def test_errors_of_float32_are_added_in_float64():
  x = (1e4 + np.arange(100_000) % 7).astype(np.float32)[:, None]
  got = evaluate.errors(x, x + np.float32(0.5), ["a"], "raw")
  assert got["rmse_raw/a"] == pytest.approx(0.5, rel=1e-9)
  assert got["r2_raw/a"] == pytest.approx(1 - 0.25 / x.astype(np.float64).var(), rel=1e-9)


def test_use_of_the_latent_space():
  """Three dimensions: one in use, one collapsed, one whose mean varies less than 0.1 but whose variance carries KL."""
  random = np.random.RandomState(1)
  sd = np.array([1.5, 0.001, 0.05])
  mean = (random.normal(size=(4000, 3)) * sd).astype(np.float32)
  log_var = np.tile(np.array([-2.0, 0.0, -1.0], np.float32), (4000, 1))
  scalars, kl_nats = evaluate.latent_use(mean, log_var)
  want = 0.5 * ((mean.astype(np.float64) ** 2).mean(axis=0) + np.exp([-2.0, 0.0, -1.0]) - 1 - [-2.0, 0.0, -1.0])
  np.testing.assert_allclose(kl_nats, want, rtol=1e-6, atol=1e-9)
  assert scalars == {"active_dims_sd": 1, "active_dims_kl": 2, "kl_nats": pytest.approx(want.sum(), rel=1e-6)}
  assert json.dumps(scalars)


def test_principal_components_are_scikit_learns():
  random = np.random.RandomState(2)
  mean = (random.normal(size=(200, 5)) @ random.normal(size=(5, 5)) + 3).astype(np.float32)
  components, share = evaluate.principal_components(mean)
  pca = PCA(2, svd_solver="full")
  want = pca.fit_transform(mean.astype(np.float64))
  signs = np.sign((components * want).sum(axis=0))
  np.testing.assert_allclose(components * signs, want, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(share, pca.explained_variance_ratio_, rtol=1e-5)


def test_a_single_latent_dimension_is_its_own_component():
  components, share = evaluate.principal_components(np.arange(10, dtype=np.float32)[:, None])
  np.testing.assert_allclose(np.abs(components[:, 0]), np.abs(np.arange(10) - 4.5), rtol=1e-6)
  assert share[0] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def trained():
  """A small model, its state as the loop would hand it over, and the meta of a table."""
  model = nets.VAE(num_features=3, num_classes=4, latent_dim=2, hidden_dims=(5,), batch_norm=True, head_dim=4,
                   precision="float32")
  random = np.random.RandomState(4)
  example = np.zeros((2, 3), np.float32), np.ones(2), np.zeros((2, 2))
  shapes = jax.eval_shape(lambda key: model.init(key, *example), jax.random.key(0))
  variables = jax.tree.map(lambda leaf: random.uniform(0.1, 1, leaf.shape).astype(np.float32), shapes)
  raw = np.exp(random.normal(size=(23, 3)))
  scaler = scaling.fit(raw, ("log1p", "standardise", "signed_log1p"), ("a", "b", "c"))
  meta = {"features": ["a", "b", "c"], "class_names": ["p", "q", "r", "s"], "scaler": scaler}
  model_state = {"batch_stats": variables["batch_stats"]}
  state = TrainState(step=None, key=None, params=variables["params"], model_state=model_state, opt_state=None, ema=None,
                     guard=None)
  return model, state, meta, raw


def test_rows_are_applied_in_blocks_without_changing_a_row(trained, monkeypatch):
  model, state, meta, raw = trained
  x = scaling.scale(meta["scaler"], raw)
  whole = evaluate.apply_model(model, state, x)
  monkeypatch.setattr(evaluate.blocks, "BLOCK", 10)  # 10, 10 and 3
  for name, value in evaluate.apply_model(model, state, x).items():
    assert value.shape[0] == 23
    np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(np.exp(whole["log_prob"]).sum(axis=1), 1, rtol=1e-5)


def test_assess_reports_every_part_in_raw_and_scaled_units(trained):
  model, state, meta, raw = trained
  x, label = scaling.scale(meta["scaler"], raw), np.arange(23, dtype=np.int32) % 5 - 1
  source = lambda rows: arrays.table_source({"x": x[rows], "label": label[rows]}, 8, False)
  made = Splits(source(slice(0, 15)), None, source(slice(15, 23)), meta)
  assess = evaluate.make_assess(model, meta)
  assert set(assess) == {"train", "val", "test"}
  got = {name: assess[name](state, made, jax.random.key(1)) for name in ("train", "test")}
  for name, rows in (("train", slice(0, 15)), ("test", slice(15, 23))):
    scalars, found = got[name]
    out = evaluate.apply_model(model, state, x[rows])
    back = scaling.unscale(meta["scaler"], out["x_mean"])
    assert scalars["rows"] == len(x[rows])
    assert scalars["rmse_raw/a"] == pytest.approx(np.sqrt(((back - raw[rows]) ** 2).mean(axis=0)[0]), rel=1e-5)
    assert scalars["mae_scaled/b"] == pytest.approx(np.abs(out["x_mean"] - x[rows]).mean(axis=0)[1], rel=1e-5)
    labelled = label[rows] >= 0
    assert scalars["accuracy"] == pytest.approx((out["log_prob"].argmax(axis=1) == label[rows])[labelled].mean())
    np.testing.assert_array_equal(found["class_count"], np.bincount(label[rows][labelled], minlength=4))
    assert found["predicted_count"].sum() == (label[rows] >= 0).sum()
    np.testing.assert_allclose(found["sample_x"], raw[rows], rtol=1e-5)  # fewer than a sample: all of them, in order
    np.testing.assert_array_equal(found["sample_label"], label[rows])
    assert found["sample_components"].shape == (len(x[rows]), 2)
    assert {"auc_macro", "ece", "f1_macro"} <= scalars.keys() and "sample_umap" not in found
    np.testing.assert_array_equal(found["class_count_all"], np.bincount(label[label >= 0], minlength=4))
    sums = {part: found[f"hist_{part}"].sum(axis=1).tolist() for part in ("train", "test", "generated")}
    assert sums == {"train": [15] * 3, "test": [8] * 3, "generated": [evaluate.PRIOR_ROWS] * 3}


def test_prior_samples_are_decoded_and_counted_in_raw_bins_of_the_first_part(trained):
  model, state, meta, raw = trained
  x = scaling.scale(meta["scaler"], raw)
  source = arrays.table_source({"x": x, "label": np.full(23, -1, np.int32)}, 8, False)
  assess, splits = evaluate.make_assess(model, meta), Splits(source, None, None, meta)
  found = assess["train"](state, splits, jax.random.key(1))[1]
  prior = evaluate.sample_prior(model, state, jax.random.key(1))
  assert prior.shape == (1000, 3)
  np.testing.assert_array_equal(prior, evaluate.sample_prior(model, state, jax.random.key(1)))
  assert not np.array_equal(prior, evaluate.sample_prior(model, state, jax.random.key(2)))
  made = scaling.unscale(meta["scaler"], prior)
  for d, edges in enumerate(found["hist_edges"]):
    inside = np.histogram(made[:, d], edges)[0]
    np.testing.assert_allclose(found["hist_generated"][d, 1:-1], inside, atol=2)  # a value on an edge may round
    assert edges[0] <= np.quantile(raw[:, d], 0.01) and edges[-1] >= np.quantile(raw[:, d], 0.99)


def test_umap_is_of_the_part_that_figures_show(trained, monkeypatch):
  model, state, meta, raw = trained
  x = scaling.scale(meta["scaler"], raw)
  monkeypatch.setattr(evaluate.scores, "umap_map", lambda mean: 2 * mean)
  source = arrays.table_source({"x": x, "label": np.zeros(23, np.int32)}, 8, False)
  assess, made = evaluate.make_assess(model, meta, with_umap=True), Splits(source, source, None, meta)
  got = {name: assess[name](state, made, jax.random.key(1)) for name in ("train", "val")}
  assert "sample_umap" not in got["train"][1]
  np.testing.assert_array_equal(got["val"][1]["sample_umap"], 2 * got["val"][1]["sample_latent_mean"])


def test_rows_of_groups_largest_first(monkeypatch):
  group = np.repeat([3, 0, 2], [2, 5, 4])
  assert evaluate.count_groups(group) == {"names": ["0", "2", "3"], "rows": [5, 4, 2]}
  assert evaluate.count_groups(group, ("a", "b", "c", "d")) == {"names": ["a", "c", "d"], "rows": [5, 4, 2]}
  monkeypatch.setattr(evaluate, "MAX_GROUPS", 2)
  assert evaluate.count_groups(np.array(["x", "yy", "yy"])) == {"names": ["yy", "x"], "rows": [2, 1]}


def test_the_moving_average_is_what_is_assessed(trained):
  model, state, meta, raw = trained
  x, other = scaling.scale(meta["scaler"], raw), jax.tree.map(lambda leaf: 0.5 * leaf, state.params)
  averaged, replaced = state.replace(ema=other), state.replace(params=other)
  mean = lambda of: evaluate.apply_model(model, of, x)["mean"]
  np.testing.assert_array_equal(mean(averaged), mean(replaced))
  assert not np.array_equal(mean(averaged), mean(state))


def test_the_mean_r2_leaves_out_constant_features_and_has_the_width_of_a_bootstrap():
  random = np.random.default_rng(0)
  x = np.column_stack([random.normal(size=400), random.exponential(size=400), np.full(400, 3.0)])
  x_mean = x + random.normal(size=x.shape) * [0.5, 0.3, 0.1]
  found = evaluate.mean_r2(x, x_mean)
  each = lambda x, y: np.mean(1 - ((x - y) ** 2).mean(0)[:2] / x.var(0)[:2])
  assert found["r2_mean"] == pytest.approx(each(x, x_mean))
  again = (random.integers(0, 400, 400) for _ in range(2000))
  spread = np.std([each(x[rows], x_mean[rows]) for rows in again])
  assert found["r2_mean_ci95"] == pytest.approx(1.966 * spread, rel=0.1)
  assert evaluate.mean_r2(x[:, 2:], x_mean[:, 2:]) == {}


def test_the_mean_r2_of_rows_with_holes_is_that_of_the_cells_that_are_there():
  random = np.random.default_rng(0)
  x = random.normal(size=(400, 2)) * [1.0, 3.0]
  x_mean = x + random.normal(size=x.shape) * [0.5, 2.0]
  x[random.random(x.shape) < [0.1, 0.5]] = np.nan
  each = lambda x, y: np.mean(1 - np.nanmean((x - y) ** 2, axis=0) / np.nanvar(x, axis=0))
  found, of_columns = evaluate.mean_r2(x, x_mean), evaluate.errors(x, x_mean, ["a", "b"], "raw")
  assert found["r2_mean"] == pytest.approx(each(x, x_mean))
  assert found["r2_mean"] == pytest.approx((of_columns["r2_raw/a"] + of_columns["r2_raw/b"]) / 2)
  again = (random.integers(0, 400, 400) for _ in range(2000))
  spread = np.std([each(x[rows], x_mean[rows]) for rows in again])
  assert found["r2_mean_ci95"] == pytest.approx(1.966 * spread, rel=0.1)


def test_a_column_of_which_two_rows_differ_has_no_r2_and_is_in_no_mean():
  random = np.random.default_rng(0)
  x = np.column_stack([random.normal(size=400), np.where(np.arange(400) % 200, 5.0, 5.01)])
  x_mean = x + 0.1 * random.normal(size=x.shape)
  found = evaluate.errors(x, x_mean, ["a", "offset"], "raw")
  assert np.isnan(found["r2_raw/offset"]) and found["rmse_raw/offset"] > 0 and "r2_raw_ci95/offset" not in found
  assert evaluate.mean_r2(x, x_mean)["r2_mean"] == pytest.approx(found["r2_raw/a"])
  groups = grouped.of_rows({"group": np.arange(400) // 40}, 400)
  totals = grouped.r2_totals(groups, x, x_mean).sum(axis=0, keepdims=True)
  assert grouped.mean_r2(totals)[0] == pytest.approx(found["r2_raw/a"])


def test_intervals_of_held_out_rows_resample_their_groups(trained):
  """Rows that stand twelve times in one group have the intervals of those that stand four times."""
  model, state, meta, raw = trained
  x, label = scaling.scale(meta["scaler"], raw), np.arange(23, dtype=np.int32) % 4
  def assessed(times, by_group=True):
    rows = {"x": np.repeat(x, times, axis=0), "label": np.repeat(label, times)}
    rows["group"] = np.repeat(np.arange(23), times)
    return evaluate.assess_part(model, meta, state, rows, jax.random.key(1), False, by_group)[0]
  four, twelve = assessed(4), assessed(12)
  assert four["groups"] == 23
  for name in ("accuracy", "f1_macro", "nll_nats", "ece", "auc_macro", "r2_mean"):
    assert twelve[f"{name}_ci95"] == pytest.approx(four[f"{name}_ci95"], rel=1e-5) and four[f"{name}_ci95"] > 0, name
  assert twelve["r2_raw_ci95/a"] == pytest.approx(four["r2_raw_ci95/a"], rel=1e-5)
  plain = assessed(4, by_group=False)
  assert plain["groups"] == 23 and plain["accuracy_ci95"] < four["accuracy_ci95"]


@pytest.mark.parametrize("num_groups", [3, 5])
def test_intervals_of_groups_are_no_shorter_than_of_independent_rows(num_groups, trained):
  """Groups that are alike would have intervals of next to nothing; of too few those of rows stay."""
  model, state, meta, raw = trained
  x, label = scaling.scale(meta["scaler"], raw), np.arange(23, dtype=np.int32) % 4
  rows = {"x": np.tile(x, (num_groups, 1)), "label": np.tile(label, num_groups)}
  alone = evaluate.assess_part(model, meta, state, rows, jax.random.key(1), False, True)[0]
  rows["group"] = np.repeat(np.arange(num_groups), 23)
  found = evaluate.assess_part(model, meta, state, rows, jax.random.key(1), False, True)[0]
  assert found["groups"] == num_groups
  for name in (name for name in alone if "_ci95" in name):
    assert found[name] == pytest.approx(alone[name], rel=1e-9), name
  if num_groups == 5:  # neither has a formula: rows are resampled one by one
    n, right = len(rows["label"]), 1 / 4  # this model predicts a single class
    assert 0 < found["f1_macro_ci95"] and found["ece_ci95"] == pytest.approx(
        1.96 * (right * (1 - right) / n) ** 0.5, rel=0.4)
