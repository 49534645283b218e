"""Runs and a sweep made by commit d45dac4 (jaxtrain 0.1.0, jax 0.10.2): today's commands read them and go on with them.

`tests/old_runs` holds them, with rows to apply them to (`inputs`) and what that commit made of these (`expected`). Its
commands, with `--config.log.figures=none --config.log.progress=False` in each and `--config.model.hidden_dims=8,` in
all of vae.py, where REAL is `--config=configs/vae.py:breast_cancer --config.train.num_epochs=2
--config.checkpoint.every_epochs=1`:

  main REAL --workdir=old_runs/table
  main REAL --config.train.time_budget_minutes=1e-6 --workdir=old_runs/stopped    # left after one step, with code 85
  main REAL --config.log.save_artifacts=False --config.optim.ema_decay=0.9 --workdir=old_runs/stages \
      --config.stages="({'train.num_epochs': 1}, {'train.num_epochs': 1, 'optim.learning_rate': 3e-4})"
  sweep REAL --config.log.save_artifacts=False --sweep=optim.learning_rate=1e-3,3e-4 --sweep=seed=1 \
      --workdir=old_runs/sweep
  main --config=configs/vae.py:smoke --config.data.row_limit=600 --config.train.num_members=2 \
      --workdir=old_runs/ensemble
  main --config=configs/causal_discovery.py:smoke --config.eval.max_test_tasks=4 --workdir=old_runs/causal

Left out afterwards: report.html and .lock. Changed: in run.json the folder of the command and `platform`, in
commit_success.txt of the checkpoints the folder before old_runs. `expected/<case>.csv` is what that commit's predict
wrote for the cases of PREDICTED, `expected/<run>-history.json` the history of the run once that commit had gone on with
a copy of it, by the flags of RESUMED.
"""

import csv
import json
import math
import os
import pathlib
import shutil

import numpy as np
import pytest

import child
import forked

OLD = pathlib.Path(child.ROOT, "tests", "old_runs")
QUIET = ("--config.log.figures=none", "--config.log.progress=False")
REAL = ("--config=configs/vae.py:breast_cancer", "--config.model.hidden_dims=8,", "--config.train.num_epochs=2",
        "--config.checkpoint.every_epochs=1", *QUIET)
SWEEP = (*REAL, "--config.log.save_artifacts=False", "--sweep=optim.learning_rate=1e-3,3e-4")
MEMBER = "sweep/runs/000-learning_rate=0.001,seed=1"

# run -> what that commit's --mode=inspect printed last, "digest: sha256:... step=..."
DIGESTS = {
    "table": "2fc167f73da573062939022ccac4137c6627abd8915e807e49c1bc141559d75c step=14",
    "stopped": "e18d59946c18ef2cd0c803205e5fb2f68c5f5e3ce60383f679685d89d15d3784 step=1",
    "stages": "61a5e6a5d98f7ddb9624cbe1852c4c63b5382eca744b603e59abe1d4000a1c7d step=7",
    MEMBER: "98ce2b4bf2b1fc0cd0d38075fde520e8bfc367e4904a6c14487d2aa9b1d70f7a step=14",
    "ensemble": "48be5e2728c72d22c2f78cc99cd1f58b2fd12d7082e8f2d08e1f99ca02395807 step=6",
    "causal": "086c0898897cebd3352e266f2fd61e2bf0bc404e751cc912d71e4bebb2f37e20 step=40"}

# case -> run, flags of predict
PREDICTED = {
    "table-embed": ("table", "--verb=embed", "--input=table.csv"),
    "table-embed-last": ("table", "--verb=embed", "--input=table.csv", "--checkpoint=last"),
    "table-reconstruct": ("table", "--verb=reconstruct", "--input=table.csv"),
    "table-classify": ("table", "--verb=classify", "--input=table.csv"),
    "table-impute": ("table", "--verb=impute", "--input=table_missing.csv"),
    "table-sample": ("table", "--verb=sample", "--num=3"),
    "stopped-reconstruct": ("stopped", "--verb=reconstruct", "--input=table.csv", "--checkpoint=last"),
    "stages-classify": ("stages", "--verb=classify", "--input=table.csv"),
    "sweep-classify": (MEMBER, "--verb=classify", "--input=table.csv"),
    "ensemble-embed": ("ensemble", "--verb=embed", "--input=ensemble.csv"),
    "ensemble-reconstruct": ("ensemble", "--verb=reconstruct", "--input=ensemble.csv"),
    "causal-graph": ("causal", "--verb=graph", "--input=causal.csv"),
    "causal-sample_graphs": ("causal", "--verb=sample_graphs", "--input=causal.csv", "--num=3")}

