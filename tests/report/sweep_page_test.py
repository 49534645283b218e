"""The page that compares runs, on small folders that the tests write: its numbers, marks, escapes and errors."""

import base64
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from made_sweeps import VAE, make_run, make_sweep, metric_of, page_of, row_of, run_main, write_lines
from jaxtrain import statistics
from jaxtrain.errors import UserError
from jaxtrain.report import collection, sweep_page
from jaxtrain.workdir.fields import short_names

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOSTILE = "</script><script>alert('x')</script>&\"<b>"


def test_page_is_self_contained(tmp_path):
  page, _ = page_of(make_sweep(tmp_path / "s"), output=tmp_path / "s" / "report.html")
  assert not re.search(r"https?:|//\w+\.\w|@import|url\(|javascript:|innerHTML|eval\(", page.source)
  assert not {"link", "iframe", "object", "form", "img"} & {tag for tag, _ in page.elements}
  assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
  scripts = re.findall(r"<script>(.*?)</script>", page.source, re.S)
  digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
  assert len(scripts) == 1 and page.source.count("<script") == 2
  policy, = (value for value in page.all("meta", "content") if "default-src" in value)
  assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_script_finds_what_the_page_has(tmp_path):
  page, _ = page_of(make_sweep(tmp_path / "s"), output=tmp_path / "s" / "report.html")
  script = re.search(r"<script>(.*?)</script>", page.source, re.S)[1]
  asked = set(re.findall(r'getElementById\("(\w+)"\)', script)) | set(re.findall(r'(?:panel|say)\("(\w+)"', script))
  assert asked == {attrs["id"] for _, attrs in page.elements if "id" in attrs} >= {"data", "tip", "groups", "curves"}
  style = page.source[page.source.index("<style>"):page.source.index("</style>")]
  used = set(re.findall(r'class: "([a-z ]+)"', script)) | {attrs.get("class", "") for _, attrs in page.elements}
  names = {name for words in used for name in words.split()} - {"numbers", "runs", "groups"}
  assert names <= set(re.findall(r"\.([a-z]+)", style)) and "width=device-width" in page.source


def test_table_of_runs(tmp_path):
  page, _ = page_of(make_sweep(tmp_path / "s"), output=tmp_path / "out.html")
  assert row_of(page, "001") == {
      "run": "001", "status": "done", "rate": "0.1", "seed": "1", "best val_loss": "0.2100", "best at": "3",
      "test_loss": "1.210", "test_accuracy": "0.7500", "test_r2": "0.5000", "val_accuracy": "0.3000",
      "time in steps, s": "2.000"}
  assert page.all("a", "href") == [f"s/runs/{k:03d}/report.html" for k in range(8)]
  assert page.all("td", "data-v")[:6] == ["0", "done", "0.1", "0", "0.0", "3.0"]


@pytest.mark.parametrize("low, says", [(-0.05, True), (0.05, False)])
def test_a_verdict_whose_interval_holds_0_is_said_to_be_close(low, says):
  three, row = np.full(3, 3), lambda *values: np.array([[0.0, *values]])
  pairs = statistics.Pairs(row(3, 3), row(0.33, 0.5), row(low, 0.3), row(0.74, 0.7), row(0.047, 0.01), row(-1, -1),
                           row(np.nan, np.nan))
  compared = sweep_page.Compared("test_loss", False, "lower is better", [], three, np.array([0.4, 0.7, 0.9]),
                                 np.full(3, 0.1), np.full(3, np.nan), np.full(3, np.nan), 0, [0], pairs)
  said = sweep_page.conclusion(compared, ["a", "b", "c"], "seed")
  assert "Both other groups are worse than the best." in said
  assert ("One of these tests is a close call: the interval" in said) == says


