"""New events by the command, of a run whose data is no longer there."""

import csv
import os

import numpy as np
import pytest

import child
from jaxtrain.experiments.autoencoder import event_files, generator

FLAGS = ("--config.data.source=hdf5", "--config.data.split.kind=file", "--config.train.num_epochs=1",
         "--config.train.batch_size=32", "--config.optim.warmup_steps=0", "--config.log.figures=none",
         "--config.log.progress=False", *(f"--config.model.{part}.{size}" for part in ("encoder", "decoder")
                                          for size in ("hidden_dims=8,8", "num_blocks=1")))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["gan_ae", "diffusion_ae", "flow"])
def test_events_are_drawn_where_no_data_is_left(variant, tmp_path):
  path, run = str(tmp_path / "events.h5"), str(tmp_path / "run")
  events = generator.generate(160, 3)
  parts = {"train": slice(96), "val": slice(96, 128), "test": slice(128, 160)}
  event_files.write_hdf5(path, {part: events.take(rows) for part, rows in parts.items()})
  flags = (f"--config=configs/autoencoder.py:{variant}", f"--config.data.path={path}", f"--workdir={run}", *FLAGS)
  done = child.run(*flags)
  assert done.returncode == 0, done.stderr
  os.remove(path)
  out = str(tmp_path / "new.csv")
  done = child.run(f"--workdir={run}", "--verb=generate", "--num=50", f"--output={out}", command="predict")
  assert done.returncode == 0, done.stderr
  with open(out, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  pt = np.array([[float(row[f"pt_{t}"]) for t in range(18)] for row in rows])
  assert len(rows) == 50 and (np.diff(pt, axis=1) <= 0).all()
  kept = {tuple(row) for row in np.round(events.momenta[..., 1], 2).tolist()}
  assert not kept & {tuple(row) for row in np.round(pt, 2).tolist()}
