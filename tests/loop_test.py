"""The loop on its two extremes, an endless stream and a table, with an experiment from outside the package."""

import csv
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import child
import outside
from jaxtrain import config as config_lib, loop, rng
from jaxtrain.devices import backend
from jaxtrain.errors import NonFinite, Stopped, UserError
from jaxtrain.run import check, packing, stops as stops_lib
from jaxtrain.types import Source
from jaxtrain.workdir import records
from jaxtrain.workdir.lock import Lock


def configured(variant="table", **overrides):
  config = outside.get_config(variant)
  for key, value in overrides.items():
    config_lib.assign(config, key.replace("__", "."), value)
  return config


def rows_of(workdir):
  with open(os.path.join(workdir, "facts", "scalars.csv"), encoding="utf-8") as file:
    return list(csv.DictReader(file))


def moments(workdir):
  with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
    return [json.loads(line) for line in file]


@pytest.mark.smoke
@pytest.mark.parametrize("variant", ["stream", "table"])
def test_learns_and_leaves_its_files(variant, tmp_path):
  workdir = str(tmp_path / "run")
  result = loop.train(configured(variant), workdir)
  np.testing.assert_allclose(result.state.params["slope"], outside.SLOPE, atol=0.5)
  assert result.final_val_loss < result.history["val_loss"][0]
  assert result.best_value == min(result.history["val_loss"])
  for name in ("config.json", "run.json", "history.json", "log.txt", "facts/process.jsonl", "checkpoints/best",
               "checkpoints/last"):
    assert os.path.exists(os.path.join(workdir, name)), name
  assert not os.path.isabs(os.readlink(os.path.join(workdir, "checkpoints", "best")))
  rows = rows_of(workdir)
  assert list(rows[0])[:10] == ["epoch", "split", "step", "train_loss", "val_loss", "lr", "grad_norm", "epoch_time_s",
                                "throughput", "max_memory_mib"]
  assert {row["epoch"] for row in rows} == ({"-1"} if variant == "stream" else {"1", "2", "3", "4", "5", "6"})
  assert [row["split"] for row in rows[:2]] == ["train", "val"]
  assert rows[0]["val_loss"] == "" and rows[1]["train_loss"] == ""
  names = [event["moment"] for event in moments(workdir)]
  assert names[0] == "on_start" and "on_eval" in names and "on_checkpoint" in names
  assert names[-1] == ("on_train_end" if variant == "stream" else "on_test_end")
  assert len({event["run_id"] for event in moments(workdir)}) == 1
  assert (result.test_loss is None) == (variant == "stream")


