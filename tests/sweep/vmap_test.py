"""Members as one program: each is the run that it would be alone, stopped, resumed, halted or early at its end."""

import json
import os
import resource
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import child
import outside
from jaxtrain import config as config_lib, loop
from jaxtrain.data import splits
from jaxtrain.devices import backend
from jaxtrain.errors import InUse, Stopped, UserError
from jaxtrain.experiments.tabular_vae import vae
from jaxtrain.run import setup, stops as stops_lib
from jaxtrain.sweep import groups, program, vmap, wave as wave_lib
from jaxtrain.sweep.groups import Spec
from jaxtrain.workdir import journal as journal_lib, reading
from jaxtrain.workdir.lock import Lock

SETTINGS = [{"optim.learning_rate": rate, "seed": seed} for rate in (0.05, 0.01) for seed in (0, 1)]
MEANINGS = {"loss.weights.error": "of the squared errors"}  # as of a config file


def configured(values, **fields):
  """The regression outside, or with `variant="vae"` a tiny VAE with BatchNorm, noise and an annealed weight."""
  variant = fields.pop("variant", "table")
  if variant == "vae":
    config = config_lib.read_file("configs/vae.py:breast_cancer")
    fields = {"model.hidden_dims": (8,), "train.num_epochs": 3, "log.figures": "none", "log.progress": False} | fields
  else:
    config = outside.get_config(variant)
  for key, value in (fields | values).items():
    config_lib.assign(config, key, value)
  return config_lib.resolve(config)


def sweep(folder, settings, exact=True, most=0, stop=None, retry=(), **fields):
  """Trains members of these settings in a folder's sweep; returns its journal and what was said."""
  os.makedirs(folder, exist_ok=True)
  journal, said = journal_lib.Journal(str(folder)), []
  if journal.about is None:
    journal.begin({"config": "outside", "base": {}})
  configs = {config_lib.digest(c, config_lib.HOW): (values, c) for values, c in
             ((values, configured(values, **fields)) for values in settings)}
  added = journal.add([(values, digest) for digest, (values, _) in configs.items()])
  todo = [m for m in added if m.outcome in ("added", "started") or m.number in retry]
  with stop or stops_lib.Stop(0) as stopping:
    vmap.run(journal, todo, [m for m in added if m.number in retry], lambda m: configs[m.digest][1], {}, MEANINGS,
             vmap.Options(exact, most), stopping, said.append)
  return journal, said


def alone(folder, values, **fields):
  """The same member trained by itself."""
  loop.train(configured(values, **fields), str(folder))
  return str(folder)


def same(one, other):
  """Whether two runs have one digest and one set of facts."""
  return child.inspect(one)["digest"] == child.inspect(other)["digest"] and child.facts(one) == child.facts(other)


def rows(workdir):
  """Numbers of scalars.csv that runs are compared by."""
  return np.array([[float(cell or "nan") for k, cell in enumerate(line.split(",")) if k != 1]
                   for line in child.facts(workdir)[1][1:]])


@pytest.mark.parametrize("variant", ["table", pytest.param("stream", marks=pytest.mark.slow),
                                     pytest.param("vae", marks=pytest.mark.slow)])
def test_in_turn_a_member_has_the_bits_and_facts_of_a_run_alone(variant, tmp_path):
  plateau = {"optim.plateau.factor": 0.5, "optim.plateau.patience": 0}
  fields = {"variant": variant} | (plateau if variant == "vae" else {})
  settings = SETTINGS
  if variant == "vae":  # weights that are annealed, too
    settings = [values | {"loss.weights.kl": 0.3 + 0.1 * k} for k, values in enumerate(SETTINGS)]
  journal, said = sweep(tmp_path / "sweep", settings, **fields)
  assert sum("is longer than the run's" in line for line in said) == (variant == "vae")  # a note, once for all members
  for k, values in enumerate(settings):
    workdir = alone(tmp_path / str(k), values, **fields)
    member = journal.workdir(journal.members[k])
    assert child.inspect(member)["digest"] == child.inspect(workdir)["digest"]
    assert child.facts(member) == child.facts(workdir)
    assert child.inspect(member)["best_step"] == child.inspect(workdir)["best_step"]
    with open(os.path.join(member, "run.json"), encoding="utf-8") as file:
      assert json.load(file)["meanings"] == MEANINGS
  assert [member.outcome for member in journal.members] == ["done"] * 4


