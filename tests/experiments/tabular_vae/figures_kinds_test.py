"""Figures of a table with kinds of columns, from run folders that the tests write."""

import numpy as np
import pytest

from drawn import assert_fits, texts
from jaxtrain.experiments.tabular_vae import figures as vae_figures, figures_data, figures_kinds
from jaxtrain.workdir import reading
from made_runs import make_run

REAL, MADE = np.array([0.5, 0.3, 0.2, 0.9, 0.1]), np.array([0.4, 0.4, 0.2, 1.0, 0.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run whose table has two columns of categories, one of which is among the two that were made up before."""
  found = reading.read_run(make_run(tmp_path_factory.mktemp("kinds") / "run", transforms=("identity", "log1p")))
  kinds = {"categories": {"depth": ["deep sea", "mid", "top"], "owner": ["no", "yes"]}, "integer": {}, "spikes": {}}
  scalars = found.evals[found.split]["scalars"] | {"accuracy_of/depth": 0.75, "majority_of/depth": 0.5}
  arrays = {"category_share_real": REAL, "category_share_made": MADE, "association_pair": np.array([[0, 1]]),
            "association_real": np.array([0.6]), "association_other": np.array([0.58]),
            "association_made": np.array([0.2])}
  return found._replace(meta=found.meta | {"kinds": kinds}, arrays=found.arrays | arrays,
                        evals=found.evals | {found.split: found.evals[found.split] | {"scalars": scalars}})


def test_shares_of_categories_are_named_and_ordered(run):
  figure = figures_kinds.categories(run)
  words = texts(figure)
  assert "right 75%, most frequent 50%" in words and "deep sea" in words and "sampled rows" in words
  second = figure.axes[1]
  np.testing.assert_allclose([bar.get_height() for bar in second.patches], [90, 10])
  np.testing.assert_allclose(second.lines[0].get_ydata(), [100, 0])


def test_associations_show_pairs_and_the_floor(run):
  figure = figures_kinds.associations(run)
  assert "depth and mass" in texts(figure)
  _, floor, made = figure.axes[0].lines
  assert floor.get_ydata().tolist() == [0.58] and made.get_xydata().tolist() == [[0.6, 0.2]]


@pytest.mark.parametrize("family", [figures_kinds.categories, figures_kinds.associations])
def test_they_fit_and_need_their_arrays(run, family):
  assert_fits(family, run)
  assert family(run._replace(arrays={})) is None


def test_other_figures_know_that_codes_are_no_numbers(run):
  assert [ax.get_title() for ax in vae_figures.reconstruction(run).axes] == ["mass"]
  assert "deep…ea" in texts(figures_data.generated(run)) and "sampled rows" in texts(figures_data.generated(run))
  assert vae_figures.architecture(run) is None