def test_without_a_workdir_no_file_and_the_same_result(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with_files = loop.train(configured(), str(tmp_path / "run"))
  os.mkdir("empty")
  monkeypatch.chdir("empty")
  without = loop.train(configured())
  assert os.listdir(".") == []
  assert without.workdir is None and without.digest == with_files.digest and without.test_loss == with_files.test_loss
  assert without.history["loss"] == with_files.history["loss"]


def test_batches_of_several_shapes_take_turns(tmp_path):
  """Each step has its bucket's shape; a run stopped inside a bucket goes on bit for bit."""
  result = loop.train(configured("buckets", train__num_steps=40, eval__every_steps=40), str(tmp_path / "straight"))
  source = outside.load(configured("buckets")).train
  assert [source.in_bucket(source.bucket(s)).batch_at({}, s, jax.random.key(0))["x"].shape[0]
          for s in (0, 15, 16, 31, 32)] == [16, 16, 12, 12, 16]
  loop.train(configured("buckets", train__num_steps=20, eval__every_steps=40, optim__decay_steps=40),
             str(tmp_path / "stopped"))
  resumed = loop.train(configured("buckets", train__num_steps=40, eval__every_steps=40), str(tmp_path / "stopped"))
  assert resumed.digest == result.digest


def test_evaluation_goes_through_all_buckets():
  """The mean error over 16 + 16 + 12 rows, worked out from the batches themselves."""
  result = loop.train(configured("buckets", train__num_steps=1, eval__every_steps=1))
  source, key = outside.load(configured("buckets")).val, rng.stream_key(rng.root_key(0), "val_data")
  errors = []
  for step_number in range(3):
    batch = source.in_bucket(source.bucket(step_number)).batch_at({}, step_number, key)
    errors += list(np.square(np.asarray(batch["y"] - batch["x"] @ result.state.params["slope"])[:, 0]))
  assert len(errors) == 44
  np.testing.assert_allclose(result.final_val_loss, np.mean(errors), rtol=1e-5)


@pytest.mark.parametrize("what", ["given", "drawn"])
def test_validation_and_test_have_data_and_draws_of_their_own(what, monkeypatch):
  """A source and an evaluation that draw the same numbers from the same key: none are equal."""
  uniform, load, make = lambda key: jax.random.uniform(key, (16,)), outside.load, outside.make

  def draw(data, step_number, key):
    return outside.simulate(data, step_number, key) | {"given": uniform(rng.step_key(key, step_number))}

  def eval_step(state, batch, key, over):
    drawn = {"given": batch["given"], "drawn": uniform(key)}
    return {"loss": (jnp.sum(drawn[what]), jnp.float32(16)),
            "same": (jnp.sum(drawn["given"] == drawn["drawn"]), jnp.float32(16))}

  source = Source({}, draw, 2)
  monkeypatch.setattr(outside, "load", lambda config: load(config)._replace(val=source, test=source))
  monkeypatch.setattr(outside, "make", lambda config, meta: make(config, meta)._replace(eval_step=eval_step))
  result = loop.train(configured("stream", train__num_steps=1, eval__every_steps=1))
  assert result.history["val_same"] == [0.0] and result.test_loss != result.final_val_loss


@pytest.mark.parametrize("variant", ["stream", "buckets", "table"])
def test_no_split_into_dispatches_changes_a_bit(variant, monkeypatch):
  """One step per dispatch, and all that fit: same digest, same reported numbers."""
  whole = loop.train(configured(variant))
  monkeypatch.setattr(loop.Pace, "num_steps", lambda self: 1)
  single = loop.train(configured(variant))
  assert single.digest == whole.digest and single.history["loss"] == whole.history["loss"]
  assert single.history["grad_norm"] == whole.history["grad_norm"]


def test_a_stop_between_epochs_loses_nothing(tmp_path, monkeypatch):
  """Asked to stop after every sixth dispatch of one step, a run ends with the digest and facts of one never stopped."""
  straight = loop.train(configured(), str(tmp_path / "straight"))
  monkeypatch.setattr(loop.Pace, "num_steps", lambda self: 1)
  calls = []

  def reason(self, started):
    calls.append(1)
    return "test" if len(calls) % 6 == 0 else None

  monkeypatch.setattr(stops_lib.Stop, "reason", reason)
  stops = 0
  while True:
    try:
      stopped = loop.train(configured(), str(tmp_path / "stopped"))
      break
    except Stopped:
      stops += 1
  assert stops >= 5
  assert stopped.digest == straight.digest
  events, rows = child.facts(str(tmp_path / "stopped"))
  straight_events, straight_rows = child.facts(str(tmp_path / "straight"))
  assert rows == straight_rows
  for event, other in zip(events, straight_events):
    assert event == other
  assert len(events) == len(straight_events)
  assert stopped.history["loss"] == straight.history["loss"]


def test_a_grown_run_goes_on_and_keeps_its_schedule(tmp_path, capsys):
  workdir = str(tmp_path / "run")
  loop.train(configured(optim__schedule="cosine"), workdir)
  grown = loop.train(configured(optim__schedule="cosine", train__num_epochs=8), workdir)
  assert len(grown.history["loss"]) == 8
  assert "keeps its horizon of 42 steps" in capsys.readouterr().out
  assert grown.history["lr"][-1] == 0.0
  with open(os.path.join(workdir, "config.json"), encoding="utf-8") as file:
    assert json.load(file)["optim"]["decay_steps"] == 42


def test_another_config_is_refused_with_the_differences(tmp_path):
  workdir = str(tmp_path / "run")
  loop.train(configured(), workdir)
  with pytest.raises(UserError, match=r"config.optim.learning_rate: 0.05 -> 0.01"):
    loop.train(configured(optim__learning_rate=0.01), workdir)
  loop.train(configured(log__every_steps=3), workdir)  # may change


@pytest.mark.parametrize("resume, exists, message", [("never", True, "--resume=never"),
                                                     ("required", False, "--resume=required")])
def test_resume_flag(resume, exists, message, tmp_path):
  workdir = str(tmp_path / "run")
  if exists:
    loop.train(configured(), workdir)
  with pytest.raises(UserError, match=message):
    loop.train(configured(), workdir, resume=resume)


def test_changed_data_is_refused(tmp_path, monkeypatch):
  workdir = str(tmp_path / "run")
  loop.train(configured(), workdir)
  load = outside.load
  monkeypatch.setattr(outside, "load", lambda config: load(config)._replace(meta={"steps_per_epoch": 7,
                                                                                  "sha256": "other"}))
  with pytest.raises(UserError, match="data has changed .*sha256 was '?absent'?, is 'other'"):
    loop.train(configured(), workdir)


def test_a_workdir_in_use_is_refused(tmp_path):
  lock = Lock(str(tmp_path / "run"))
  with pytest.raises(UserError, match="is in use by process"):
    loop.train(configured(), str(tmp_path / "run"))
  lock.close()
  loop.train(configured(), str(tmp_path / "run"))


def test_patience_stops_early_and_resume_knows(tmp_path):
  workdir = str(tmp_path / "run")
  settings = dict(train__patience=2, train__min_delta=100.0, train__num_epochs=30)
  result = loop.train(configured(**settings), workdir)
  assert len(result.history["loss"]) == 3 and result.best_step == 7
  again = loop.train(configured(**settings), workdir)
  assert again.digest == result.digest and len(again.history["loss"]) == 3


def test_monitor_mode_max_and_unknown_monitor():
  result = loop.train(configured(train__monitor="train_lr", train__monitor_mode="max"))
  assert result.best_step == 7
  with pytest.raises(UserError, match="config.train.monitor: got 'val_nothing', allowed .*val_loss"):
    loop.train(configured(train__monitor="val_nothing"))


def test_until_monitor_from_epoch_the_newest_is_best():
  result = loop.train(configured(train__monitor="train_lr", train__monitor_mode="max", train__monitor_from_epoch=4))
  assert result.best_step == 5 * 7  # the first that is compared; the learning rate is constant


def test_best_is_written_with_the_next_checkpoint_and_assessed(tmp_path):
  workdir = str(tmp_path / "run")
  result = loop.train(configured(train__monitor_mode="max", checkpoint__every_epochs=3), workdir)
  assert result.best_step == 7
  assert os.readlink(os.path.join(workdir, "checkpoints", "best")) == "7"
  assert sorted(records.committed_steps(os.path.join(workdir, "checkpoints"))) == [7, 21, 42]
  assert result.test_loss == pytest.approx(result.history["val_loss"][0], rel=1e-6)  # test and val are one table here
  test, = (row for row in rows_of(workdir) if row["split"] == "test")  # it is of the best state, not of the last
  assert (test["epoch"], test["step"]) == ("1", "7")
  event = moments(workdir)[-1]
  assert [event[name] for name in ("moment", "epoch", "step", "best_step")] == ["on_test_end", 1, 7, 7]


def test_nonfinite_halts_with_step_and_metric_or_is_skipped(tmp_path):
  with pytest.raises(NonFinite, match=r"step \d+: error is not finite"):
    loop.train(configured("nan"), str(tmp_path / "halt"))
  assert moments(str(tmp_path / "halt"))[-1]["moment"] == "on_exception"
  results = [loop.train(configured("nan", train__on_nonfinite="skip", train__monitor="train_loss"),
                        str(tmp_path / f"skip{i}")) for i in range(2)]
  assert results[0].digest == results[1].digest
  assert int(results[0].state.guard.num_bad) == 6 and int(results[0].state.step) == 42  # one bad batch an epoch
  assert np.isfinite(results[0].history["loss"]).all()
  alarms = [alarm for event in moments(str(tmp_path / "skip0")) if event["moment"] == "on_epoch_end"
            for alarm in event["alarms"]]
  assert alarms[-2:] == ["6 steps left out as not finite", "val_loss is not finite"]  # the bad row is validated too


def test_a_finished_run_started_again_remembers_the_steps_that_were_left_out(tmp_path):
  """It makes no dispatch, so what the guard has seen comes from the checkpoint."""
  config = configured("nan", train__on_nonfinite="skip", train__monitor="train_loss")
  loop.train(config, str(tmp_path))
  first = child.facts(str(tmp_path))
  loop.train(config, str(tmp_path))
  assert child.facts(str(tmp_path)) == first
  assert [event["bad_steps"] for event in first[0] if event["moment"] == "on_train_end"][0] > 0



def test_microbatches_give_the_gradient_of_the_whole_batch():
  """Ragged last batch included: the sums of chunks are divided by the counts of the whole batch."""
  whole = loop.train(configured())
  chunks = loop.train(configured(train__microbatch=8, train__batch_size=16))
  np.testing.assert_allclose(chunks.state.params["slope"], whole.state.params["slope"], rtol=1e-5)
  np.testing.assert_allclose(chunks.history["loss"], whole.history["loss"], rtol=1e-5)


@pytest.mark.slow
def test_the_largest_microbatch_that_fits(tmp_path, monkeypatch, capsys):
  """It is what XLA says a step needs that decides; a resumed run keeps it, whatever is free then."""
  def smoke(rows, num_epochs=1):
    config = config_lib.read_file(os.path.join(child.ROOT, "configs", "vae.py:smoke"))
    config.train.microbatch, config.train.num_epochs = rows, num_epochs
    config.log.progress, config.log.figures = False, "none"
    return config
  def needs(rows):
    described = check.describe(smoke(rows))
    return described["argument_bytes"] + described["temporary_bytes"]
  assert needs(64) < needs(128) < needs(256)
  room = int(needs(128) / 0.9) + 2
  monkeypatch.setattr(backend, "free_bytes", lambda: room)
  workdir = str(tmp_path / "run")
  fitted = loop.train(smoke(-1), workdir)
  assert "micro-batches of 128 rows" in capsys.readouterr().out
  assert fitted.digest == loop.train(smoke(128)).digest
  monkeypatch.setattr(backend, "free_bytes", lambda: 1 << 40)
  capsys.readouterr()
  assert loop.train(smoke(-1, 2), workdir).digest == loop.train(smoke(128, 2)).digest
  assert "micro-batches of 128 rows" in capsys.readouterr().out
  monkeypatch.setattr(backend, "free_bytes", lambda: 1000)
  with pytest.raises(UserError, match="no divisor of config.train.batch_size = 256 fits"):
    loop.train(smoke(-1))


def test_a_chunk_with_one_real_row_is_refused():
  with pytest.raises(UserError, match="allowed at least 2 real rows"):
    loop.train(configured(train__batch_size=99))


def test_ema_is_what_is_evaluated():
  plain, averaged = loop.train(configured()), loop.train(configured(optim__ema_decay=0.99))
  # two programs, whose last bits may differ
  np.testing.assert_allclose(plain.state.params["slope"], averaged.state.params["slope"], rtol=1e-5)
  assert averaged.final_val_loss > plain.final_val_loss  # the average lags behind
  np.testing.assert_allclose(averaged.history["loss"], plain.history["loss"], rtol=1e-5)


def test_plateau_on_an_evaluated_metric_cuts_the_learning_rate():
  result = loop.train(configured(optim__plateau__factor=0.5, optim__plateau__patience=0, optim__plateau__threshold=0.99,
                                 optim__plateau__monitor="val_loss"))
  assert result.history["lr"][0] == pytest.approx(0.05) and result.history["lr"][-1] < 0.01


def test_init_from_takes_parameters_or_all(tmp_path):
  first = loop.train(configured(), str(tmp_path / "first"))
  fresh = loop.train(configured(train__num_epochs=1, optim__learning_rate=1e-12), str(tmp_path / "params"),
                     init_from=f"{tmp_path / 'first'}@last")
  np.testing.assert_allclose(fresh.state.params["slope"], first.state.params["slope"], rtol=1e-6)
  assert int(fresh.state.step) == 7 and int(jnp.max(fresh.state.opt_state.rule[0].count)) == 7
  everything = loop.train(configured(train__num_epochs=1, checkpoint__init="all"), str(tmp_path / "all"),
                          init_from=str(tmp_path / "first"))
  assert int(everything.state.step) == 7
  assert int(jnp.max(everything.state.opt_state.rule[0].count)) == first.best_step + 7
  with pytest.raises(UserError, match="holds no checkpoint"):
    loop.train(configured(), str(tmp_path / "other"), init_from=str(tmp_path / "nowhere"))


def test_stages_start_from_the_best_of_the_stage_before(tmp_path):
  config = configured()
  config.stages = ({"train.num_epochs": 2}, {"train.num_epochs": 3, "optim.learning_rate": 1e-12},
                   {"train.num_epochs": 1, "carry_optimizer": True})
  workdir = str(tmp_path / "run")
  result = loop.train(config, workdir)
  stages = [child.inspect(os.path.join(workdir, "stages", str(k))) for k in range(3)]
  assert [s["best_step"] for s in stages[:1]] == [14] and int(result.state.step) == 7
  assert child.inspect(workdir)["stage"] == "2"
  assert int(jnp.max(result.state.opt_state.rule[0].count)) == stages[1]["best_step"] + 7
  again = loop.train(config, workdir)
  assert again.digest == result.digest
  keys = {stages[k]["digest"] for k in range(3)}
  assert len(keys) == 3


def test_facts_cut_shorter_than_the_checkpoint_knows_are_refused(tmp_path):
  workdir = str(tmp_path / "run")
  loop.train(configured(), workdir)
  with open(os.path.join(workdir, "facts", "events.jsonl"), "w", encoding="utf-8"):
    pass
  with pytest.raises(UserError, match="fewer than"):
    loop.train(configured(train__num_epochs=7), workdir)


@pytest.mark.parametrize("damage", ["one bit flipped", "truncated", "emptied", "no record"])
def test_a_damaged_newest_checkpoint_is_passed_over(damage, tmp_path, capsys):
  """The run falls back to the one before, says so, and ends as if nothing had happened."""
  workdir = str(tmp_path / "run")
  straight = loop.train(configured(checkpoint__every_epochs=2), workdir)
  facts = child.facts(workdir)
  child.damage(os.path.join(workdir, "checkpoints", "42"), damage)
  again = loop.train(configured(checkpoint__every_epochs=2), workdir)
  assert "passed over checkpoint 42" in capsys.readouterr().out
  assert again.digest == straight.digest and child.facts(workdir) == facts
  assert [line["skipped_checkpoints"] for line in child.process_facts(workdir)
          if "skipped_checkpoints" in line][-1] != []


def test_digest_is_what_interface_says():
  """SHA-256 over leaves by path: path, NUL, dtype, NUL, shape, NUL, bytes."""
  import hashlib
  tree = {"b": jnp.arange(3, dtype=jnp.int32), "a": {"x": jnp.float32(1.5)}}
  text = b"a/x\0float32\0()\0" + np.float32(1.5).tobytes() + b"b\0int32\0(3,)\0" + np.arange(3,
                                                                                             dtype=np.int32).tobytes()
  assert packing.digest(tree) == hashlib.sha256(text).hexdigest()
  key = jax.random.key(7)
  data = np.asarray(jax.random.key_data(key))
  assert packing.digest({"k": key}) == hashlib.sha256(b"k\0uint32\0(2,)\0" + data.tobytes()).hexdigest()


def test_the_bar_on_a_terminal_shows_progress(monkeypatch, capsys, tmp_path):
  import sys
  monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
  workdir = str(tmp_path / "run")
  loop.train(configured(log__progress=True), workdir)
  shown = capsys.readouterr()
  assert "42/42" in shown.err and "loss" in shown.err
  with open(os.path.join(workdir, "log.txt"), encoding="utf-8") as file:
    assert sum("epoch " in line for line in file) >= 6


def test_keep_best_0_still_assesses_the_best(tmp_path):
  result = loop.train(configured(checkpoint__keep_best=0, checkpoint__every_epochs=1, checkpoint__keep_last=1,
                                 train__monitor_mode="max"), str(tmp_path / "run"))
  assert result.best_step == 7 and result.test_loss == pytest.approx(result.history["val_loss"][0], rel=1e-6)


def test_a_shorter_length_than_was_trained_is_refused(tmp_path):
  loop.train(configured(), str(tmp_path / "run"))
  with pytest.raises(UserError, match="is at step 42, allowed a length of that or more"):
    loop.train(configured(train__num_epochs=3), str(tmp_path / "run"))


def test_reading_a_run_leaves_a_save_under_way(tmp_path):
  workdir = str(tmp_path / "run")
  loop.train(configured(), workdir)
  half = os.path.join(workdir, "checkpoints", "49.orbax-checkpoint-tmp")
  os.mkdir(half)
  child.inspect(workdir)
  loop.train(configured(train__num_epochs=1), str(tmp_path / "other"), init_from=workdir)
  assert os.path.isdir(half)


def test_a_changed_record_is_passed_over(tmp_path, capsys):
  workdir = str(tmp_path / "run")
  loop.train(configured(checkpoint__every_epochs=2), workdir)
  path = os.path.join(workdir, "checkpoints", "42", "record", "metadata")
  with open(path, encoding="utf-8") as file:
    text = file.read()
  with open(path, "w", encoding="utf-8") as file:
    file.write(text.replace('"num_bad_evals": 0', '"num_bad_evals": 9'))
  assert '"num_bad_evals": 0' in text
  loop.train(configured(checkpoint__every_epochs=2), workdir)
  assert "passed over checkpoint 42" in capsys.readouterr().out


def test_evaluation_batches_that_do_not_divide_are_refused():
  with pytest.raises(UserError, match="config.eval.batch_size: got 50, allowed multiples of 4"):
    loop.train(configured(eval__batch_size=50, parallel__mode="canonical"))


def test_a_wrong_plateau_monitor_is_refused_at_start():
  with pytest.raises(UserError, match="config.optim.plateau.monitor: got 'val_los', allowed .*val_loss"):
    check.describe(configured(optim__plateau__factor=0.5, optim__plateau__monitor="val_los"))
