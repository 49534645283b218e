"""TensorBoard files: the numbers of scalars.csv are in them, hyper-parameters too; a resumed run drops what was cut."""

import glob
import os
import struct

import pytest
from tensorboardX.proto import event_pb2

import child

FLAGS = ("--config=configs/vae.py:breast_cancer", "--config.model.hidden_dims=8,", "--config.log.tensorboard",
         "--config.log.figures=none", "--config.log.progress=False")


def read_events(workdir: str) -> list:
  """Events of all files in order: records of length, its checksum, bytes, their checksum."""
  events = []
  for path in sorted(glob.glob(os.path.join(workdir, "tensorboard", "*")), key=os.path.getmtime):
    with open(path, "rb") as file:
      while head := file.read(12):
        size, = struct.unpack("<Q", head[:8])
        events.append(event_pb2.Event.FromString(file.read(size)))
        file.read(4)
  return events


@pytest.mark.slow
def test_rows_and_hyper_parameters_are_there_and_cut_on_resume(tmp_path):
  workdir = str(tmp_path / "run")
  assert child.run(*FLAGS, f"--workdir={workdir}", "--config.train.num_epochs=2").returncode == 0
  _, rows = child.facts(workdir)
  header, *rows = [row.split(",") for row in rows]
  rows = [dict(zip(header, row)) for row in rows]
  found = {(value.tag, event.step): value.simple_value for event in read_events(workdir)
           for value in event.summary.value}
  for row in rows:
    for name in ("metric_loss", "metric_recon", "metric_accuracy"):
      tag = f"{name.removeprefix('metric_')}/{row['split']}"
      assert found[tag, int(row["step"])] == pytest.approx(float(row[name]), rel=1e-6)
  assert any(tag == "_hparams_/session_start_info" for tag, _ in found)
  assert child.run(*FLAGS, f"--workdir={workdir}", "--config.train.num_epochs=3").returncode == 0
  starts = [event.step for event in read_events(workdir) if event.HasField("session_log")]
  # TensorBoard drops what earlier files have from there on: 7 steps an epoch, none kept by a first start, then two.
  assert starts == [1, 15]
