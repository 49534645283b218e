"""Sweeps over tables: members whose simulated rows follow their seed are one program."""

import pathlib

import numpy as np
import pytest

import child
import consistency_cases as cases
from jaxtrain import config as config_lib
from jaxtrain.sweep import groups
from jaxtrain.workdir import journal as journal_lib
from runs import QUIET

SMOKE = ("--config=configs/causal_consistency.py:smoke", "--config.data.num_samples=120",
         "--config.data.seed=-1", *QUIET)


@pytest.mark.slow
def test_members_with_tables_of_their_own_are_one_program():
  """With `data.seed=-1` each seed has its table, and all are compiled once."""
  configs = [config_lib.resolve(cases.configured(**{"seed": seed, "data.seed": -1})) for seed in (3, 4)]
  found, = groups.group([groups.Spec(k, config, "", {}) for k, config in enumerate(configs)])
  assert len(found.specs) == 2 and not found.shared
  first, second = (np.asarray(parts.splits.train.data["x"]) for parts in found.parts)
  assert first.shape == second.shape and not np.isin(first[:, 0], second[:, 0]).any()


@pytest.mark.slow
def test_a_member_is_the_run_that_it_would_be_alone(tmp_path):
  """Digest, facts and assessment, of tables that follow the seed."""
  done = child.run(*SMOKE, "--sweep=seed=5,6", "--exact", f"--workdir={tmp_path / 'sweep'}", command="sweep")
  assert done.returncode == 0, done.stderr
  journal = journal_lib.Journal(str(tmp_path / "sweep"))
  assert [wave["members"] for wave in journal.waves] == [[0, 1]]
  for member, seed in zip(journal.members, (5, 6)):
    alone = str(tmp_path / f"alone {seed}")
    done = child.run(*SMOKE, f"--config.seed={seed}", f"--workdir={alone}")
    assert done.returncode == 0, done.stderr
    folder = journal.workdir(member)
    assert child.inspect(folder)["digest"] == child.inspect(alone)["digest"]
    assert child.facts(folder) == child.facts(alone)
    one, other = (pathlib.Path(path, "eval", "test.json").read_text(encoding="utf-8") for path in (folder, alone))
    assert one == other
