"""Rows with missing features in every kind of run: out of core, an ensemble, a sweep as one program; then the verbs."""

import h5py
import numpy as np
import pytest

import child
import jaxtrain
from jaxtrain import config as config_lib, loop
from jaxtrain.errors import Stopped
from jaxtrain.run import stops
from jaxtrain.sweep import vmap
from jaxtrain.workdir import journal as journal_lib

N = 64


def table():
  """Three columns of which every third row lacks one, a row with nothing at the end, and labels."""
  random = np.random.RandomState(0)
  x = random.normal(size=(N, 3)) + random.normal(size=(N, 1))
  for i in range(0, N, 3):
    x[i, i // 3 % 3] = np.nan
  x[-1] = np.nan
  return x, np.where(np.nan_to_num(x).sum(axis=1) > 0, "sand", "clay")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  x, rock = table()
  path = str(tmp_path_factory.mktemp("holes") / "t.h5")
  with h5py.File(path, "w") as file:
    file["x"], file["rock"] = x, rock.astype("S4")
  return path


def configured(path, **fields):
  config = config_lib.read_file("configs/vae.py:csv")
  fields = {"data.source": "hdf5", "data.path": path, "data.features": ("x",), "data.label": "rock",
            "data.incomplete": "mask", "data.split.kind": "random", "model.kind": "semisup", "model.hidden_dims": (8,),
            "model.batch_norm": False, "model.latent_dim": 2, "model.head_dim": 4, "train.num_epochs": 2,
            "train.batch_size": 16, "log.figures": "none", "log.progress": False} | fields
  for key, value in fields.items():
    config_lib.assign(config, key, value)
  return config_lib.resolve(config)


def check_verbs(workdir, several=False):
  """Each verb gives what is finite for every row that has something, and fills what is missing."""
  x, _ = table()
  run, names = jaxtrain.load(workdir), ("x_0", "x_1", "x_2")
  something = ~np.isnan(x).all(axis=1)
  for verb in ("embed", "reconstruct", "classify"):
    found = {name: column for name, column in run.verbs[verb](x).items() if column.dtype.kind == "f"}
    assert found, verb
    for name, column in found.items():
      assert (np.isfinite(column) == something).all() or name.endswith("_sd"), (verb, name)
  filled = run.impute(x)
  for d, name in enumerate(names):
    gap = np.isnan(x[:, d])
    np.testing.assert_array_equal(filled[name][~gap], x[~gap, d])
    assert np.isfinite(filled[name]).all() and ((filled[f"{name}_sd"] > 0) == gap).all()
  assert ("m1_emb_0" in run.embed(x)) == several


@pytest.mark.slow
def test_out_of_core_gives_the_weights_of_the_table_in_memory(path, tmp_path):
  inside = loop.train(configured(path))
  outside = loop.train(configured(path, **{"data.out_of_core": True}), str(tmp_path / "run"))
  assert outside.digest == inside.digest and outside.history["val_loss"] == inside.history["val_loss"]
  check_verbs(str(tmp_path / "run"))


@pytest.mark.slow
def test_out_of_core_stopped_and_resumed_ends_as_one_never_stopped(path, tmp_path, monkeypatch):
  config = configured(path, **{"data.out_of_core": True})
  straight, asked = loop.train(config), []
  monkeypatch.setattr(loop.Pace, "num_steps", lambda self: 1)
  monkeypatch.setattr(stops.Stop, "reason", lambda self, begun=True: asked.append(1) or len(asked) == 3 and "test")
  with pytest.raises(Stopped):
    loop.train(config, str(tmp_path / "run"))
  assert loop.train(config, str(tmp_path / "run")).digest == straight.digest


@pytest.mark.slow
def test_an_ensemble(path, tmp_path):
  loop.train(configured(path, **{"train.num_members": 2}), str(tmp_path / "run"))
  check_verbs(str(tmp_path / "run"), several=True)


@pytest.mark.slow
def test_members_of_a_sweep_are_runs_alone(path, tmp_path):
  settings = [{"seed": 0}, {"seed": 1}]
  (tmp_path / "sweep").mkdir()
  journal = journal_lib.Journal(str(tmp_path / "sweep"))
  journal.begin({"config": "configs/vae.py:csv", "base": {}})
  configs = [configured(path, **values) for values in settings]
  digests = [config_lib.digest(config, config_lib.HOW) for config in configs]
  members = journal.add(list(zip(settings, digests)))
  with stops.Stop(0) as stop:
    vmap.run(journal, members, [], lambda m: configs[digests.index(m.digest)], {}, {}, vmap.Options(True, 0), stop,
             lambda words: None)
  for k, config in enumerate(configs):
    workdir = journal.workdir(journal.members[k])
    loop.train(config, str(tmp_path / str(k)))
    assert child.inspect(workdir)["digest"] == child.inspect(str(tmp_path / str(k)))["digest"]
    mine, alone = (child.facts(folder)[0] for folder in (workdir, str(tmp_path / str(k))))
    assert [event["step"] for event in mine] == [event["step"] for event in alone]
    check_verbs(workdir)