ASSESSED = {"table": ("train", "val", "test"), "stages": ("train", "val", "test"), "ensemble": ("train",),
            "causal": ("val", "test")}

# Metrics of eight graphs drawn for each of a few tasks. Each part of an assessment draws from a stream of its own now.
DRAWN = ("e_edge_f1", "acyclic_share")

# run -> (flags of main that go on with it, the digest it then had by that commit). That of `stopped` is the digest of
# `table`, the same run never stopped.
RESUMED = {
    "stopped": (REAL, DIGESTS["table"]),
    "ensemble": (("--config=configs/vae.py:smoke", "--config.model.hidden_dims=8,", "--config.data.row_limit=600",
                  "--config.train.num_members=2", "--config.train.num_epochs=3", *QUIET),
                 "ce4e04918a163a19f694137b54d234e145cc399927c98762ec148bafe83f4f14 step=9"),
    "causal": (("--config=configs/causal_discovery.py:smoke", "--config.eval.max_test_tasks=4",
                "--config.train.num_steps=60", *QUIET),
               "525b54b0d588a721a5ffbcd09b134ffff8bd06c05ad2a2930fad6f6ea8edb284 step=60")}

# what that commit's report drew of `table`, from the arrays of its evaluation and its facts
FIGURES = {"calibration", "classes", "generated", "latent", "learning_rate", "losses", "metrics", "reconstruction",
           "roc"}


def ask(cases: dict) -> dict:
  """Answers to cases, {name: (command, flag, ...)}."""
  answers = forked.ask([{"command": command, "argv": list(argv)} for command, *argv in cases.values()])
  return dict(zip(cases, answers, strict=True))


def copy(tmp_path_factory) -> pathlib.Path:
  """A copy of the old runs."""
  return pathlib.Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "runs", symlinks=True))


def reading(runs: pathlib.Path) -> dict:
  """Cases that predict and report; `table` is drawn with figures."""
  config = json.loads((runs / "table" / "config.json").read_text())
  config["log"]["figures"] = "standard"
  (runs / "table" / "config.json").write_text(json.dumps(config))
  cases = {}
  for case, (name, *flags) in PREDICTED.items():
    flags = [flag.replace("--input=", f"--input={OLD / 'inputs'}{os.sep}") for flag in flags]
    cases[case] = ("predict", f"--workdir={runs / name}", f"--output={runs / case}.csv", *flags)
  return cases | {f"report {name}": ("report", str(runs / name)) for name in (*DIGESTS, "sweep")}


def resuming(runs: pathlib.Path, *names: str) -> dict:
  """Cases that go on with runs, and inspect what they came to."""
  cases = {f"resume {name}": ("main", *RESUMED[name][0], f"--workdir={runs / name}") for name in names}
  return cases | {f"inspect resumed {name}": ("main", "--mode=inspect", f"--workdir={runs / name}") for name in names}


def assessing(runs: pathlib.Path, *names: str) -> dict:
  """Cases that assess runs again."""
  return {f"eval {name}": ("main", "--mode=eval", f"--workdir={runs / name}") for name in names}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """(copies of the old runs by what was done to them, answers of all commands)."""
  runs = {purpose: copy(tmp_path_factory) for purpose in ("read", "assessed", "resumed")}
  cases = reading(runs["read"]) | resuming(runs["resumed"], "stopped")
  cases |= assessing(runs["assessed"], *(name for name in ASSESSED if name != "causal"))
  cases |= {"again": ("sweep", *SWEEP, "--sweep=seed=1", f"--workdir={runs['resumed'] / 'sweep'}")}
  return runs, ask(cases)