def test_groups_and_conclusion(tmp_path):
  page, data = page_of(make_sweep(tmp_path / "s"), output=tmp_path / "out.html")
  loss = np.array([[k + 0.2 * s + 0.01 * ((s * (k + 1)) % 3) for s in range(4)] for k in range(2)])
  test = metric_of(data, "test_loss")
  assert data["groups"] == ["rate=0.1", "rate=0.01"] and test["best"] == 0 and test["words"] == "lower is better"
  np.testing.assert_allclose([group[:3] for group in test["groups"]],
                             [[4, row.mean() + 1, row.std(ddof=1)] for row in loss], rtol=1e-5)
  shared, difference, low, high, p, verdict, more = test["pairs"]["0"][1]
  assert (shared, verdict, more) == (4, -1, None) and low < difference < high and p < 1e-3
  assert math.isclose(difference, (loss[1] - loss[0]).mean(), rel_tol=1e-3)
  assert test["pairs"]["1"][0][5] == 1 and test["pairs"]["0"][0][4] is None
  low, high = (f"{edge:.4g}" for edge in test["groups"][0][3:])
  assert (f"Lowest mean test_loss: rate=0.1 ({loss[0].mean() + 1:.4g}, 95 % interval {low} to {high}, 4 seeds). "
          "The other group is worse than the best.") in page.text
  assert "8 done" in page.text and "Fields that vary: rate (2 values), seed (4 values)." in page.text
  for source in ("Efron & Tibshirani 1993", "Holm 1979"):
    assert source in page.text


def test_runs_that_did_not_finish(tmp_path):
  ends = {1: "failed", 6: "incomplete", 7: "pending"}
  page, data = page_of(make_sweep(tmp_path / "s", ends=ends), output=tmp_path / "out.html")
  for words in ("5 done", "1 incomplete", "1 failed", "1 pending", "3 of 8 runs have no final value and are left out"):
    assert words in page.text
  assert [run["status"] for run in data["runs"]] == ["done", "failed", *["done"] * 4, "incomplete", "pending"]
  assert ["001", "failed", "step 7: loss is not finite (exit code 3)"] in page.rows
  assert ["007", "pending", "Not started yet."] in page.rows and row_of(page, "007")["rate"] == "0.01"
  assert [group[0] for group in metric_of(data, "best val_loss")["groups"]] == [3, 2]  # of 4 and 3
  assert metric_of(data, "best val_loss")["pairs"]["0"][1][0] == 1 and not any(run["final"] for run in data["runs"][6:])
  assert "The other group is undecided for want of a test (it needs at least 3 shared seeds)." in page.text


def test_a_failed_member_that_was_started_again(tmp_path):
  folder = make_sweep(tmp_path / "s", rates=(0.1,))
  with open(os.path.join(folder, "journal.jsonl"), "a", encoding="utf-8") as file:
    file.write('\n{"event": "failed", "member": 1, "code": 1, "reason": "no report"}\n')
  _, data = page_of(folder, output=tmp_path / "out.html")
  assert {run["status"] for run in data["runs"]} == {"done"}  # its own facts say that it trained to the end


def test_text_of_runs_is_escaped(tmp_path):
  loss = lambda k, rate, seed: k + seed
  folder = make_sweep(tmp_path / "a<i>&b", rates=(HOSTILE, "it's"), seeds=(0, 1), name="<b>&'", loss=loss)
  make_run(os.path.join(folder, "more", "<u>"), 1.0, config={"optim": {"rate": HOSTILE}, HOSTILE: HOSTILE},
           scalars={"<b>&": 1.0})
  page, data = page_of(folder, os.path.join(folder, "more", "<u>"), output=tmp_path / "out.html")
  assert page.source.count("<script") == page.source.count("</script") == 2
  assert not {"i", "b", "u"} & {tag for tag, _ in page.elements}
  assert row_of(page, "000<b>&'")["rate"] == HOSTILE and f"rate={HOSTILE}" in data["groups"][0]
  assert all("<" not in href and "&" not in href and "'" not in href for href in page.all("a", "href"))
  assert any(metric["name"] == "test_<b>&" for metric in data["metrics"]) and "<u>" in page.text


def test_values_that_are_not_finite(tmp_path):
  loss = lambda k, rate, seed: math.nan if (k, seed) == (1, 2) else 1 + k + 0.1 * seed
  page, data = page_of(make_sweep(tmp_path / "s", loss=loss), output=tmp_path / "out.html")
  test = metric_of(data, "test_loss")
  assert [group[0] for group in test["groups"]] == [4, 3] and test["lost"] == 1 and test["values"][6] is None
  assert row_of(page, "006")["test_loss"] == "nan"
  curve = next(curve for curve in data["curves"] if (curve["split"], curve["name"]) == ("val", "loss"))
  assert 6 not in curve["runs"] and len(curve["runs"]) == 7


