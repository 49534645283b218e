"""Cadences as arithmetic on the step."""

import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain.errors import UserError
from jaxtrain.run import cadence


def config(num_epochs=0, num_steps=0, eval_epochs=1, eval_steps=0, save_epochs=10, save_steps=0, log_steps=0,
           assess_steps=0):
  space = types.SimpleNamespace
  return space(train=space(num_epochs=num_epochs, num_steps=num_steps),
               eval=space(every_epochs=eval_epochs, every_steps=eval_steps, assess_every_epochs=0,
                          assess_every_steps=assess_steps),
               checkpoint=space(every_epochs=save_epochs, every_steps=save_steps),
               log=space(every_steps=log_steps, verbose=False))


def test_the_lithology_run():
  made = cadence.make(config(num_epochs=100), 932)
  assert made == cadence.Plan(total=93_200, steps_per_epoch=932, eval_every=932, save_every=9320, assess_every=0,
                              log_every=0)
  assert made.next_due(0) == 932 and made.next_due(931) == 932 and made.next_due(932) == 1864
  assert made.due(932) == cadence.Due(epoch=True, evaluate=True, save=False, assess=False, log=False)
  assert made.due(9320) == cadence.Due(epoch=True, evaluate=True, save=True, assess=False, log=False)
  assert made.due(100) == cadence.Due(False, False, False, False, False)
  assert [made.epoch(s) for s in (0, 931, 932, 93_200)] == [0, 0, 1, 100]
  assert made.position(932) == "epoch 1/100" and made.position(466) == "epoch 0.5/100"


def test_steps_take_the_place_of_epochs():
  made = cadence.make(config(num_steps=1000, eval_steps=300, save_steps=250, log_steps=100), 400)
  assert (made.total, made.eval_every, made.save_every, made.log_every) == (1000, 300, 250, 100)
  reached, step = [], 0
  while step < made.total:
    step = made.next_due(step)
    reached.append((step, "".join(letter for letter, due in zip("EVSAL", made.due(step)) if due)))
  # Epoch ends, V evaluation, S save, A assessment, L log.
  assert reached == [(100, "L"), (200, "L"), (250, "S"), (300, "VL"), (400, "EL"), (500, "SL"), (600, "VL"), (700, "L"),
                     (750, "S"), (800, "EL"), (900, "VL"), (1000, "VSL")]
  assert made.due(400).epoch and not made.due(400).evaluate and made.due(300).evaluate and not made.due(300).epoch
  at_the_end = cadence.Due(epoch=False, evaluate=True, save=True, assess=False, log=True)
  assert made.due(1000) == at_the_end  # in the middle of an epoch
  assert made.position(250) == "step 250/1000"


@pytest.mark.parametrize("monitor, per_epoch, evaluate, judged", [
    ("val_loss", 7, 7, [7, 14]), ("train_loss", 7, 7, [7, 14]), ("train_loss", 7, 14, [14]),
    ("val_loss", 7, 3, [3, 6, 9, 12, 15]), ("train_loss", 7, 3, [7, 14]), ("train_loss", None, 3, [3, 6, 9, 12, 15])])
def test_what_is_compared_does_not_depend_on_where_a_run_ends(monitor, per_epoch, evaluate, judged):
  """A training metric is compared over whole epochs; the evaluation that only the end of a run asks for is not."""
  for total in range(1, 17):
    made = cadence.Plan(total, per_epoch, evaluate, 100, 0, 0)
    assert [s for s in range(1, total + 1) if made.judges(s, monitor)] == [s for s in judged if s <= total]
    assert all(made.due(s).epoch or made.due(s).evaluate for s in judged if s <= total)  # it is reported there


def test_a_stream_has_steps_alone():
  made = cadence.make(config(num_steps=70, eval_steps=20, save_steps=50), None)
  assert made.epoch(40) == -1 and made.position(40) == "step 40/70"
  assert not any(made.due(s).epoch for s in range(71))
  assert [s for s in range(1, 71) if made.due(s).evaluate] == [20, 40, 60, 70]
  assert [s for s in range(1, 71) if made.due(s).save] == [50, 70]


@pytest.mark.parametrize("fields, key", [({"num_epochs": 3}, "config.train.num_epochs: got 3"),
                                         ({"num_steps": 5, "save_steps": 2}, "config.eval.every_steps: got 0"),
                                         ({"num_steps": 5, "eval_steps": 2}, "config.checkpoint.every_steps: got 0")])
def test_epochs_of_a_stream_are_refused(fields, key):
  with pytest.raises(UserError, match=key):
    cadence.make(config(**fields), None)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.integers(1, 400), st.none() | st.integers(1, 50), st.integers(1, 60), st.integers(1, 90), st.integers(0, 70),
       st.integers(0, 30))
def test_running_from_due_to_due_misses_nothing_and_stops_for_nothing_else(total, per_epoch, evaluate, save, assess,
                                                                           log):
  made = cadence.Plan(total, per_epoch, evaluate, save, assess, log)
  reached, step = [], 0
  while step < total:
    step = made.next_due(step)
    reached.append(step)
  assert reached == [s for s in range(1, total + 1) if any(made.due(s)) or s == total]
  assert reached[-1] == total and made.due(total).evaluate and made.due(total).save
  # The next thing due does not depend on where one asks from.
  for s in range(total):
    assert made.next_due(s) == min(r for r in reached if r > s)