def test_in_turn_an_evaluation_of_one_batch_keeps_its_loop():
  """XLA takes a loop of one turn apart where it knows so, fuses it with what is around, and adds in another order."""
  def loops(batch_size: int) -> int:
    parts = setup.assemble(configured({}, **{"train.batch_size": batch_size}))
    val = parts.splits.val
    assert val.num_batches == -(-100 // batch_size)
    compiled = program.Compiled(program.Program(parts, ()), shared=True, num_places=2, num_devices=1, exact=True)
    evaluate = compiled.own(compiled.program.evaluate("val"), (True, True, False))
    lowered = evaluate.lower(compiled.shapes_of_all(parts.abstract), {}, setup.shapes(val.data))
    return lowered.compile().as_text().count(" while(")
  assert loops(batch_size=100) == loops(batch_size=50)


@pytest.mark.slow
def test_side_by_side_a_member_agrees_with_a_run_alone(tmp_path):
  """Losses to 1e-5: no threshold is met in these steps."""
  journal, _ = sweep(tmp_path / "sweep", SETTINGS, exact=False, variant="vae")
  for k in (0, 3):
    workdir = alone(tmp_path / str(k), SETTINGS[k], variant="vae")
    np.testing.assert_allclose(rows(journal.workdir(journal.members[k])), rows(workdir), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_member_that_stops_early_is_left_as_it_is(tmp_path):
  settings = [{"train.patience": 1, "optim.learning_rate": 0.5}, {"train.patience": 0, "optim.learning_rate": 0.05}]
  fields = {"train.min_delta": 0.01}
  journal, _ = sweep(tmp_path / "sweep", settings, **fields)
  for k, values in enumerate(settings):
    workdir = alone(tmp_path / str(k), values, **fields)
    member = journal.workdir(journal.members[k])
    assert child.facts(member) == child.facts(workdir)
    assert child.inspect(member)["digest"] == child.inspect(workdir)["digest"]
  ends = [child.facts(journal.workdir(m))[0][-2:] for m in journal.members]
  assert [any(event.get("stopped_early") for event in end) for end in ends] == [True, False]


@pytest.mark.slow
def test_a_plateau_on_validation_is_each_members_own(tmp_path):
  """Its patience is read in `observe` alone, which is part of what makes two members one program."""
  settings = [{"optim.plateau.patience": 0}, {"optim.plateau.patience": 5}]
  fields = {"optim.plateau.factor": 0.5, "optim.plateau.monitor": "val_loss", "optim.plateau.threshold": 0.5}
  journal, _ = sweep(tmp_path / "sweep", settings, **fields)
  assert [wave["members"] for wave in journal.waves] == [[0], [1]]
  for k, values in enumerate(settings):
    assert same(journal.workdir(journal.members[k]), alone(tmp_path / str(k), values, **fields))
  assert not same(journal.workdir(journal.members[0]), journal.workdir(journal.members[1]))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [
    {"train.num_epochs": 0, "train.num_steps": 17, "checkpoint.every_steps": 5, "eval.every_steps": 4},
    {"variant": "nan", "train.on_nonfinite": "skip"}, {"train.monitor_from_epoch": 3, "train.patience": 1},
    {"train.patience": 1, "train.min_delta": 0.5, "checkpoint.every_epochs": 1}, {"optim.ema_decay": 0.9}])
def test_odd_lengths_skipped_steps_and_early_stops_at_a_save(fields, tmp_path):
  journal, _ = sweep(tmp_path / "sweep", SETTINGS[:2], **fields)
  for k, values in enumerate(SETTINGS[:2]):
    assert same(journal.workdir(journal.members[k]), alone(tmp_path / str(k), values, **fields))


@pytest.mark.slow
def test_left_in_the_middle_of_its_end_a_wave_goes_on(tmp_path, monkeypatch):
  """Checkpoints of a member are there and its evaluation is not: the process ended in between."""
  from jaxtrain import loop
  straight, _ = sweep(tmp_path / "straight", SETTINGS)
  conclude, calls = loop.conclude, []

  def leave(*args):
    calls.append(1)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return conclude(*args)

  monkeypatch.setattr(loop, "conclude", leave)
  with pytest.raises(KeyboardInterrupt):
    sweep(tmp_path / "left", SETTINGS)
  again, _ = sweep(tmp_path / "left", SETTINGS)
  assert [m.outcome for m in again.members] == ["done"] * 4 and len(again.waves) == 1
  assert all(same(straight.workdir(a), again.workdir(b)) for a, b in zip(straight.members, again.members))
  assert not os.path.exists(tmp_path / "left" / "waves" / "0")


@pytest.mark.slow
def test_what_fails_in_the_end_of_one_is_its_own_and_can_be_trained_again(tmp_path, monkeypatch):
  from jaxtrain import loop
  conclude = loop.conclude

  def fail(run, *args):
    if run.config.seed == 1:
      raise ValueError("no such thing")
    return conclude(run, *args)

  with monkeypatch.context() as patch:
    patch.setattr(loop, "conclude", fail)
    journal, _ = sweep(tmp_path / "sweep", SETTINGS[:2])
  assert [(m.outcome, m.reason) for m in journal.members] == [("done", ""), ("failed", "no such thing")]
  journal, _ = sweep(tmp_path / "sweep", SETTINGS[:2], retry=(1,))
  assert [m.outcome for m in journal.members] == ["done"] * 2
  assert same(journal.workdir(journal.members[1]), alone(tmp_path / "alone", SETTINGS[1]))


@pytest.mark.slow
def test_a_member_that_was_removed_is_trained_anew(tmp_path):
  journal, _ = sweep(tmp_path / "sweep", SETTINGS[:2])
  first, second = journal.members
  before = child.facts(journal.workdir(first))
  shutil.rmtree(journal.workdir(first))
  assert [journal.is_lost(member) for member in (first, second)] == [True, False]
  journal, _ = sweep(tmp_path / "sweep", SETTINGS[:2], retry=(0,))
  assert [m.outcome for m in journal.members] == ["done"] * 2 and not journal.is_lost(journal.members[0])
  assert child.facts(journal.workdir(first)) == before


@pytest.mark.slow
def test_many_members_need_few_open_files(tmp_path):
  limits = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, limits[1]))
  try:
    journal, _ = sweep(tmp_path / "sweep", [{"seed": k} for k in range(60)], **{"train.num_epochs": 1})
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
  assert all(member.outcome == "done" for member in journal.members)