def contents(*folders: pathlib.Path) -> dict:
  """Bytes of all files of folders."""
  return {str(path.relative_to(folder)): path.read_bytes() for folder in folders for path in sorted(folder.rglob("*"))
          if path.is_file()}


def columns(path: pathlib.Path) -> dict[str, list[str]]:
  """Columns of a CSV file."""
  with open(path, encoding="utf-8", newline="") as file:
    header, *rows = csv.reader(file)
  return dict(zip(header, map(list, zip(*rows)), strict=True))


def number(cell) -> float:
  """A cell's or a JSON value's number; NaN where it holds none."""
  try:
    return float(cell)
  except (TypeError, ValueError):
    return math.nan


def check_history(folder: pathlib.Path, name: str) -> bool:
  """Checks a history against that commit's, times aside; returns whether they agree to the bit.

  They do not where the processor or XLA is another.
  """
  old = json.loads((OLD / "expected" / f"{name}-history.json").read_text())
  new, exact = json.loads((folder / "history.json").read_text()), True
  for metric in sorted(old.keys() - {"seconds", "samples_per_s"}):
    np.testing.assert_allclose(new[metric], old[metric], rtol=1e-4, atol=1e-6, err_msg=metric)
    exact = exact and new[metric] == old[metric]
  return exact


def check_resumed(runs: pathlib.Path, answers: dict, name: str) -> None:
  """Checks that a run went on as that commit would have gone on; or was refused in one line that names the commit or
  its version, and stayed as it was.
  """
  answer = answers[f"resume {name}"]
  if answer["code"] == 2:
    assert answer["err"].count("\n") == 1 and ("0.1.0" in answer["err"] or "d45dac4" in answer["err"]), answer["err"]
    assert contents(runs / name / "checkpoints") == contents(OLD / name / "checkpoints")
    return
  assert answer["code"] == 0 and "resumed at step" in answer["out"], answer["err"]
  last, stated = answers[f"inspect resumed {name}"]["out"].splitlines()[-1], f"digest: sha256:{RESUMED[name][1]}"
  exact = check_history(runs / name, name)
  assert last.partition(" step=")[2] == stated.partition(" step=")[2]
  assert last == stated or not exact


def check_assessed(runs: pathlib.Path, answers: dict, name: str) -> None:
  """Checks that `--mode=eval` gave that commit's scalars and left facts and checkpoints as they were."""
  answer, last = answers[f"eval {name}"], "stages/stages/1" if name == "stages" else name
  assert answer["code"] == 0, answer["err"]
  for folder in ("facts", "checkpoints"):
    assert contents(runs / last / folder) == contents(OLD / last / folder)
  for part in ASSESSED[name]:
    old, new = (json.loads((top / last / "eval" / f"{part}.json").read_text()) for top in (OLD, runs))
    assert (new["split"], new["step"]) == (part, old["step"])
    for metric, value in old["scalars"].items():
      atol = 0.3 if name == "causal" and metric.startswith(DRAWN) else 1e-5
      np.testing.assert_allclose(number(new["scalars"][metric]), number(value), rtol=1e-4, atol=atol, err_msg=metric)


def test_the_old_runs_are_small_and_name_no_machine():
  files = contents(OLD)
  assert sum(map(len, files.values())) < 2_000_000
  for path, text in files.items():
    assert b"/root" not in text and b"/home/" not in text and b"/tmp/" not in text, path
  assert not [path for path in OLD.rglob("*") if path.is_dir() and not any(path.iterdir())]  # git keeps no empty folder


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
  """Answers of `--mode=inspect` for copies of the old runs."""
  runs = copy(tmp_path_factory)
  return ask({name: ("main", "--mode=inspect", f"--workdir={runs / name}") for name in DIGESTS})


@pytest.mark.parametrize("name", DIGESTS)
def test_inspect_prints_the_digest_it_printed_then(inspected, name):
  answer = inspected[name]
  assert answer["code"] == 0, answer["err"]
  assert answer["out"].splitlines()[-1] == f"digest: sha256:{DIGESTS[name]}"


