"""The parts of the assessment on rows whose answers are known: clusters, probes, imputation, transfer."""

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn import neighbors

from jaxtrain import config as config_lib
from jaxtrain.config import fields
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import (assessment, clusters, grouped, held_out, imputation, label_errors, probes,
                                              transfer, vae)

FEATURES = ["a", "b", "c"]


def held(means: np.ndarray, x: np.ndarray, label: np.ndarray, **more) -> held_out.HeldOut:
  """Two thirds of the rows to fit on, a third in eight groups to score."""
  N = len(x)
  rows = lambda pick: held_out.Rows(x[pick], means[pick], label[pick],
                                    {name: column[pick] for name, column in more.items()}, np.ones(x[pick].shape, bool))
  cut = 2 * N // 3
  groups = grouped.of_rows({"group": np.arange(N - cut) % 8}, N - cut)
  return held_out.HeldOut(rows(slice(cut)), rows(slice(cut, N)), groups, None, FEATURES, ["p", "q", "r"])


@pytest.fixture(scope="module")
def apart():
  """Classes that the embedding tells apart (its second dimension is not in use) and that the features do not."""
  random = np.random.default_rng(0)
  label = random.integers(0, 3, 360).astype(np.int32)
  means = np.stack([3.0 * label + 0.1 * random.normal(size=360), 1e-4 * random.normal(size=360)], axis=1)
  return held(means.astype(np.float32), random.normal(size=(360, 3)).astype(np.float32), label,
              depth=means[:, 0] + 0.01 * random.normal(size=360), few=np.where(np.arange(360) < 250, 1.0, np.nan))


def test_scores_of_clusters_are_scikit_learns():
  random = np.random.default_rng(1)
  label, cluster = random.integers(0, 5, 400), random.integers(0, 3, 400)
  cluster[label == 1] = 2
  counts = np.zeros((1, 5, 3))
  np.add.at(counts[0], (label, cluster), 1)
  purity = sum(np.bincount(label[cluster == k]).max() for k in range(3)) / 400
  want = [sk.adjusted_rand_score(label, cluster), sk.normalized_mutual_info_score(label, cluster), purity]
  np.testing.assert_allclose(clusters.scores(counts)[0], want, rtol=1e-10)
  one = np.zeros((1, 5, 3))
  one[0, :, 0] = counts[0].sum(axis=1)  # a single cluster tells nothing
  np.testing.assert_allclose(clusters.scores(one)[0, :2], 0, atol=1e-12)


def test_clusters_of_an_embedding_that_holds_the_classes(apart):
  scalars, arrays = clusters.assess(apart, (3, 1000))
  for method in clusters.METHODS:
    assert scalars[f"cluster_ari/embedding_{method}_k3"] == pytest.approx(1.0)
    assert abs(scalars[f"cluster_ari/raw_{method}_k3"]) < 0.1
  assert scalars["cluster_ari_mean"] == pytest.approx(1.0) and scalars["cluster_ari_gain_low"] > 0.8
  assert scalars["cluster_silhouette/embedding_kmeans_k3"] > 0.9  # of the dimension in use alone
  assert np.isnan(arrays["cluster_scores"][:, :, 1]).all()  # more clusters than rows


def test_clusters_of_rows_without_labels_have_a_silhouette_alone(apart):
  bare = apart._replace(scored=apart.scored._replace(label=np.full(120, -1, np.int32)))
  scalars, _ = clusters.assess(bare, (3,))
  found = {name.split("/")[0] for name in scalars if np.isfinite(scalars[name])}
  assert found == {"cluster_rows", "cluster_silhouette"}


def test_probes_gain_from_an_embedding_that_holds_the_classes(apart, monkeypatch):
  monkeypatch.setattr(probes, "TREES", 3)
  log_prob = np.log(np.where(np.eye(3)[(apart.scored.label + 1) % 3] > 0, 0.8, 0.1))  # a classifier that is never right
  scalars, arrays = probes.assess(apart._replace(log_prob=log_prob))
  assert list(arrays["probe_names"])[0] == "classifier" and scalars["probe_accuracy/classifier"] == 0
  for kind in probes.PROBES:
    assert scalars[f"probe_accuracy/embedding_{kind}"] == 1.0
    assert scalars[f"gain_balanced_accuracy_low/embedding_{kind}-raw_{kind}"] > 0.3
  near = neighbors.KNeighborsClassifier(25).fit(apart.train.x, apart.train.label)
  assert scalars["probe_accuracy/raw_knn"] == pytest.approx(near.score(apart.scored.x, apart.scored.label))
  worst = max(scalars[f"probe_accuracy/raw_{kind}"] for kind in (*probes.PROBES, "forest"))
  assert scalars["gain_accuracy"] == pytest.approx(-worst) and scalars["gain_accuracy_high"] < 0


