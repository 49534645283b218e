"""Normalised features: statistics against loops in float64, and the way back to GeV and radians."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import made_events
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import events as events_lib, scaling

COLUMNS = events_lib.FEATURES
NORMS = ("physics", "zscore_masked", "zscore_legacy")


def of_objects(events, place):
  """A column of all objects as a list of Python numbers."""
  return [float(events.momenta[n, t, place]) for n in range(len(events.ids)) for t in range(events.num_slots)
          if events.ids[n, t]]


def to_momenta(scaler, cont):
  """The way back, compiled."""
  return np.asarray(jax.jit(functools.partial(scaling.to_momenta, scaler))(np.asarray(cont, np.float32)))


def mean_and_deviation(values):
  """The textbook's, of n - 1."""
  mean = math.fsum(values) / len(values)
  return mean, math.sqrt(math.fsum((value - mean)**2 for value in values) / (len(values) - 1))


def test_statistics_of_objects_alone():
  """Of log E, log pT and eta, each by a loop over objects; circles stay as they are."""
  events = made_events.draw()
  scaler = scaling.fit(events, "physics", COLUMNS)
  assert scaler["names"] == ["log_e", "log_pt", "eta", "cos_phi", "sin_phi"]
  assert scaler["global_names"] == ["log1p_met", "cos_met_phi", "sin_met_phi"]
  logs = [[math.log(value) for value in of_objects(events, k)] for k in (0, 1)]
  for c, values in enumerate([*logs, of_objects(events, 2)]):
    np.testing.assert_allclose([scaler["mean"][c], scaler["std"][c]], mean_and_deviation(values), rtol=1e-12)
  assert scaler["mean"][3:] == [0, 0] and scaler["std"][3:] == [1, 1]
  want = mean_and_deviation([math.log1p(float(value)) for value in events.globals[:, 0]])
  np.testing.assert_allclose([scaler["global_mean"][0], scaler["global_std"][0]], want, rtol=1e-12)
  assert scaler["global_mean"][1:] == [0, 0] and scaler["global_std"][1:] == [1, 1]


def test_statistics_of_zscores():
  """Masked ones are of objects, with MET and azimuth; legacy ones of all slots, their zeros too, and MET is raw."""
  events = made_events.draw()
  masked, legacy = (scaling.fit(events, norm, COLUMNS) for norm in NORMS[1:])
  for c in range(4):
    values = of_objects(events, c)
    np.testing.assert_allclose([masked["mean"][c], masked["std"][c]], mean_and_deviation(values), rtol=1e-12)
    values += [0.0] * (events.ids.size - len(values))
    np.testing.assert_allclose([legacy["mean"][c], legacy["std"][c]], mean_and_deviation(values), rtol=1e-12)
  for g in range(2):
    want = mean_and_deviation(events.globals[:, g].astype(float).tolist())
    np.testing.assert_allclose([masked["global_mean"][g], masked["global_std"][g]], want, rtol=1e-12)
  np.testing.assert_array_equal(scaling.forward(legacy, events)[1], events.globals)