@pytest.mark.slow
def test_data_that_has_changed_is_refused(tmp_path, monkeypatch):
  with pytest.raises(Stopped):
    sweep(tmp_path / "sweep", SETTINGS[:2], stop=StopAfter(1))
  load = outside.load
  monkeypatch.setattr(outside, "load", lambda config: load(config)._replace(meta={"steps_per_epoch": 7, "rows": 3}))
  with pytest.raises(UserError, match="the data has changed"):
    sweep(tmp_path / "sweep", SETTINGS[:2])


def test_a_member_begun_by_itself_is_not_begun_again(tmp_path):
  journal, _ = sweep(tmp_path / "sweep", [])
  added = journal.add([(SETTINGS[0], config_lib.digest(configured(SETTINGS[0]), config_lib.HOW))])
  alone(journal.workdir(added[0]), SETTINGS[0])
  with pytest.raises(UserError, match="--launcher=local"):
    sweep(tmp_path / "sweep", SETTINGS[:1])


class StopAfter(stops_lib.Stop):
  """Asks to stop at its n-th question."""

  def __init__(self, num_questions):
    super().__init__(0)
    self.left = num_questions

  def reason(self, begun=True):
    self.left -= 1
    return "test" if self.left < 0 else None


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_stopped_again_and_again_it_ends_as_one_never_stopped(exact, tmp_path, monkeypatch):
  straight, _ = sweep(tmp_path / "straight", SETTINGS, exact)
  monkeypatch.setattr(loop.Pace, "num_steps", lambda self: 5)
  start, starts, stops = wave_lib.start, [], 0
  monkeypatch.setattr(wave_lib, "start", lambda *args: starts.append(start(*args)))
  while True:
    try:
      stopped, _ = sweep(tmp_path / "stopped", SETTINGS, exact, stop=StopAfter(4))
      break
    except Stopped:
      stops += 1
  assert stops > 1 and len(stopped.waves) == len(starts) == 1  # what goes on makes no fresh states
  for a, b in zip(straight.members, stopped.members):
    one, other = straight.workdir(a), stopped.workdir(b)
    assert same(one, other)