def test_curves(tmp_path):
  _, data = page_of(make_sweep(tmp_path / "s", rates=(0.1,), seeds=(0, 1)), output=tmp_path / "out.html")
  assert data["unit"] == "epoch" and data["positions"] == [[1, 2, 3, 4]]
  assert [(curve["split"], curve["name"]) for curve in data["curves"]] == [
      ("train", "loss"), ("val", "loss"), ("train", "accuracy"), ("val", "accuracy")]
  assert data["curves"][1]["y"][0] == [2, 1, 0, 1] and data["curves"][1]["x"] == [0, 0]


def test_long_curves_are_thinned(tmp_path, monkeypatch):
  make_run(tmp_path / "a", 1.0, num_epochs=1000)
  _, data = page_of(tmp_path / "a", output=tmp_path / "out.html")
  assert len(data["positions"]) == 1 and len(data["positions"][0]) == sweep_page.MAX_POINTS
  assert data["positions"][0][0] == 1 and data["positions"][0][-1] == 1000
  monkeypatch.setattr(sweep_page, "CURVE_POINTS", 400)
  assert len(page_of(tmp_path / "a", output=tmp_path / "out.html")[1]["positions"][0]) == 100


def test_run_folders_of_several_experiments(tmp_path):
  make_run(tmp_path / "a", 1.0)
  make_run(tmp_path / "b", 2.0, config={"experiment": "jaxtrain.experiments.other.o", "model": {"heads": 4, "depth": 2},
                                        "train": {"monitor": "val_accuracy", "monitor_mode": "max"}})
  page, data = page_of(tmp_path / "a", tmp_path / "b", tmp_path / "a", output=tmp_path / "out.html")
  assert data["groups"] == ["experiment=tabular_vae.vae", "experiment=other.o"]
  assert [run["name"] for run in data["runs"]] == ["a", "b"] and "Comparison of 2 runs" in page.text
  assert "metrics of one name need not measure the same" in page.text
  assert "experiment (2 values), 4 more that follow from these" in page.text
  assert metric_of(data, "best val_accuracy")["words"] == "higher is better"
  assert row_of(page, "a")["heads"] == "–" and row_of(page, "b")["heads"] == "4"


@pytest.mark.parametrize("name, values", [("kl", [{"loss": {"weights": {"kl": weight}}} for weight in (0.1, 1.0)]),
                                          ("kind", [{"model": {"latent": {"kind": kind}}} for kind in ("vq", "vae")])])
def test_losses_of_different_objectives_are_said_not_to_compare(name, values, tmp_path):
  for k, config in enumerate(values):
    make_run(tmp_path / str(k), 1.0, config=config)
  output = str(tmp_path / "page.html")
  sweep_page.write([str(tmp_path / "0"), str(tmp_path / "1")], output)
  with open(output, encoding="utf-8") as file:
    assert f"{name} changes what the loss is: losses of different settings do not compare" in file.read()
  make_run(tmp_path / "2", 1.0, config={"seed": 1})
  make_run(tmp_path / "3", 1.0)
  sweep_page.write([str(tmp_path / "2"), str(tmp_path / "3")], output)
  with open(output, encoding="utf-8") as file:
    page = file.read()
    assert "changes what the loss is" not in page and "were trained for" not in page


def test_intervals_of_groups_are_cut_at_the_limits_of_a_metric(tmp_path, monkeypatch):
  folder = make_sweep(tmp_path / "a", seeds=(0, 1, 2))
  _, data = page_of(folder, output=tmp_path / "page.html")
  low, high = metric_of(data, "test_loss")["groups"][0][3:5]
  middle = (low + high) / 2
  monkeypatch.setattr(collection, "description", lambda name, members: {"limits": (0.0, middle)})
  _, data = page_of(folder, output=tmp_path / "page.html")
  assert metric_of(data, "test_loss")["groups"][0][3:5] == [low, pytest.approx(middle, rel=1e-5)]


def test_runs_of_different_length_are_said_to_be_so(tmp_path):
  for k, num_epochs in enumerate((4, 7)):
    make_run(tmp_path / str(k), 1.0, config={"seed": k}, num_epochs=num_epochs)
  page, _ = page_of(tmp_path / "0", tmp_path / "1", output=tmp_path / "page.html")
  assert "were trained for 4 to 7 epochs" in page.text