def test_probes_leave_out_rows_without_a_label(apart):
  label = apart.scored.label.copy()
  label[::2] = -1
  half = apart._replace(scored=apart.scored._replace(label=label))
  scalars, _ = probes.assess(half)
  assert scalars["probe_accuracy/embedding_knn"] == 1.0


def test_imputation_beside_simpler_ways(apart):
  """c = a - 2 b: linear least squares is exact, and the mean has an R2 of 0 but for the mean of other rows."""
  rows = lambda part: part._replace(x=np.stack([part.x[:, 0], part.x[:, 1], part.x[:, 0] - 2 * part.x[:, 1]], axis=1))
  some = apart._replace(train=rows(apart.train), scored=rows(apart.scored))
  zeros = lambda holes: np.nan_to_num(holes)
  scalars, arrays = imputation.assess(some, ("a+c",), zeros)
  assert list(arrays["impute_hidden"]) == ["a", "b", "c", "a+c"]
  assert scalars["impute_r2_linear/c"] == pytest.approx(1.0) and scalars["impute_r2_linear/a+c"] < 0.9
  scores = {way: np.mean([scalars[f"impute_r2_{way}/{name}"] for name in FEATURES]) for way in ("model", "linear")}
  assert f"an R2 of {scores['model']:.3g} in scaled units, mean over 3 features" in scalars["impute_summary"]
  x, train = some.scored.x.astype(float), some.train.x.astype(float)
  near = neighbors.KNeighborsRegressor(25).fit(train[:, [1]], train[:, [0, 2]]).predict(x[:, [1]])
  assert scalars["impute_r2_knn/a+c"] == pytest.approx(sk.r2_score(x[:, [0, 2]], near))
  assert scalars["impute_r2_model/b"] == pytest.approx(sk.r2_score(x[:, 1], np.zeros(120)))
  mean = sk.r2_score(x[:, 2], np.full(120, train[:, 2].mean()))
  assert scalars["impute_r2_mean/c"] == pytest.approx(mean) and mean <= 0
  verdict = f"linear least squares reach {scores['linear']:.3g}, better than this model in 3 of 3."
  assert scalars["impute_summary"].endswith(verdict)


def test_rows_with_holes_are_imputed_as_they_are_and_scored_where_they_were_measured(apart):
  """Half of the rows lack a: the model sees a hole there, the others its training mean, and no score of a counts it."""
  observed = np.ones((120, 3), bool)
  observed[::2, 0] = False
  x = np.where(observed, apart.scored.x, 0).astype(float)
  some = apart._replace(scored=apart.scored._replace(x=x.astype(np.float32), observed=observed))
  seen = []
  scalars, _ = imputation.assess(some, (), lambda holes: (seen.append(holes), np.nan_to_num(holes))[1])
  assert np.isnan(seen[1]).sum(axis=0).tolist() == [60, 120, 0]  # where b is hidden
  assert scalars["impute_r2_model/a"] == pytest.approx(sk.r2_score(x[1::2, 0], np.zeros(60)))
  near = neighbors.KNeighborsRegressor(25).fit(apart.train.x[:, [0, 2]], apart.train.x[:, [1]]).predict(x[:, [0, 2]])
  assert scalars["impute_r2_knn/b"] == pytest.approx(sk.r2_score(x[:, [1]], near), rel=1e-5)


def test_parts_that_find_no_row_say_so(apart):
  unlabelled = apart._replace(scored=apart.scored._replace(label=np.full(120, -1, np.int32)))
  scalars, arrays = probes.assess(unlabelled)
  assert list(scalars) == ["probe_reason"] and not arrays
  holes = apart._replace(train=apart.train._replace(observed=np.zeros((240, 3), bool)))
  scalars, arrays = imputation.assess(holes, (), np.nan_to_num)
  assert list(scalars) == ["impute_reason"] and not arrays


def test_blocks_of_hidden_features():
  assert imputation.subsets(FEATURES, ("a + c",)) == {"a": [0], "b": [1], "c": [2], "a + c": [0, 2]}
  for block in ("a+d", "a+b+c"):
    with pytest.raises(UserError, match="config.eval.impute_blocks"):
      imputation.subsets(FEATURES, (block,))


def test_transfer_of_a_measurement_that_the_embedding_holds(apart):
  scalars, arrays = transfer.assess(apart, ("depth", "few"))
  assert scalars["transfer_r2/linear_embedding/depth"] > 0.99 > 0.2 > scalars["transfer_r2/linear_raw/depth"]
  assert scalars["transfer_gain_low/forest/depth"] > 0.5
  x = [np.concatenate([part.x, np.ones((len(part.x), 1))], axis=1) for part in (apart.train, apart.scored)]
  y = [part.columns["depth"] for part in (apart.train, apart.scored)]
  want = sk.r2_score(y[1], x[1] @ np.linalg.lstsq(x[0].astype(float), y[0], rcond=None)[0])
  assert scalars["transfer_r2/linear_raw/depth"] == pytest.approx(want, rel=1e-6)
  assert scalars["transfer_reason"] == ("Left out of the transfer: few has 10 numbers in a part, of 20 that are "
                                        "needed.")
  assert np.isnan(arrays["transfer_r2"][1]).all()


