"""Figures of the tabular VAE: what each says of its rows, from run folders that the tests write."""

import numpy as np
import pytest

from made_runs import MODEL, make_run
from drawn import texts
from jaxtrain.experiments.tabular_vae import figures as vae_figures, figures_data
from jaxtrain.workdir import reading

ALL = vae_figures.FAMILIES | vae_figures.FULL_FAMILIES
NEEDS = {"reconstruction": "sample_x_mean", "latent": "kl_nats_per_dim", "classes": "class_count", "roc": "roc_tpr",
         "calibration": "calibration", "generated": "hist_generated", "distributions": "hist_edges",
         "distances": "distance_own", "umap": "sample_umap"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run with a classifier and three parts."""
  return reading.read_run(make_run(tmp_path_factory.mktemp("made") / "run", transforms=("identity", "log1p")))


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_nothing_is_drawn_without_its_arrays(run, name):
  assert ALL[name](run) is not None
  assert ALL[name](run._replace(arrays={k: v for k, v in run.arrays.items() if k != NEEDS[name]})) is None
  assert ALL[name](run._replace(arrays={}, evals={}, split="")) is None


@pytest.mark.parametrize("name", sorted(NEEDS.keys() - {"calibration"} | {"confusion", "dataset"}))
def test_panels_stand_below_each_other_on_a_phone(run, name):
  """A phone shows 360 of its 390 pixels: at 5.2 inches across, text of 8 points is 7.7 pixels tall."""
  (wide, _), (narrow, tall) = (ALL[name](run, narrow=narrow).get_size_inches() for narrow in (False, True))
  assert narrow <= 5.2 and narrow <= wide
  axes = ALL[name](run, narrow=True).axes
  assert len({round(ax.get_position().x0, 3) for ax in axes}) <= 2 and tall > 0


def test_nothing_is_drawn_without_its_facts(run):
  assert vae_figures.architecture(run._replace(config={})) is None
  assert vae_figures.architecture(run._replace(meta={})) is None
  meta = {"rows": {"train": 10}, "class_names": []}
  assert figures_data.dataset(run._replace(meta=meta, arrays={})) is None
  assert vae_figures.roc(run._replace(arrays=run.arrays | {"roc_class": np.array([], int)})) is None
  assert vae_figures.calibration(run._replace(arrays=run.arrays | {"calibration": np.zeros((3, 15))})) is None


@pytest.mark.parametrize(("name", "said"), [
    ("latent", ("(test, 200 of 1,234 rows)", "mean of 1,234 rows")), ("umap", ("(test, 200 of 1,234 rows)",)),
    ("classes", ("test: 3 classes, 14 labelled rows", "predicted, 3 rows")),
    ("roc", ("(test, 14 labelled rows)", "mean over 2 classes: 0.750", "0.900  ooze (9)")),
    ("calibration", ("test, 11,025 labelled rows", "calibration error 0.100", "share that is right")),
    ("distances", ("test: 14 rows of the 3 most frequent classes", "ooze (9)  → clay")),
    ("dataset", ("1,333 rows in 2 parts", "10 groups; half of 1,333 rows in 1",
                 "1,333 rows by first part of group name", "42 rows by class (3)")),
    ("reconstruction", ("200 of test's 1,234 rows", "axes of log1p features are logarithmic"))])
def test_rows_and_scales_are_said(run, name, said):
  found = texts(ALL[name](run))
  assert all(words in found for words in said), found


@pytest.mark.parametrize("name", ["generated", "distributions"])
def test_histograms_say_rows_scale_and_what_is_outside(run, name):
  figure = ALL[name](run)
  found, arrays = texts(figure), run.arrays
  assert [ax.get_title() for ax in figure.axes] == ["depth", "mass (log)"] and "outside " in found
  for part in ("test", "generated") if name == "generated" else ("train", "val", "test"):
    assert f"{arrays[f'hist_{part}'].sum(axis=1).max():,}" in found  # of the feature with the fewest holes
  share = figure.axes[0].patches[-1].get_data().values
  last = arrays["hist_generated" if name == "generated" else "hist_test"][0]
  np.testing.assert_allclose(share, 100 * last[1:-1] / last.sum())
  np.testing.assert_allclose(figure.axes[1].patches[0].get_data().edges, np.log1p(arrays["hist_edges"][1]))


def test_histograms_span_the_bins_that_data_fill(run):
  count = np.zeros((2, 42), int)
  count[:, 5:9], generated = 10, np.ones((2, 42), int)
  changed = run._replace(arrays=run.arrays | {"hist_test": count, "hist_generated": generated})
  ax = vae_figures.generated(changed).axes[0]
  assert len(ax.patches[0].get_data().values) == 4 == len(ax.patches[1].get_data().values)
  assert ax.get_xlabel() == f"outside 0.0 % | {100 * 38 / 42:.1f} %"


def test_prefixes_of_groups():
  groups = {"names": ["a-1", "a-2", "b-1", "b-2"], "rows": [4, 3, 2, 1]}
  assert figures_data.by_prefix(groups, 10) == {"a": 7, "b": 3}
  assert figures_data.by_prefix(groups, 11) == {}  # some groups are not listed
  assert figures_data.by_prefix({"names": ["a-1", "b"], "rows": [4, 3]}, 7) == {}
  assert figures_data.by_prefix({"names": ["a-1", "b-1", "c-1"], "rows": [4, 3, 1]}, 8) == {}  # sums up nothing


@pytest.mark.parametrize(("kind", "classes", "hidden", "total"), [
    ("semisup", 139, [64, 32], 16165),  # as the run itself counts them
    ("unsup", 139, [64, 32], 16165 - 704 - 9035), ("semisup", 0, [8], 56 + 16 + 180
     + 88 + 16 + 54), ("unsup", 0, [5, 4, 3, 2], sum((i + 3) * o for i, o in [(6, 5), (5, 4), (4, 3), (3, 2)])
                       + sum((i + 3) * o for i, o in [(10, 2), (2, 3), (3, 4), (4, 5)]) + 3 * 20 + 6 * 6)])
def test_architecture_counts_every_parameter(run, kind, classes, hidden, total):
  meta = {"features": list("abcdef"), "class_names": [str(k) for k in range(classes)]}
  model = MODEL | {"kind": kind, "hidden_dims": hidden}
  changed = run._replace(config={"model": model}, meta=meta)
  assert f"{total:,} parameters" in texts(vae_figures.architecture(changed))
