"""What tokens of events keep: the classifier and its rows, the density of strange events, and the whole, tiny."""

import argparse

import event_tokens
import jax
import numpy as np
import pytest

from jaxtrain.experiments.autoencoder import event_files, events as events_lib, generator

LABELS = (2, 3)  # ttH and another process


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  """A file of simulated events of two processes."""
  made = events_lib.join([generator.observe(k, 120, 18, np.random.RandomState(k)) for k in LABELS])
  made = made.take(np.random.RandomState(0).permutation(len(made.ids)))
  path = str(tmp_path_factory.mktemp("events") / "a.h5")
  event_files.write_hdf5(path, {part: made.take(slice(k, None, 3)) for k, part in enumerate(event_files.PARTS)})
  return path


def test_a_seed_deals_every_event_to_one_part(file):
  parts, other = (event_tokens.deal(file, 18, seed) for seed in (0, 1))
  assert [len(events.ids) for events in parts.values()] == [144, 48, 48]
  whole = events_lib.join(list(parts.values()))
  assert len({row.tobytes() for row in event_files.to_rows(whole)}) == 240
  assert (parts["train"].momenta != other["train"].momenta).any()


def test_rows_of_slots_hide_what_is_not_there(file):
  events = event_tokens.deal(file, 18, 0)["val"]
  rows = event_tokens.rows_of(events, np.full((48, 19, 2), 7.0))
  there = events.ids > 0
  assert (rows[:, :-1][there] == (7, 7, 1)).all() and (rows[:, :-1][~there] == 0).all()
  assert (rows[:, -1] == (7, 7, 1)).all()


@pytest.mark.parametrize("num_codes", (0, 5))
def test_a_logit_depends_on_no_order_of_objects_and_on_no_empty_slot(num_codes):
  random = np.random.RandomState(0)
  rows = np.concatenate([random.randint(0, 5, (4, 6, 1)), np.ones((4, 6, 1))], axis=2).astype(np.float32)
  rows[:, 3:5, 1] = 0
  net = event_tokens.Classifier(num_codes)
  params = net.init(jax.random.key(0), rows)
  apply = jax.jit(net.apply)
  wanted = apply(params, rows)
  turned, filled = rows.copy(), rows.copy()
  turned[:, :3] = rows[:, [2, 0, 1]]
  filled[:, 3:5, 0] = 4
  np.testing.assert_allclose(apply(params, turned), wanted, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(apply(params, filled), wanted)
  other = apply(params, rows[:, [5, 1, 2, 3, 4, 0]])
  assert np.abs(other - wanted).max() > 1e-5  # the event's slot is another thing


def test_a_density_ranks_events_of_more_objects_as_strange(file):
  events = event_tokens.deal(file, 18, 0)["train"]
  count = (events.ids > 0).sum(axis=1)
  few, many = events.take(count <= 7), events.take(count > 7)
  scores = event_tokens.density_scores(few, events_lib.join([few, many]), 1, 0)
  strange = np.arange(len(few.ids) + len(many.ids)) >= len(few.ids)
  assert event_tokens.area(scores["count"], strange) == 1.0
  assert event_tokens.area(scores["density of HT and count"], strange) > 0.9


@pytest.mark.slow
def test_both_parts_run_to_their_tables(file, tmp_path, capsys):
  given = argparse.Namespace(file=file, num_slots=18, seeds=2, near=10.0, components=2, train_epochs=1)
  classes = event_tokens.measure_classes(str(tmp_path), given)
  assert list(classes) == ["tokens", "codes", "vae", "latents", "events"]
  assert classes["vae"]["less_reference"] == [0.0, 0.0] and 0 < classes["tokens"]["auc"][0] < 1
  anomaly = event_tokens.measure_anomaly(str(tmp_path), given)
  assert {"error of vq", "error of vae", "error of none", "HT", "count"} < set(anomaly)
  printed = capsys.readouterr().out
  assert event_tokens.measure_anomaly(str(tmp_path), given) == anomaly and capsys.readouterr().out in printed


def test_the_weight_of_as_many_bits_is_found(monkeypatch):
  """Where bits fall as a power of the weight, by the slope between two tries."""
  tried = []
  monkeypatch.setattr(event_tokens, "train", lambda folder, name, variant, fields, *rest: (
      tried.append(fields["loss.weights.kl"]), {"bits_per_event": 20 * fields["loss.weights.kl"]**-0.2}))
  weight = event_tokens.weight_of("", 90.0, "", argparse.Namespace(near=0.01))
  assert 20 * weight**-0.2 == pytest.approx(90.0, rel=0.01) and len(tried) <= event_tokens.MOST_TRIES