def test_stages(tmp_path):
  write_lines(tmp_path / "a" / "config.json", [json.dumps({"experiment": VAE, "seed": 5, "stages": [{}, {}]})])
  make_run(tmp_path / "a" / "stages" / "0", 3.0)
  assert collection.read_member(str(tmp_path / "a")).status == "incomplete"  # its second stage is not there yet
  make_run(tmp_path / "a" / "stages" / "1", 2.0)
  member = collection.read_member(str(tmp_path / "a"))
  assert (member.status, member.metrics["test_loss"], member.fields["seed"]) == ("done", 3.0, 5)


def test_damaged_runs_are_told_of(tmp_path):
  folder = make_sweep(tmp_path / "s", rates=(0.1,), seeds=(0, 1))
  write_lines(os.path.join(folder, "runs", "000", "config.json"), ["{"])
  write_lines(os.path.join(folder, "runs", "001", "eval", "test.json"), ["{"])
  page, _ = page_of(folder, output=tmp_path / "out.html")
  assert row_of(page, "000")["status"] == "incomplete" and row_of(page, "001")["test_loss"] == "1.210"
  assert f"{os.path.join(folder, 'runs', '000', 'config.json')} cannot be read: " in page.text


def test_replicates_are_paired_and_repeats_averaged(tmp_path):
  for k, (seed, fold, loss) in enumerate([(0, 0, 1.0), (0, 0, 3.0), (0, 1, 5.0), (1, 0, 7.0)]):
    make_run(tmp_path / str(k), loss, config={"seed": seed, "data": {"split": {"fold": fold}, "path": f"/{k}/a.csv"}})
  _, data = page_of(*(tmp_path / str(k) for k in range(4)), output=tmp_path / "out.html")
  assert data["groups"] == ["all runs"] and data["word"] == "replicate"  # folders of the data make no group
  assert metric_of(data, "test_loss")["groups"][0][:2] == [3, 5.66667]


@pytest.mark.parametrize(("name", "words"), [
    ("test_accuracy", "higher is better"), ("test_r2_raw", "higher is better"), ("val_f1_macro", "higher is better"),
    ("test_negative_log_likelihood", "lower is better"), ("test_log_likelihood", "higher is better"),
    ("test_loss", "lower is better"), ("test_kl_nats", "lower is taken as better"),
    ("time in steps, s", "lower is better"), ("test_sharp", "lower is taken as better")])
def test_direction(name, words):
  assert collection.direction(name, []) == (words.startswith("higher"), words)


def test_direction_and_unit_are_those_that_the_experiment_says():
  said = {"kl*": {"unit": "nats", "meaning": "Cost of the code.", "direction": "higher", "chance": None},
          "sharp": {"unit": "", "meaning": "", "direction": "", "chance": None}}
  members = [collection.Member("a", "a", "done", "", {}),
             collection.Member("b", "b", "done", "", {}, monitor="val_kl", descriptions=said)]
  assert collection.direction("test_kl_nats", members) == (True, "higher is better, in nats")
  assert collection.direction("best val_kl", members) == (False, "lower is better, in nats")  # as it was monitored
  assert collection.direction("test_sharp", members) == (False, "lower is taken as better")
  assert collection.direction("test_accuracy", members) == (True, "higher is better")
  assert sweep_page.metric_name("test_kl_nats", members) == '<span title="Cost of the code.">test_kl_nats</span>'
  assert sweep_page.metric_name("test_loss", members) == "test_loss"


def test_fields_that_follow():
  def member(epochs, rate, seed):
    fields = {"train.num_epochs": epochs, "optim.decay_steps": 10 * epochs, "optim.rate": rate, "seed": seed,
              "log.figures": str(seed), "optim.name": "adam"}
    return collection.Member("a", "a", "done", "", fields, frozenset({"train.num_epochs"}))
  members = [member(1, 0.1, 0), member(1.0, 0.2, 1), member(2, 0.1, 0)]
  fields = collection.varying(members)
  assert fields.leading == ["train.num_epochs", "optim.rate"] and fields.following == ["optim.decay_steps"]
  assert fields.replicates == ["seed"] and collection.grouped(members, fields.leading) == [[0], [1], [2]]
  assert collection.group_labels(members, [[0], [2]], fields) == ["num_epochs=1, rate=0.1", "num_epochs=2, rate=0.1"]


