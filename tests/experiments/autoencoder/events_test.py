"""Arrays of events: what they may hold."""

import numpy as np
import pytest

import made_events
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import events


def parts(**changed):
  """Arrays of three events of two slots, as `assemble` takes them."""
  found = {"ids": np.array([[1, 0], [2, 7], [0, 0]]), "momenta": np.ones((3, 2, 4)), "met": np.ones((3, 2)),
           "label": np.array([1, 2, 0]), "weight": np.array([1.0, 0.0, 2.0])}
  return found | changed


def test_what_stands_in_empty_slots_becomes_zero():
  found = events.assemble(**parts())
  np.testing.assert_array_equal(found.momenta[..., 0], [[1, 0], [1, 1], [0, 0]])
  np.testing.assert_array_equal(found.mask, [[True, False], [True, True], [False, False]])
  assert [part.dtype.name for part in found] == ["int32", "float32", "float32", "int32", "float32"]
  assert found.num_slots == 2 and found.take(slice(2)).ids.shape == (2, 2)


def test_azimuths_are_wrapped_and_others_keep_their_bits():
  momenta = np.ones((3, 2, 4), np.float32)
  momenta[:2, 0, 3] = 3.5, np.float32(np.pi)
  met = np.array([[10.0, 6.0], [10, -1.5], [10, np.pi]], np.float32)
  found = events.assemble(**parts(momenta=momenta, met=met))
  np.testing.assert_allclose(found.globals[0, 1], 6 - 2 * np.pi, rtol=1e-6)
  np.testing.assert_array_equal(found.globals[1:], met[1:])
  assert met[0, 1] == 6  # what was given is not written to
  np.testing.assert_allclose(found.momenta[0, 0, 3], 3.5 - 2 * np.pi, rtol=1e-6)
  assert found.momenta[1, 0, 3] == np.float32(np.pi)
  np.testing.assert_allclose(events.wrap(np.array([-4.0, 0.5, 7.0])), [2 * np.pi - 4, 0.5, 7 - 2 * np.pi])


def test_processes_and_weights_are_optional():
  found = events.assemble(**parts(label=None, weight=None))
  assert not found.label.any() and (found.weight == 1).all()


@pytest.mark.parametrize("changed,words", [
    ({"ids": np.zeros((3, 2)) - 1}, "the type of an object in event 1 is -1, allowed whole numbers from 0 to 255"),
    ({"ids": np.array([[1, 0], [1.5, 0], [0, 0]])}, "the type of an object in event 2 is 1.5, allowed whole"),
    ({"ids": np.array([[1, 0], [1e9, 0], [0, 0]])}, "the type of an object in event 2 is 1e+09, allowed whole"),
    ({"label": np.array([1, -1, 0])}, "the process in event 2 is -1, allowed whole numbers"),
    ({"label": np.array([1, 2])}, "the labels have the shape (2,), allowed (3,)"),
    ({"momenta": np.ones((3, 3, 4))}, "the momenta have the shape (3, 3, 4), allowed (3, 2, 4)"),
    ({"momenta": np.full((3, 2, 4), np.nan)}, "the momenta of event 1 are not all finite and up to 1e+15 in size; 3"),
    ({"met": np.array([[1, 0], [1e30, 0], [1, 0]])}, "the globals of event 2 are not all finite"),
    ({"met": np.ones((3, 3))}, "the globals have the shape (3, 3), allowed (3, 2)"),
    ({"weight": np.array([1, -0.5, -2])}, "the weight of event 2 is -0.5, allowed 0 or more"),
    ({"weight": np.array(["a", "b", "c"])}, "the weights are of type <U1, allowed numbers"),
    ({"ids": np.zeros((0, 2))}, "no events")])
def test_refused(changed, words):
  with pytest.raises(UserError) as error:
    events.assemble(**parts(**changed), where="a.h5")
  assert str(error.value).startswith(f"a.h5: {words}") and "\n" not in str(error.value)


def test_events_are_joined_in_order():
  one, other = made_events.draw(5), made_events.draw(3, seed=1)
  whole = events.join([one, other])
  np.testing.assert_array_equal(whole.take(slice(5, 8)).momenta, other.momenta)
  assert len(whole.weight) == 8


def test_names_of_types_and_processes_go_on():
  assert events.type_names(9)[6:] == ["mu+", "photon", "type_8"] and len(events.type_names(3)) == 3
  assert events.process_names(8)[5:] == ["ttZ", "tt", "process_7"]
