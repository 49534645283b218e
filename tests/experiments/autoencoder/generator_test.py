"""Simulated events: mass peaks, balance, branching fractions and processes."""

import numpy as np
import pytest

from jaxtrain.experiments.autoencoder import detector, events, generator, kinematics

NAMES = events.PROCESS_NAMES[1:6]


def made(name="tttt", num=2000, seed=0):
  """Events of a process before the detector."""
  return generator.make(name, num, np.random.RandomState(seed))


@pytest.mark.parametrize("name", NAMES)
def test_masses_of_tops_and_their_w_are_exact(name):
  """What a W and a top leave behind has their masses, 80.4 and 172.8 GeV, to 1e-6, before anything is smeared."""
  found = made(name)
  for k in range(found.heavy["top"].shape[1]):
    three = found.particles.p[:, 3 * k:3 * k + 3]
    np.testing.assert_allclose(kinematics.mass(three[:, 1:].sum(axis=1)), 80.4, atol=1e-6, rtol=0)
    np.testing.assert_allclose(kinematics.mass(three.sum(axis=1)), 172.8, atol=1e-6, rtol=0)
    np.testing.assert_allclose(three.sum(axis=1), found.heavy["top"][:, k], atol=1e-6)
    assert (found.particles.kind[:, 3 * k] == detector.BOTTOM).all()


@pytest.mark.parametrize("name,mass", [("ttH", 125.2), ("ttZ", 91.19), ("ttW", 80.4)])
def test_mass_of_the_boson_is_exact(name, mass):
  found = made(name)
  after = found.particles.p[:, 6:-generator.MOST_JETS - 1]
  np.testing.assert_allclose(kinematics.mass(after.sum(axis=1)), mass, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_transverse_momenta_add_to_zero(name):
  np.testing.assert_allclose(made(name).particles.p[..., 1:3].sum(axis=1), 0, atol=1e-9)


def test_charges_of_leptons_add_to_that_of_their_event():
  """Four leptonic tops have charge 0 in pairs: top k and its W have the sign (-1)^k."""
  charge = made().particles.charge
  for k in range(4):
    lepton = charge[:, 3 * k + 1]
    assert set(np.unique(lepton)) == {0, (-1)**k} and not charge[:, 3 * k + 2].any()
  z = made("ttZ").particles
  assert not z.charge[:, 6:8].sum(axis=1).any() and set(np.unique(z.charge[:, 6])) == {0, 1}


def test_branching_fractions():
  """Shares of leptonic W and of the ways of Z and Higgs, within 5 standard errors: fewer than one false alarm in
  100,000 seeds.
  """
  N = 20_000
  within = lambda share, want: abs(share - want) < 5 * np.sqrt(want * (1 - want) / N)
  top = made("tttt", N).particles.kind[:, 1]
  assert within(np.mean(top == detector.ELECTRON), 0.16) and within(np.mean(top == detector.MUON), 0.16)
  z = made("ttZ", N).particles.kind[:, 6]
  assert within(np.mean(z == detector.NEUTRINO), 0.20) and within(np.mean(z == detector.BOTTOM), 0.16)
  assert within(np.mean(made("ttH", N).particles.kind[:, 6] == detector.BOTTOM), 0.73)


def test_mass_peaks_after_smearing():
  """Of hadronic tops: the peak of W within 2 GeV of 80.4 and 5 to 8 GeV wide, that of the top within 3 GeV of 172.8 and
  8 to 13 GeV wide (half the distance of the quantiles of 16 and 84 %).
  """
  found = made("tttt", 8000)
  seen = detector.smear(found.particles, np.random.RandomState(1))[found.particles.kind[:, 1] == detector.QUARK]
  for places, mass, off, widths in ((slice(1, 3), 80.4, 2, (5, 8)), (slice(0, 3), 172.8, 3, (8, 13))):
    low, middle, high = np.quantile(kinematics.mass(seen[:, places].sum(axis=1)), (0.16, 0.5, 0.84))
    assert abs(middle - mass) < off and widths[0] < (high - low) / 2 < widths[1]


def test_processes_have_their_shares_and_their_shapes():
  """Half is tttt, the others as many each; it has the most objects and b-jets, and each type of object occurs."""
  found = generator.generate(4001, 3)
  assert np.bincount(found.label, minlength=6).tolist() == [0, 2001, 500, 500, 500, 500]
  assert (found.label[:2000] == 1).mean() > 0.4  # in random order
  objects, tags = found.mask.sum(axis=1), (found.ids == events.B_JET).sum(axis=1)
  others = [objects[found.label == k].mean() for k in range(2, 6)]
  assert objects[found.label == 1].mean() > max(others) + 0.5
  assert tags[found.label == 1].mean() > tags[found.label == 3].mean() + 1
  assert set(np.unique(found.ids)) == set(range(8)) and (found.weight == 1).all()


@pytest.mark.parametrize("num_slots", [1, 5, 30])
def test_a_seed_gives_its_events_in_so_many_slots(num_slots):
  first, again, other = (generator.generate(300, seed, num_slots) for seed in (4, 4, 5))
  assert first.ids.shape == (300, num_slots)
  for a, b in zip(first, again):
    np.testing.assert_array_equal(a, b)
  assert (first.momenta != other.momenta).any()
  whole = generator.generate(300, 4, 18) if num_slots == 5 else None
  if whole is not None:
    np.testing.assert_array_equal(first.momenta, whole.momenta[:, :5])


@pytest.mark.parametrize("num_events", [1, 2, 9])
def test_few_events(num_events):
  assert len(generator.generate(num_events, 0).ids) == num_events
