"""One digest on 1, 2, 4 and 8 devices in canonical mode, and through resumes on other counts; every config's smoke."""

import pytest

import child
import records

FLAGS = ("--config.parallel.mode=canonical", "--config.parallel.chunks=8", "--config.log.figures=none",
         "--config.log.progress=False")


def train(path, workdir, num_devices, num_epochs):
  """Digest of a smoke run, or of what it goes on to, on so many virtual CPU devices."""
  flags = (f"--config={path}:smoke", f"--workdir={workdir}", f"--config.train.num_epochs={num_epochs}", *FLAGS)
  environ = child.USUAL | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}"}
  done = child.run(*flags, environ=environ)
  assert done.returncode == 0, done.stderr
  assert f"on {num_devices} x cpu" in done.stdout
  return child.inspect(str(workdir))["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("path", [pytest.param(path, marks=[pytest.mark.slow] * (path != "configs/vae.py"))
                                  for path in records.CONFIGS])
def test_one_digest_on_one_and_eight_devices(path, tmp_path):
  """Eight: a single chunk on each device, which a compiler treats unlike a loop over several."""
  assert train(path, tmp_path / "8", 8, 2) == train(path, tmp_path / "1", 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("path", records.CONFIGS)
def test_one_digest_on_two_and_four_devices_and_through_resumes_on_other_counts(path, tmp_path):
  straight = train(path, tmp_path / "1", 1, 3)
  for num_devices in (2, 4):
    assert train(path, tmp_path / str(num_devices), num_devices, 3) == straight
  for num_devices, num_epochs in ((8, 1), (2, 2), (1, 3)):
    digest = train(path, tmp_path / "chain", num_devices, num_epochs)
  assert digest == straight
