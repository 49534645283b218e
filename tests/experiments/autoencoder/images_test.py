"""The autoencoder of images against NumPy: its loss, its assessment, and what `predict` does."""

import jax
import numpy as np
import pytest

import event_cases as cases
import made_events
from jaxtrain.data import files
from jaxtrain.devices import parallel
from jaxtrain.experiments.autoencoder import apply, objective, predict

NUM, PIXELS, SLOTS = 20, 28 * 28, 7 * 7


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """An autoencoder of small files of images at its start."""
  folder = tmp_path_factory.mktemp("images")
  made_events.write_images(folder, 60, NUM)
  return cases.filled("images", data__path=str(folder), model__encoder__hidden_dims=(4, 6),
                      model__decoder__hidden_dims=(6, 4))


@pytest.mark.slow
def test_the_loss_is_the_cross_entropy_of_pixels(made):
  """By event weights, of real rows alone, which are divided by their pixels, and latents by their slots."""
  p, state, batch = made.problem, made.state, made.batch("train")
  weight = (np.arange(len(batch["weight"])) % 3).astype(np.float32)
  batch |= {"event_weight": weight, "weight": (np.arange(len(weight)) % 4 > 0).astype(np.float32)}
  w, x = (weight * batch["weight"]).astype(np.float64), batch["image"].astype(np.float64)
  found, out = objective.through(p, {"params": state.params}, batch, objective.codes_of(state))
  share = 1 / (1 + np.exp(-np.asarray(out.decoded, np.float64)))
  nats = -(x * np.log(share) + (1 - x) * np.log(1 - share)).sum(axis=(1, 2, 3))
  terms, counts = objective.row_terms(p, state.params, state, batch, found, out), objective.term_counts(p, batch)
  assert set(terms) == set(counts) == {"image", "commitment"}
  np.testing.assert_allclose(terms["image"], nats, rtol=1e-5)
  np.testing.assert_allclose([counts["image"], counts["commitment"]], [w.sum() * PIXELS, w.sum() * SLOTS], rtol=1e-6)
  metrics = objective.measured(p, batch, found, out, None)
  square = np.square(share - x).sum(axis=(1, 2, 3))
  np.testing.assert_allclose(metrics["image_mse"], [(w * square).sum(), w.sum() * PIXELS], rtol=1e-5)


def test_assessment(made):
  """The variance is that of each pixel about its own mean; nothing is paid for the number of slots, which is fixed."""
  scalars, arrays = made.experiment.assess["test-events"](made.state, made.splits, cases.KEY)
  assert set(made.experiment.assess) == {"val", "test-events"}
  given = made.rows()
  back = apply.apply(made.coder, made.state, apply.rows_of(given))
  x = given["image"].astype(np.float64)
  square = np.square(back["image"] - x)
  assert scalars["image_error"] == pytest.approx(np.sqrt(square.mean()), rel=1e-5)
  assert scalars["unexplained_variance"] == pytest.approx(square.sum() / np.square(x - x.mean(axis=0)).sum(), rel=1e-5)
  assert scalars["bits_per_event"] == pytest.approx(back["bits"].sum(axis=1).mean(), rel=1e-6)
  assert scalars["bits_per_slot"] == pytest.approx(back["bits"].mean(), rel=1e-6)
  assert arrays["use"].sum() == NUM * SLOTS and scalars["codes_used"] == (arrays["use"][0] > 0).sum()
  assert arrays["shown_images"].shape == arrays["shown_images_recon"].shape == (NUM, 28, 28)


def test_verbs_take_pixels_and_give_them_back(made):
  rows = made.rows()["image"].reshape(NUM, -1)
  names = predict.column_names(made.splits.meta)
  table = files.Columns("in.csv", {name: rows[:, k].astype(np.float64) for k, name in enumerate(names)}, {})
  run = lambda verb: made.experiment.predict[verb].run(made.state, table, 0, cases.KEY)
  back = apply.apply(made.coder, made.state, rows)
  codes, pixels, scores = map(run, ("encode", "reconstruct", "score"))
  assert set(codes) == {*(f"code_{s}" for s in range(SLOTS)), "bits"}
  np.testing.assert_array_equal(codes["code_48"], back["index"][:, 48, 0])
  np.testing.assert_array_equal(pixels["pixel_3_5_recon"], back["image"][:, 3, 5, 0])
  np.testing.assert_allclose(scores["error"], np.square(back["image"] - made.rows()["image"]).mean(axis=(1, 2, 3)),
                             rtol=1e-4)


@pytest.mark.slow
def test_a_step_moves_all_parameters_and_the_codes(made):
  new, metrics = jax.jit(lambda s, b: made.experiment.train_step(s, b, cases.KEY, parallel.over_whole))(
      made.state, made.batch("train"))
  assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), new.params, made.state.params)))
  assert (new.model_state["codes"].codes != made.state.model_state["codes"].codes).any()
  assert np.isfinite(float(metrics["loss"][0]))
