"""Four experiments outside the package, each of which needs a part of the contract that plain regression does not.

They are trained in all modes of execution, stopped and resumed, killed, and as members of a sweep. What they compute is
checked against independent code in toys_golden_test.py.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import child
import stopping
from jaxtrain import config as config_lib, loop
from toys import modes

QUICK = ("codebook",)
SLOW = tuple(toy for toy in modes.TOYS if toy not in QUICK)
some = lambda quick: [pytest.param(toy, marks=[pytest.mark.slow] * (toy not in quick)) for toy in modes.TOYS]
ENVIRON = {"PYTHONPATH": os.pathsep.join((child.ROOT, os.path.join(child.ROOT, "tests")))}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
  """(toy, mode) -> (outcome, workdir) of its run on one device, made once."""
  made = {}

  def get(toy, mode="jit"):
    if (toy, mode) not in made:
      workdir = str(tmp_path_factory.mktemp(toy) / "run") if mode == "jit" else None
      made[toy, mode] = modes.outcome(loop.train(modes.configured(toy, mode), workdir)), workdir
    return made[toy, mode]
  return get


@pytest.fixture(scope="module")
def two_devices():
  """toy -> mode -> outcome on two devices; one child runs all toys of a kind."""
  made = {}

  def get(toy):
    if toy not in made:
      command = [sys.executable, "-m", "toys.modes", "pmap", "canonical", "--", *(QUICK if toy in QUICK else SLOW)]
      done = subprocess.run(command, cwd=child.ROOT, timeout=500, text=True, capture_output=True,
                            env=os.environ | ENVIRON | child.USUAL | {"JAX_NUM_CPU_DEVICES": "2"})
      assert done.returncode == 0, done.stderr
      made.update(json.loads(done.stdout.splitlines()[-1]))
    return made[toy]
  return get


def assert_close(one, other):
  """All floats of two outcomes agree to 1e-5."""
  for path, leaf in one["leaves"].items():
    np.testing.assert_allclose(leaf, other["leaves"][path], rtol=1e-5, atol=1e-5, err_msg=path)
  np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-5)
  assert one["dtypes"] == other["dtypes"]


@pytest.mark.slow
@pytest.mark.parametrize("toy", some(QUICK))
def test_modes_agree(toy, one_device, two_devices):
  """Canonical has one digest on one and two devices; pmap is its two chunks; a whole batch is four micro-batches."""
  canonical, _ = one_device(toy, "canonical")
  assert two_devices(toy)["canonical"]["digest"] == canonical["digest"]
  assert_close(two_devices(toy)["pmap"], canonical)
  if toy != "dual":  # draws its noise chunk by chunk
    whole, _ = one_device(toy)
    assert_close(whole, canonical)
    assert_close(one_device(toy, "chunks")[0], whole)


@pytest.mark.slow
def test_a_step_counts_once_whatever_it_does(one_device):
  """The GAN's learning rates and losses have names of their own, and each gradient its own count."""
  outcome, workdir = one_device("gan")
  header, *rows = child.facts(workdir)[1]
  assert {"train_loss", "lr", "grad_norm", "metric_critic_loss", "metric_critic_lr",
          "metric_critic_grad_norm"} <= set(header.split(","))
  assert child.facts(workdir)[0][-1]["step"] == 40
  lrs = [dict(zip(header.split(","), row.split(",")))["metric_critic_lr"] for row in rows if ",train," in row]
  cosine = [0.05 * np.mean([0.5 * (1 + np.cos(np.pi * t / 40)) for t in range(4 * k, 4 * k + 4)]) for k in range(10)]
  np.testing.assert_allclose([float(lr) for lr in lrs], cosine, rtol=1e-5)


def test_what_only_a_summary_reads_stays_out_of_the_facts(one_device):
  _, workdir = one_device("codebook")
  header, *rows = child.facts(workdir)[1]
  assert "metric_perplexity" in header.split(",") and "usage" not in header
  at = header.split(",").index("metric_perplexity")
  assert all(1 < float(row.split(",")[at]) <= 4 for row in rows)
  events = child.facts(workdir)[0]
  assert not any("usage" in name for event in events for name in event.get("metrics", {}))


@pytest.mark.slow
@pytest.mark.parametrize("toy", some(QUICK))
def test_stopped_and_resumed_it_ends_as_one_never_stopped(toy, one_device, tmp_path, monkeypatch):
  straight, workdir = one_device(toy)
  resumed, stops = stopping.train(modes.configured(toy), str(tmp_path / "run"), monkeypatch, every=6, num_steps=3)
  assert stops >= 2
  assert resumed.digest == straight["digest"] and child.facts(str(tmp_path / "run")) == child.facts(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("toy", modes.TOYS)
def test_killed_it_ends_as_one_never_stopped(toy, one_device, tmp_path):
  """By kill -9 inside its second save."""
  _, straight_dir = one_device(toy)
  workdir = str(tmp_path / "run")
  flags = (f"--config=tests/toys/{toy}.py", f"--workdir={workdir}")
  killed = child.run(*flags, environ=ENVIRON | {"JAXTRAIN_FAULT": "during_save:2"})
  assert killed.returncode == -9, killed.stderr
  done = child.run(*flags, environ=ENVIRON)
  assert done.returncode == 0, done.stderr
  assert child.resume_steps(workdir)[-1] > 0
  assert child.inspect(workdir)["digest"] == child.inspect(straight_dir)["digest"]
  assert child.facts(workdir) == child.facts(straight_dir)


@pytest.mark.slow
@pytest.mark.parametrize("toy", some(("gan",)))
def test_members_of_a_sweep_have_the_bits_of_runs_alone(toy, one_device, tmp_path):
  """Seeds and learning rates differ, the critic's too, and what a module itself calls traceable."""
  other = {"seed": 3, "optim.learning_rate": 0.03}
  other |= {"gan": {"optim_critic.learning_rate": 0.01}, "dual": {"dual.target": 3.0}}.get(toy, {})
  first = {key: config_lib.lookup(modes.configured(toy), key) for key in other}
  configured = lambda values: modes.configured(toy, **values)
  members = modes.sweep(tmp_path / "sweep", toy, configured, [first, other])
  alone = loop.train(modes.configured(toy, **other), str(tmp_path / "alone"))
  straight, straight_dir = one_device(toy)
  assert straight["digest"] != alone.digest
  for member, workdir in zip(members, (straight_dir, str(tmp_path / "alone"))):
    assert child.inspect(member)["digest"] == child.inspect(workdir)["digest"]
    assert child.facts(member) == child.facts(workdir)