def test_names_of_fields_and_groups():
  names = short_names(["a.rate", "b.rate", "optim.name", "c.d", "loss.weights.class", "model.kind"])
  assert names == {"a.rate": "a.rate", "b.rate": "b.rate", "optim.name": "optim.name", "c.d": "d",
                   "loss.weights.class": "weights.class", "model.kind": "model.kind"}
  fields = collection.Fields({"a.x": "x"}, ["a.x"], [], [])
  members = [collection.Member("", "", "done", "", {"a.x": "y" * 100 + str(k)}) for k in range(2)]
  labels = collection.group_labels(members, [[0], [1]], fields)
  assert len(labels[0]) == collection.MAX_LABEL and labels[1] == labels[0] + " (2)"


def test_many_groups_are_compared_with_the_best_only(tmp_path, monkeypatch):
  monkeypatch.setattr(sweep_page, "MAX_ALL_PAIRS", 1)
  page, data = page_of(make_sweep(tmp_path / "s"), output=tmp_path / "out.html")
  assert [list(metric["pairs"]) for metric in data["metrics"]] == [[str(metric["best"])] for metric in data["metrics"]]
  assert "only the best group is a reference" in page.text


def test_nothing_has_run_yet(tmp_path):
  ends = dict.fromkeys(range(8), "pending")
  page, data = page_of(make_sweep(tmp_path / "s", ends=ends), output=tmp_path / "out.html")
  assert "No run has come to its end yet." in page.text and not data["metrics"] and not data["curves"]


@pytest.mark.slow
def test_500_runs_take_seconds(tmp_path):
  folder = make_sweep(tmp_path / "s", rates=range(1, 101), seeds=range(5), num_epochs=100)
  start = time.monotonic()
  page, data = page_of(folder, output=tmp_path / "out.html")
  assert time.monotonic() - start < 20 and len(page.source) < 5e6 and len(data["runs"]) == 500


def test_command(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  folder = make_sweep(tmp_path / "s")
  make_run(tmp_path / "a", 1.0)
  for arguments, output in (((folder,), os.path.join(folder, "report.html")), ((folder, "a"), "comparison.html"),
                            (("a", "--output=b.html"), "b.html")):
    assert run_main(monkeypatch, *arguments) == 0 and os.path.exists(output)
    assert capsys.readouterr() == (os.path.abspath(output) + "\n", "")


def test_errors_are_one_line(tmp_path, monkeypatch, capsys):
  folder = make_sweep(tmp_path / "s")
  (tmp_path / "neither").mkdir()
  write_lines(tmp_path / "empty" / "sweep.json", ['{"version": 1}'])
  write_lines(tmp_path / "empty" / "journal.jsonl", [])
  write_lines(tmp_path / "bare" / "sweep.json", ['{"version": 1}'])
  write_lines(tmp_path / "broken" / "sweep.json", ["{"])
  write_lines(tmp_path / "file", [])
  for arguments, says in (((tmp_path / "neither", folder), "holds neither a run (config.json) nor a sweep"),
                          ((tmp_path / "missing",), "holds no run: there is no such folder"),
                          ((tmp_path / "file", folder), "holds neither a run"),
                          ((tmp_path / "empty",), "no run was added to the sweep yet"),
                          ((tmp_path / "bare",), "journal.jsonl"),
                          ((tmp_path / "broken",), "is no sweep that can be read"),
                          ((folder, f"--output={tmp_path}/file/x.html"), "cannot be written"),
                          ((folder, f"--output={tmp_path}/neither"), "ends in .html")):
    assert run_main(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("jaxtrain: ") and err.count("\n") == 1 and says in err, err
  assert sorted(os.listdir(tmp_path)) == ["bare", "broken", "empty", "file", "neither", "s"]


def test_reading_raises_as_it_says(tmp_path):
  with pytest.raises(UserError, match="holds neither"):
    sweep_page.write([str(tmp_path)], str(tmp_path / "out.html"))


@pytest.mark.slow
def test_no_jax_is_loaded(tmp_path):
  code = ("import jaxtrain.report.sweep_page as c, sys; c.write([sys.argv[1]], sys.argv[1] + '/report.html');"
          "assert not {'jax', 'matplotlib.pyplot'} & set(sys.modules)")
  done = subprocess.run([sys.executable, "-c", code, make_sweep(tmp_path / "s")], cwd=ROOT, capture_output=True,
                        text=True, timeout=120)
  assert (done.returncode, done.stderr) == (0, "")
