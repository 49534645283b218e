"""Models that come with jaxtrain: what their words stand for, and what may be done with them."""

import os

import pytest

from jaxtrain import commands, main
from jaxtrain.errors import UserError
from jaxtrain.workdir import kept, reading, records

KEPT = "kept:causal_discovery"


def test_words_of_a_kept_model_stand_for_a_folder_of_the_package():
  folder = kept.folder_of(KEPT)
  assert folder == os.path.join(kept.EXPERIMENTS, "causal_discovery", "pretrained")
  assert records.parse_reference(KEPT) == (folder, "best")
  assert records.parse_reference(f"{KEPT}@last") == (folder, "last")
  assert kept.folder_of("runs/kept:a") == "runs/kept:a"
  with pytest.raises(UserError, match=rf"'kept:nothing' is no kept model, allowed {KEPT}"):
    kept.folder_of("kept:nothing")


def test_a_kept_model_is_a_run_of_its_recipe_and_small():
  folder = kept.folder_of(KEPT)
  run = reading.read_run(folder, with_arrays=False)
  assert run.config["experiment"] == "jaxtrain.experiments.causal_discovery.pair_network" and not run.problems
  size = sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(folder) for name in names)
  assert size < 10e6


@pytest.mark.parametrize("mode", ["train", "eval", "check"])
def test_a_kept_model_is_read_only(mode):
  with pytest.raises(UserError, match=f"'{KEPT}' is read only, .*--init_from={KEPT} starts"):
    argv = ["main", f"--workdir={KEPT}", f"--mode={mode}"]
    main.run_mode(commands.parse(main.make_flags(), argv, main.__doc__), None)