@pytest.mark.slow
@pytest.mark.parametrize("case", PREDICTED)
def test_predict_gives_the_numbers_it_gave_then(done, case):
  runs, answers = done[0]["read"], done[1]
  assert answers[case]["code"] == 0, answers[case]["err"]
  old, new = columns(OLD / "expected" / f"{case}.csv"), columns(runs / f"{case}.csv")
  since = {"imputed", "edge", "pair", "prob_none", *(f"{name}_sd" for name in old)} - set(old)  # of imputing, of graphs
  assert [name for name in new if name not in since] == list(old)
  for name, cells in old.items():
    numbers = [number(cell) for cell in cells]
    if np.isnan(numbers).all():
      assert new[name] == cells
    else:
      np.testing.assert_allclose([number(cell) for cell in new[name]], numbers, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_ensembles_columns_are_means_deviations_and_members(done):
  recon = columns(done[0]["read"] / "ensemble-reconstruct.csv")
  assert "R_recon" in recon and "R_recon_sd" in recon
  assert "m1_emb_0" in columns(done[0]["read"] / "ensemble-embed.csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DIGESTS, "sweep"])
def test_a_report_is_written_and_the_run_stays_as_it_was(done, name):
  runs, answers = done[0]["read"], done[1]
  assert answers[f"report {name}"]["code"] == 0, answers[f"report {name}"]["err"]
  page = (runs / name / "report.html").read_text(encoding="utf-8")
  assert len(page) > 5_000 and "cannot be read" not in page
  for part in ("facts", "checkpoints"):
    for folder in (OLD / name).rglob(part):
      assert contents(folder) == contents(runs / name / folder.relative_to(OLD / name))


@pytest.mark.slow
def test_old_arrays_and_facts_give_the_figures_they_gave_then(done):
  found = {path.name.partition("-")[0] for path in (done[0]["read"] / "table" / "figures").iterdir()}
  assert found >= FIGURES


@pytest.mark.slow
def test_the_page_of_the_old_sweep_compares_its_members(done):
  page = (done[0]["read"] / "sweep" / "report.html").read_text(encoding="utf-8")
  assert page.count("learning_rate=0.0003,seed=1") and page.count("learning_rate=0.001,seed=1")


@pytest.mark.slow
def test_the_old_sweep_is_done(done):
  runs, answer = done[0]["resumed"], done[1]["again"]
  assert answer["code"] == 0 and "2 members, 2 done before" in answer["out"], answer["err"]
  assert (runs / "sweep" / "journal.jsonl").read_bytes() == (OLD / "sweep" / "journal.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ASSESSED if name != "causal"])
def test_eval_gives_the_scalars_of_then_and_leaves_the_facts_alone(done, name):
  check_assessed(done[0]["assessed"], done[1], name)


@pytest.mark.slow
def test_a_run_stopped_then_goes_on_now(done):
  check_resumed(done[0]["resumed"], done[1], "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ensemble", "causal"])
def test_runs_of_other_kinds_grow_now(tmp_path_factory, name):
  runs = copy(tmp_path_factory)
  check_resumed(runs, ask(resuming(runs, name)), name)


@pytest.mark.slow
def test_eval_of_causal_discovery_gives_the_scalars_of_then(tmp_path_factory):
  runs = copy(tmp_path_factory)
  check_assessed(runs, ask(assessing(runs, "causal")), "causal")


@pytest.mark.slow
def test_the_old_sweep_takes_more_members(tmp_path_factory):
  folder = copy(tmp_path_factory) / "sweep"
  answer = ask({"more": ("sweep", *SWEEP, "--sweep=seed=1,2", f"--workdir={folder}")})["more"]
  assert answer["code"] == 0 and "4 members, 2 done before" in answer["out"], answer["err"]
  assert (folder / "journal.jsonl").read_bytes().startswith((OLD / "sweep" / "journal.jsonl").read_bytes())
  assert len(list(folder.glob("runs/*/history.json"))) == 4