@pytest.mark.slow
def test_a_member_in_training_is_in_use_and_free_again_after_it(tmp_path):
  """A run that started in a member's folder meanwhile would write the same facts."""
  asked, folder = [], tmp_path / "sweep"

  class TryMembers(stops_lib.Stop):
    """Starts a run in each member's folder at each question."""

    def reason(self, begun=True):
      for member in journal_lib.Journal(str(folder)).members if len(asked) < 4 else ():
        with pytest.raises(InUse, match="in use by process"):
          alone(folder / member.folder, member.values)
        asked.append(member.number)
      return super().reason(begun)

  journal, _ = sweep(folder, SETTINGS[:2], stop=TryMembers(0))
  straight, _ = sweep(tmp_path / "straight", SETTINGS[:2])
  assert {0, 1} <= set(asked)
  for a, b in zip(journal.members, straight.members):
    assert same(journal.workdir(a), straight.workdir(b))
  alone(journal.workdir(journal.members[0]), SETTINGS[0])  # it is done, and may be assessed or made longer
  with Lock(str(folder / "runs" / "000-x")), pytest.raises(InUse):
    Lock(str(folder / "runs" / "001-x"), str(folder / "runs" / "000-x"))
  assert not (folder / "runs" / "001-x").exists()  # none is kept where one is refused


@pytest.mark.slow
def test_a_member_that_halts_is_failed_and_the_others_go_on(tmp_path):
  settings = [{"optim.learning_rate": 1e30}, {"optim.learning_rate": 0.05}]
  journal, said = sweep(tmp_path / "sweep", settings)
  assert [member.outcome for member in journal.members] == ["failed", "done"]
  assert "is not finite" in journal.members[0].reason and any("member 000" in line for line in said)
  events = reading.read_events(os.path.join(journal.workdir(journal.members[0]), "facts", "events.jsonl"))
  assert events[-1]["moment"] == "on_exception"
  workdir = alone(tmp_path / "alone", settings[1])
  assert child.inspect(workdir)["digest"] == child.inspect(journal.workdir(journal.members[1]))["digest"]
  again, _ = sweep(tmp_path / "sweep", settings, retry=(0,))
  assert [wave["members"] for wave in again.waves] == [[0, 1], [0]] and again.members[0].outcome == "failed"


@pytest.mark.slow
def test_a_member_whose_validation_is_not_finite_is_failed(tmp_path, monkeypatch):
  make = outside.make

  def failing(config, meta):
    made, is_bad = make(config, meta), config.optim.learning_rate > 0.03

    def eval_step(state, batch, key, over):
      total, count = made.eval_step(state, batch, key, over)["loss"]
      return {"loss": (jnp.where(is_bad & (state.step > 7), jnp.nan, total), count)}
    return made._replace(eval_step=eval_step)

  monkeypatch.setattr(outside, "make", failing)
  settings = [{"optim.learning_rate": 0.05}, {"optim.learning_rate": 0.01}]
  journal, _ = sweep(tmp_path / "sweep", settings)
  assert [(member.outcome, member.code) for member in journal.members] == [("failed", 3), ("done", None)]
  assert journal.members[0].reason == "step 14: val_loss is not finite; halted after this evaluation"
  assert same(journal.workdir(journal.members[1]), alone(tmp_path / "alone", settings[1]))