def test_errors_by_label():
  random = np.random.default_rng(3)
  x, label = random.normal(size=(60, 2)), np.repeat([0, 1, -1], [20, 30, 10])
  x_mean = x + 0.3 * random.normal(size=(60, 2))
  x[3, 0] = np.nan
  found = label_errors.arrays(label, ["p", "q"], (x, x_mean), (2 * x, 2 * x_mean))
  assert found["label_names"].tolist() == ["q", "p"] and found["label_rows"].tolist() == [30, 20]
  some = (label == 0) & ~np.isnan(x[:, 0])
  want = [sk.r2_score(x[some, 0], x_mean[some, 0]), sk.mean_squared_error(x[some, 0], x_mean[some, 0]) ** 0.5,
          sk.mean_absolute_error(x[some, 0], x_mean[some, 0])]
  np.testing.assert_allclose(found["label_errors"][1, :3, 0], want)
  np.testing.assert_allclose(found["label_errors"][:, 4], 2 * found["label_errors"][:, 1])


def test_lithologies_are_joined_to_their_groups():
  assert label_errors.parents(["chalk", "clay"]) == ["Carbonate", "Clay/Mud"]
  assert label_errors.parents(["chalk", "cheese"]) == ["chalk", "cheese"]


PLAN = assessment.Plan(assessment.PARTS, (10,), 100, 100, 8, False, (), (), 1)


@pytest.mark.parametrize(("rows", "classes", "want"), [
    ((9, 0, 0), ["p", "q"], {"probes": "no rows are held out", "imputation": "no rows are held out",
                             "transfer": "no rows are held out"}),
    ((9, 3, 0), [], {"probes": "rows have no labels", "transfer": "config.eval.transfer names no column"})])
def test_what_is_left_out_says_why(rows, classes, want):
  meta = {"rows": dict(zip(assessment.SPLITS, rows)), "class_names": classes, "features": FEATURES}
  assert assessment.left_out(PLAN, meta) == want
  assert all(f"{part} ({why})" in assessment.reason(PLAN, meta) for part, why in want.items())
  last = "val" if rows[1] else "train"
  parts = assessment.make_assess(None, meta, PLAN._replace(draws=0), False)
  kept = (f"{last}-{part}" for part in PLAN.parts if part not in want)
  assert set(parts) == {*assessment.SPLITS, f"{last}-rows", *kept} - {last}
  assert set(assessment.make_assess(None, meta, PLAN._replace(parts=(), draws=0), False)) == set(assessment.SPLITS)


def test_density_is_left_out_of_other_likelihoods():
  meta = {"rows": {"train": 9, "val": 0, "test": 3}, "class_names": [], "features": FEATURES, "kinds": {}}
  told = assessment.reason(PLAN._replace(parts=("clusters", "imputation"), own_likelihoods=True), meta)
  assert told.startswith("Left out of the assessment: the density of rows (") and told.count("imputation (") == 1
  assert "clusters" not in told and "\n" not in told
  assert not assessment.reason(PLAN._replace(parts=("clusters",), draws=0, own_likelihoods=True), meta)
  labelled = meta | {"class_names": ["p", "q"]}
  assert list(assessment.left_out(PLAN._replace(draws=0, columns=("d",)), labelled)) == ["imputation"]


def test_categories_are_columns_for_methods_beside_the_model():
  meta = {"features": ["a", "k", "b"], "kinds": {"categories": {"k": ["p", "q", "r"]}, "integer": {}, "spikes": {}}}
  x = np.float32([[0.5, 1, 2], [0.1, 3, 0], [0.2, 0, 1]])
  np.testing.assert_array_equal(held_out.plain(meta, x), np.float32(
      [[0.5, 1, 0, 0, 2], [0.1, 0, 0, 1, 0], [0.2, 0, 0, 0, 1]]))
  assert held_out.plain({"features": ["a"]}, x) is x


@pytest.mark.parametrize(("columns", "says"), [
    (("Depth_Bin", "CaCO3"), "the source has no column 'CaCO3' beside the features; it has Depth_Bin"),
    (("R",), "'R' is a feature, allowed numeric columns that are none")])
def test_a_measurement_that_the_table_lacks_is_refused(columns, says):
  config = fields.with_values(config_lib.read_file("configs/vae.py:smoke"), {"eval.transfer": columns})
  with pytest.raises(UserError, match=f"config.eval.transfer: {says}"):
    vae.load(config)