def test_features_of_empty_slots():
  """Zero, but with the legacy norm, where they are -mean / std."""
  events = made_events.draw()
  for norm in NORMS[:2]:
    cont, _ = scaling.forward(scaling.fit(events, norm, COLUMNS), events)
    assert not cont[~events.mask].any() and cont.dtype == np.float32
  scaler = scaling.fit(events, "zscore_legacy", COLUMNS)
  cont, _ = scaling.forward(scaler, events)
  want = -np.array(scaler["mean"]) / np.array(scaler["std"])
  np.testing.assert_allclose(cont[~events.mask], np.broadcast_to(want, cont[~events.mask].shape), rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_momenta_come_back(norm):
  """To GeV and radians, to what float32 keeps of numbers of their size, in any shape, compiled too."""
  events = made_events.draw()
  scaler = scaling.fit(events, norm, COLUMNS)
  cont, met = scaling.forward(scaler, events)
  back = to_momenta(scaler, cont)
  largest = np.abs(events.momenta).max(axis=(0, 1))
  np.testing.assert_array_less(np.abs(back - events.momenta)[events.mask] / largest, 3e-6)
  found = np.asarray(jax.jit(functools.partial(scaling.to_met, scaler))(met[:, None]))[:, 0]
  np.testing.assert_allclose(found, events.globals, rtol=1e-4, atol=1e-5)
  one = to_momenta(scaler, cont[3, 0])
  np.testing.assert_allclose(one, back[3, 0], rtol=1e-6)


def test_ablated_columns_follow_as_of_massless_objects():
  events = made_events.draw()
  for norm in NORMS:
    without_e = scaling.fit(events, norm, ("pt", "eta", "phi"))
    assert without_e["names"] == (["log_pt", "eta", "cos_phi", "sin_phi"] if norm == "physics" else
                                  ["pt", "eta", "phi"])
    back = to_momenta(without_e, scaling.forward(without_e, events)[0])
    want = (events.momenta[..., 1] * np.cosh(events.momenta[..., 2].astype(float)))[events.mask]
    np.testing.assert_allclose(back[events.mask][:, 0], want, rtol=1e-3)
    without_pt = scaling.fit(events, norm, ("e", "eta"))
    back = to_momenta(without_pt, scaling.forward(without_pt, events)[0])
    want = (events.momenta[..., 0] / np.cosh(events.momenta[..., 2].astype(float)))[events.mask]
    np.testing.assert_allclose(back[events.mask][:, 1], want, rtol=1e-3)
    assert not back[..., 3].any()


@pytest.mark.slow
def test_the_way_back_is_finite_for_any_guess_and_has_gradients():
  """Also where cos and sin are both 0, as in empty slots, and for logarithms that no float32 takes back."""
  scaler = scaling.fit(made_events.draw(), "physics", COLUMNS)
  cont = jnp.stack([jnp.zeros(5), jnp.full(5, 1e6), jnp.full(5, -1e6)])
  assert np.isfinite(np.asarray(scaling.to_momenta(scaler, cont))).all()
  assert np.isfinite(np.asarray(scaling.to_met(scaler, cont[:, :3]))).all()
  assert (np.asarray(scaling.to_met(scaler, cont[:, :3]))[:, 0] >= 0).all()
  gradient = jax.grad(lambda x: scaling.to_momenta(scaler, x).sum())(jnp.zeros(5))
  assert np.isfinite(np.asarray(gradient)).all()


def test_azimuths_come_back_between_minus_pi_and_pi():
  scaler = scaling.fit(made_events.draw(), "zscore_masked", COLUMNS)
  phi, want = np.array([4.0, -4.0, 1.0]), [4 - 2 * np.pi, 2 * np.pi - 4, 1.0]
  cont = np.zeros((3, 4))
  cont[:, 3] = (phi - scaler["mean"][3]) / scaler["std"][3]
  np.testing.assert_allclose(to_momenta(scaler, cont)[:, 3], want, atol=1e-5)


def test_a_column_without_spread_keeps_the_floor():
  events = made_events.draw()
  flat = events._replace(momenta=2 * np.ones_like(events.momenta) * events.mask[..., None])
  scaler = scaling.fit(flat, "zscore_masked", COLUMNS)
  assert scaler["std"] == [1e-8] * 4 and not scaling.forward(scaler, flat)[0].any()


@pytest.mark.parametrize("columns,want", [
    (("e", "pt", "eta", "phi"), COLUMNS), ((1, 2, 3), COLUMNS[1:]), ("[1,2,3]", COLUMNS[1:]),
    (("[1", "2", "3]"), COLUMNS[1:]), ("eta, pt", ("pt", "eta")), (("0",), ("e",)), (["'pt'", "phi"], ("pt", "phi"))])
def test_columns_by_name_and_by_number(columns, want):
  assert scaling.parse_columns(columns) == want


@pytest.mark.parametrize("columns,words", [
    (("mass",), "got 'mass', allowed e, pt, eta, phi, or their numbers 0 to 3"), ((4,), "got 4"), ((), "got ()"),
    (("pt", 1), "'pt' stands twice"), (("eta", "phi"), "with e or pt")])
def test_columns_that_are_refused(columns, words):
  with pytest.raises(UserError) as error:
    scaling.parse_columns(columns)
  assert str(error.value).startswith("config.data.columns: ") and words in str(error.value)


def test_refused_events():
  """An object without energy under its logarithm, a negative MET, and no object at all."""
  events = made_events.draw()
  bad = events.momenta.copy()
  bad[4, 0, 1] = 0
  with pytest.raises(UserError, match="data: pt of an object of event 5 is 0 GeV, allowed more than 0 with .*physics"):
    scaling.fit(events._replace(momenta=bad), "physics", COLUMNS)
  scaling.fit(events._replace(momenta=bad), "zscore_masked", COLUMNS)
  met = events.globals.copy()
  met[7, 0], met[9, 0] = -3, -5
  with pytest.raises(UserError, match="data: the missing transverse energy of event 8 is -3 GeV"):
    scaling.fit(events._replace(globals=met), "physics", COLUMNS)
  with pytest.raises(UserError, match="no training event has an object"):
    scaling.fit(events._replace(ids=np.zeros_like(events.ids)), "physics", COLUMNS)