def test_members_have_the_labels_that_their_own_seed_leaves():
  group, = groups.group([Spec(seed, configured({"seed": seed, "data.label_share": 0.5}, variant="vae"), "", {})
                         for seed in (0, 1)])
  label = vae.load(configured({}, variant="vae")).train.data["label"]
  assert not group.shared
  for seed, parts in enumerate(group.parts):
    want = splits.hide_labels(label, np.arange(len(label)), 0.5, splits.label_random(seed))
    np.testing.assert_array_equal(parts.splits.train.data["label"], want)


@pytest.mark.slow
def test_other_shapes_are_other_groups_and_resamples_are_not(tmp_path):
  settings = [{"train.batch_size": size, "seed": seed} for size in (16, 32) for seed in (0, 1)]
  journal, said = sweep(tmp_path / "shapes", settings)
  assert [wave["members"] for wave in journal.waves] == [[0, 1], [2, 3]] and "2 groups of equal shapes" in said[0]
  settings = [{"data.resample": k} for k in range(3)]
  journal, _ = sweep(tmp_path / "resamples", settings, variant="vae")
  assert [wave["members"] for wave in journal.waves] == [[0, 1, 2]]
  workdir = alone(tmp_path / "alone", settings[2], variant="vae")
  assert child.inspect(workdir)["digest"] == child.inspect(journal.workdir(journal.members[2]))["digest"]
  assert child.inspect(workdir)["digest"] != child.inspect(journal.workdir(journal.members[0]))["digest"]


@pytest.mark.slow
def test_waves_are_as_large_as_memory_allows(tmp_path, monkeypatch):
  specs = [Spec(k, configured(values), str(tmp_path / str(k)), {}) for k, values in enumerate(SETTINGS)]
  group, = groups.group(specs)
  needs = {n: group.compiled(n, 1, False).bytes_needed() for n in (1, 2, 4)}
  assert needs[1] < needs[2] < needs[4]
  monkeypatch.setattr(backend, "free_bytes", lambda: (needs[2] + needs[4]) / 2 / vmap.ROOM)
  journal, _ = sweep(tmp_path / "sweep", SETTINGS, exact=False)
  assert [len(wave["members"]) for wave in journal.waves] == [2, 2]
  monkeypatch.setattr(backend, "free_bytes", lambda: 1.0)
  with pytest.raises(UserError, match="a member needs"):
    sweep(tmp_path / "none", SETTINGS)


def test_an_experiment_that_reads_the_seed_is_loaded_for_each(tmp_path, monkeypatch):
  """Its data is then stacked: members still share a program and have each their own rows."""
  load, seeds = outside.load, []

  def seeded(config):
    seeds.append(config.seed)
    return load(config)

  monkeypatch.setattr(outside, "load", seeded)
  specs = [Spec(k, configured({"seed": k}), str(tmp_path / str(k)), {}) for k in range(2)]
  group, = groups.group(specs)
  assert seeds == [0, 1] and group.parts[0] is not group.parts[1]


def test_what_only_a_run_of_its_own_can_do_is_refused(tmp_path):
  for field, value in (("parallel.mode", "pmap"), ("train.num_members", 2), ("train.microbatch", 8)):
    with pytest.raises(UserError, match=f"config.{field}.*--launcher=local"):
      sweep(tmp_path / "sweep", [{"seed": 0}], **{field: value})


@pytest.mark.slow
def test_a_member_is_a_run_like_any(tmp_path):
  """Its folder can be trained on and inspected; members done are not trained again, new values extend."""
  journal, _ = sweep(tmp_path / "sweep", SETTINGS[:2])
  member = journal.workdir(journal.members[0])
  before = os.stat(os.path.join(member, "facts", "events.jsonl")).st_mtime_ns
  journal, said = sweep(tmp_path / "sweep", SETTINGS)
  assert [wave["members"] for wave in journal.waves] == [[0, 1], [2, 3]]
  assert os.stat(os.path.join(member, "facts", "events.jsonl")).st_mtime_ns == before
  longer = configured(SETTINGS[0] | {"train.num_epochs": 8})
  straight = loop.train(longer, str(tmp_path / "straight"))
  assert loop.train(longer, member).digest == straight.digest
  with open(os.path.join(member, "config.json"), encoding="utf-8") as file:
    assert json.load(file)["train"]["num_epochs"] == 8

