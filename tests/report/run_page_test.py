"""The report page on small run folders: self-contained, escaped, and true to the files; the command that writes it."""

import base64
import errno
import html.parser
import json
import os
import re
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from made_runs import CURVES, make_run, replace_text
from pages import Page
from jaxtrain.config import meanings
from jaxtrain.report import __main__, figures, run_page
from jaxtrain.report.page import fmt, tag, with_interval
from jaxtrain.workdir import reading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MINIMAL = {"log": {"figures": "minimal", "families": []}}  # one picture, of losses


def blank(run):
  """A picture that takes no time."""
  return Figure(figsize=(1, 1))


def page_of(folder, drawn=False):
  """Writes and reads a run's page; unless `drawn`, a blank picture stands for the losses."""
  with pytest.MonkeyPatch.context() as patch:
    if not drawn:
      patch.setitem(figures.FAMILIES, "losses", blank)
    path = run_page.write_run(folder, "end")
  assert path == os.path.join(folder, "report.html")
  return Page(path)


def test_page_is_self_contained(tmp_path):
  page = page_of(make_run(tmp_path / "run"), drawn=True)
  assert page.source.startswith("<!doctype html>\n<html lang=\"en\">")
  assert len(page.all("img", "src")) == 10 and all(alt for alt in page.all("img", "alt"))
  assert all(source.startswith("data:image/png;base64,") for source in page.all("img", "src"))
  assert page.all("a", "href") == ["#Figures", "#Metrics", "#Data", "#Configuration", "#Environment"]
  assert {href[1:] for href in page.all("a", "href")} == set(page.all("section", "id"))
  assert not re.search(r"https?:|//\w|@import|url\(|javascript:", re.sub(r"base64,[^\"]+", "", page.source))
  assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.elements}
  assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
  assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page.all("meta", "content")


def test_page_fits_phones_and_dark_screens(tmp_path):
  page = page_of(make_run(tmp_path / "run", config=MINIMAL))
  style = page.source[page.source.index("<style>"):page.source.index("</style>")]
  assert "width=device-width, initial-scale=1" in page.all("meta", "content")
  assert "prefers-color-scheme:dark" in style and "img{display:block;max-width:100%" in style
  assert re.search(r"color-scheme:dark\){figure label{filter:brightness", style)  # pictures are no white slabs
  assert page.source.count("<table") == page.source.count('<div class="scroll" tabindex="0"><table') > 4
  used = set(" ".join(value for _, attrs in page.elements for name, value in attrs.items() if name == "class").split())
  assert used - {"numbers"} <= set(re.findall(r"\.([a-z]+)", style))


def test_panels_stand_below_each_other_on_a_phone(tmp_path):
  """Of curves, and of an experiment's families that take `narrow`; what does not is one picture that scrolls."""
  families = ["losses", "latent", "architecture"]
  folder = make_run(tmp_path / "run", config={"log": {"figures": "standard", "families": families}, "model": {
      "kind": "unsup", "latent_dim": 3, "hidden_dims": [8, 4], "batch_norm": True, "head_dim": 4}})
  page = page_of(folder, drawn=True)
  assert page.all("source", "media") == ["(max-width:40rem)"] * 2 and len(page.all("img", "src")) == 3
  size = lambda address: [int.from_bytes(base64.b64decode(address.partition(",")[2])[k:k + 4], "big") for k in (16, 20)]
  for one, other in zip(page.all("source", "srcset"), page.all("img", "src")):
    (narrow, tall), (wide, low) = size(one), size(other)
    assert narrow < 0.6 * wide and tall > low
  assert page.all("img", "style")[:2] == ["--w:0px"] * 2


def test_a_picture_for_phones_that_fails_leaves_the_wide_one_where_the_disk_is_not_full(tmp_path, monkeypatch, capsys):
  losses, fails = figures.FAMILIES["losses"], ValueError("too\nnarrow")

  def draw(run, narrow=False):
    if narrow:
      raise fails
    return losses(run)
  monkeypatch.setitem(figures.FAMILIES, "losses", draw)
  page = page_of(make_run(tmp_path / "run", config=MINIMAL), drawn=True)
  assert not page.all("source", "media") and len(page.all("img", "src")) == 1
  assert "figure losses was not drawn for phones: ValueError: too narrow" in page.text
  assert "figure losses was not drawn for phones" in capsys.readouterr().err
  fails = OSError(errno.ENOSPC, "No space left on device")
  with pytest.raises(OSError, match="No space left"):
    page_of(tmp_path / "run", drawn=True)


def test_text_of_the_run_is_escaped(tmp_path):
  bad = "<script>alert('x')</script>&\"<b>"
  folder = make_run(tmp_path / "a<i>&b", features=(bad, "mass"), classes=(bad, "clay"), end="on_exception",
                    config={"experiment": bad, "origins": {"data.source": bad}, "data": {"source": bad}} | MINIMAL,
                    process={"argv": ["/x/jaxtrain/main.py", f"--config={bad}"], "platform": bad, "git_commit": bad})
  page = page_of(folder)
  assert not {"script", "i"} & {tag for tag, _ in page.elements} and page.text.count(bad) >= 7
  assert tag("a", "x", href='"><b>') == '<a href="&quot;&gt;&lt;b&gt;">x</a>'
  assert "a<i>&b" in page.text and ["data.source", repr(bad), bad] in page.rows


@pytest.mark.parametrize(("end", "badge", "says"), [
    ("on_train_end", "done", ""), (None, "incomplete", "the same command goes on"),
    ("on_exception", "failed", "NonFinite: step 7: loss is not finite")])
def test_status(tmp_path, end, badge, says):
  page = page_of(make_run(tmp_path / "run", end=end, config=MINIMAL))
  assert re.search(rf'<span class="badge \w+">{badge}</span>', page.source) and says in page.text
  assert (f"sha256:{'ab' * 32}" in page.text) == (end == "on_train_end")


def test_key_numbers_and_metrics(tmp_path):
  page = page_of(make_run(tmp_path / "run", config=MINIMAL))
  for words in ("best val_loss 2.000 epoch 3", "epochs best 3 of 4 40 steps", "parameters 12,345 seed 3",
                "time in steps 2.000 s 2,000 rows/s", "On 1,234 rows held out for the test", "(epoch 3)"):
    assert words in page.text
  assert ["metric", "train", "val", "test"] in page.rows and ["accuracy", "0.6000", "0.6000", "0.8000"] in page.rows
  assert ["beta", "0.3000"] in page.rows and ["metric", "train"] in page.rows  # no column without a value
  assert ["rows", "1,234", "1,234", "1,234"] in page.rows  # evaluation of train, val, test
  assert ["feature", "R² raw", "RMSE raw", "MAE raw", "R² scaled"] in page.rows
  assert ["mass", "0.8900", "0.2500", "0.1250", "0.8000"] in page.rows and "7.750" not in page.text
  assert page.all("td", "style")[:2] == ["--v:90.0%", "--v:80.0%"]


def test_metrics_are_shown_with_what_the_experiment_says_of_them(tmp_path):
  metrics = {"kl*": {"unit": "nats", "meaning": "Cost of the <latent> code.", "direction": "lower", "chance": None},
             "auc_macro": {"unit": "", "meaning": "", "direction": "higher", "chance": 0.5}}
  page = page_of(make_run(tmp_path / "run", metrics=metrics, parts=("train", "test"), config=MINIMAL))
  assert ["klCost of the <latent> code.; nats, lower is better", "2.700", "4.800"] in page.rows
  assert ["loss", "2.000", "2.000"] in page.rows  # nothing is said of it
  assert ["auc_macrohigher is better, chance 0.5000", "0.7500", "0.7500"] in page.rows


def described(direction="higher", chance=None, key=True):
  """What an experiment says of a metric."""
  return {"unit": "", "meaning": "", "direction": direction, "chance": chance, "key": key}


def with_scalars(folder, part, **scalars):
  """Adds to the scalars of a part's evaluation."""
  change = lambda text: json.dumps(json.loads(text) | {"scalars": json.loads(text)["scalars"] | scalars})
  replace_text(folder, f"eval/{part}.json", change)


def test_key_results_head_the_page_with_their_intervals(tmp_path):
  metrics = {"auc_macro": described(chance=0.5), "ece": described("lower"), "accuracy": described(key=False)}
  folder = make_run(tmp_path / "run", metrics=metrics, config=MINIMAL)
  with_scalars(folder, "test", auc_macro=0.7512, auc_macro_ci95=0.0612)
  page = page_of(folder)
  head = page.text[:page.text.index(" What to look at ")]
  assert "AUC (mean of classes) 0.751 ± 0.061 higher is better, chance 0.5000" in head
  assert "calibration error 0.1000 lower is better" in head and "accuracy" not in head
  assert "± is half a 95 % interval" in head
  assert ["auc_macrohigher is better, chance 0.5000", "0.7500", "0.7500", "0.751 ± 0.061"] in page.rows
  assert not [row for row in page.rows if row[0].startswith("auc_macro_ci95")]


@pytest.mark.parametrize(("parts", "says"), [
    (("train", "val"), "The best state was chosen on them"), (("train",), "No data is held out")])
def test_whose_rows_the_results_are_of(tmp_path, parts, says):
  config = MINIMAL | {"data": {"source": "csv", "split": {"kind": "none"}}}
  folder = make_run(tmp_path / "run", parts=parts, config=config)
  page = page_of(folder)
  assert says in page.text and ("--config.data.split.kind=random" in page.text) == (parts == ("train",))


def test_what_to_look_at(tmp_path):
  folder = make_run(tmp_path / "run", num_epochs=20, metrics={"auc_macro": described(chance=0.5)}, config=MINIMAL)
  with_scalars(folder, "test", auc_macro=0.55, auc_macro_ci95=0.1, accuracy=0.5, **{"r2_raw/mass": "nan"})
  page = page_of(folder)
  assert "AUC (mean of classes) (0.5500) is no better than chance (0.5000)." in page.text
  assert "The accuracy of 0.5000 is no better than 0.6429, the share of the most frequent class." in page.text  # 9/14
  assert "1 feature is constant in the test part, or in all but a few of its rows: mass." in page.text
  assert ["mass", "hardly varies", "0.2500", "0.1250", "hardly varies"] in page.rows and "nan" not in page.text


def test_time_is_split_into_what_it_went_into(tmp_path):
  folder = make_run(tmp_path / "run", config=MINIMAL)
  lines = [{"compile_seconds": 3.0, "setup_seconds": 5.0}, {"seconds": {"train": 2.0, "report": 1.5, "save": 0.25}},
           {"seconds": {"assess": 4.0}}, {"compile_seconds": 1.0, "setup_seconds": 1.5}]
  head = {"schema_version": 1, "run_id": "made", "time": 0.0}
  (tmp_path / "run" / "facts" / "process.jsonl").write_text("".join(json.dumps(head | line) + "\n" for line in lines))
  page = page_of(folder)
  said = {row[0]: row[1] for row in page.rows if len(row) == 3}
  assert said["reading data and setting up"] == "2.500 s" and said["compiling"] == "4.000 s"
  assert said["training steps"] == "2.000 s" and said["evaluation during training"] == "1.500 s"
  assert said["evaluation of the best state"] == "4.000 s" and said["saving"] == "0.2500 s"
  assert "drawing figures" in said


def test_a_measure_that_says_nothing_more_has_no_column_and_counts_are_whole(tmp_path):
  folder = make_run(tmp_path / "run", config=MINIMAL)
  with_scalars(folder, "test", active_dims_sd=10, **{"r2_scaled/depth": 0.9 + 1e-9, "r2_scaled/mass": 0.89})
  page = page_of(folder)
  assert ["feature", "R² raw", "RMSE raw", "MAE raw"] in page.rows and ["active_dims_sd", "2", "2", "10"] in page.rows


def test_long_tables_are_folded_between_rows(tmp_path):
  page = page_of(make_run(tmp_path / "run", features=[f"f{k}" for k in range(64)], config=MINIMAL))
  assert "The other 24 rows" in page.text and "max-height" not in page.source[:page.source.index("</style>")]
  assert page.rows.count(["feature", "R² raw", "RMSE raw", "MAE raw", "R² scaled"]) == 2


@pytest.mark.parametrize(("value", "half", "shown"), [
    (0.18612, 0.0612, "0.186 ± 0.061"), (1234.5, 12.3, "1,234 ± 12"), (-0.5, 0.25, "−0.50 ± 0.25"),
    (0.5, None, "0.5000"), (0.5, 0.0, "0.5000"), (0.5, float("nan"), "0.5000"), (None, 0.1, "–"),
    (3.0, 1.0, "3.0 ± 1.0"), (0.49999978, 0.00000095, "0.5000 ± 1e−6")])
def test_intervals(value, half, shown):
  assert with_interval(value, half) == shown


@pytest.mark.parametrize(("value", "half", "shown"), [
    (0.99, 0.04, "0.990 (0.950 to 1)"), (0.01, 0.04, "0.010 (0 to 0.050)"), (0.5, 0.7, "0.50 (0 to 1)"),
    (0.96, 0.04, "0.960 ± 0.040"), (1.2, 0.1, "1.20 ± 0.10"), (0.99, None, "0.9900")])
def test_intervals_are_cut_at_the_limits_of_a_metric(value, half, shown):
  assert with_interval(value, half, [0.0, 1.0]) == shown


def test_curves_are_drawn_with_their_units(tmp_path):
  metrics = {"loss": {"unit": "nats", "meaning": "", "direction": "lower", "chance": None}}
  axes = figures.losses(reading.read_run(make_run(tmp_path / "run", metrics=metrics))).axes
  assert [(ax.get_title(), ax.get_ylabel()) for ax in axes] == [
      ("loss", "loss\n(nats)"), ("terms, before weighting", "")]


def test_time_in_all_is_one_number_on_a_page(tmp_path):
  folder = make_run(tmp_path / "run", config=MINIMAL, total_time_s=7384.2)
  starts = [{"resume_step": 0, "setup_seconds": 7000.0, "compile_seconds": 100.0}, {"seconds": {"report": 80.0}},
            {"seconds": {"assess": 200.0, "save": 20.0}}]
  (tmp_path / "run" / "facts" / "process.jsonl").write_text("\n".join(map(json.dumps, starts)) + "\n")
  page = page_of(folder)
  (whole,) = (row[1] for row in page.rows if row[0] == "in all")
  assert re.fullmatch(r"2:01:4\d|2:0[2-4]:\d\d", whole)  # 7,302 s with 2 s of steps, and some to draw figures
  assert f"time in steps 2.000 s 2,000 rows/s · {whole} in all" in page.text


def test_wide_tables_show_that_they_scroll(tmp_path):
  page = page_of(make_run(tmp_path / "run", config=MINIMAL))
  rule = re.search(r"\.scroll\{(background:[^}]*overflow:auto[^}]*)\}", page.source).group(1)
  assert rule.count("local") == 2 and rule.count("var(--edge)") == 2 and "max-width:100%" in rule


def test_data_and_configuration(tmp_path):
  said = meanings.of_all()
  epochs = f"train.num_epochs{said['train.num_epochs']}"
  origins = {"train.num_epochs": "flag", "data.features": "environment"}
  config = MINIMAL | {"origins": origins, "train": {"num_epochs": 4, "monitor": "val_loss"}}
  page = page_of(make_run(tmp_path / "run", config=config | {"data": {"features": ["a"], "source": "csv", "x": []}}))
  for row in (["source", "wells.csv"], ["rows of train", "1,234"], ["rows of val", "99"],
              ["groups per part", "train 8, val 2"], ["rows dropped", "17"],
              ["features", "2"], ["classes", "3"], ["mass", "identity", "0.5000", "1.500"],
              [epochs, "4", "flag"], ["data.features", "('a',)", "environment"], ["data.x", "()"],
              [f"train.monitor{said['train.monitor']}", "'val_loss'"]):
    assert row in page.rows
  assert "Synthetic" not in page.text and "ooze, clay, sand" in page.text
  assert page.rows.index([epochs, "4", "flag"]) < page.rows.index([f"seed{said['seed']}", "3"])


def test_synthetic_data_is_said_to_be(tmp_path):
  folder = make_run(tmp_path / "run", config=MINIMAL)
  replace_text(folder, "eval/test.json", lambda text: text.replace("wells.csv", "synthetic lithology"))
  assert "Synthetic data: generated by jaxtrain, not measured." in page_of(folder).text


def test_command_to_repeat_the_run(tmp_path):
  argv = ["/home/me/jaxtrain/main.py", "--config=configs/vae.py:smoke", "--workdir", "/tmp/x", "--resume=required",
          "--config.data.features=('a b',)"]
  latest = {"argv": [argv[0], argv[1], "--workdir=/tmp/x", "--config.train.num_epochs=9"], "time": "2026-02-02"}
  config = MINIMAL | {"origins": {"train.num_epochs": "environment", "data.path": "environment"},
                      "train": {"num_epochs": 4}, "data": {"path": "a b.csv"}}
  process = {"argv": argv, "time": "2026-01-01", "git_commit": "abc123+changes", "latest": latest}
  page = page_of(make_run(tmp_path / "run", config=config, process=process))
  said = page.source.split("<pre>")[1].split("</pre>")[0]
  begin = "TRAIN__NUM_EPOCHS=4 DATA__PATH='a b.csv' python -m jaxtrain.main --config=configs/vae.py:smoke "
  assert html.unescape(said).split("\n") == [
      "git checkout abc123  # and what was not committed",
      begin + "'--config.data.features=('\"'\"'a b'\"'\"',)'", begin + "--config.train.num_epochs=9"]
  assert ["started", "2026-01-01 then 2026-02-02"] in page.rows and "configs/vae.py:smoke" in page.text


def test_little_known(tmp_path):
  (tmp_path / "config.json").write_text("{\"seed\": 1}")
  page = page_of(str(tmp_path), drawn=True)
  assert "incomplete" in page.text and "None were drawn" in page.text and "no run.json" in page.text


def test_problems_are_told(tmp_path, monkeypatch, capsys):
  def broken(run):
    raise ValueError("<no> luck")
  monkeypatch.setitem(figures.FAMILIES, "losses", broken)
  config = {"log": {"figures": "standard", "families": ["losses", "metrics"]}}
  page = page_of(make_run(tmp_path / "run", config=config), drawn=True)
  assert "Note: figure losses was not drawn: ValueError: <no> luck" in page.text and len(page.all("img", "src")) == 1
  assert capsys.readouterr().err == "jaxtrain: figure losses was not drawn: ValueError: <no> luck\n"


def test_moments(tmp_path):
  folder = make_run(tmp_path / "run", config={"log": {"figures": "full", "families": []}})
  assert run_page.write_run(folder, "train") is None
  assert sorted(os.listdir(os.path.join(folder, "figures"))) == [
      f"{name}-train-e004.png" for name in sorted(CURVES)]
  assert not os.path.exists(os.path.join(folder, "report.html"))


@pytest.mark.parametrize(("num_stages", "badge"), [(2, "done"), (3, "incomplete")])
def test_stages(tmp_path, num_stages, badge):
  stages = [{"optim": {"learning_rate": 0.1 * k}} for k in range(num_stages)]
  config = MINIMAL | {"stages": stages, "seed": 5, "origins": {"seed": "flag"}}
  (tmp_path / "config.json").write_text(json.dumps(config))
  for k in range(2):
    make_run(tmp_path / "stages" / str(k), num_epochs=3 + k, config=MINIMAL)
  (tmp_path / "stages" / "2").mkdir()  # killed before it wrote anything
  page = page_of(str(tmp_path))
  assert re.search(r'<span class="badge \w+">(\w+)</span>', page.source).group(1) == badge
  assert page.all("a", "href")[-2:] == ["stages/0/report.html", "stages/1/report.html"]
  assert "epochs best 2, stopped at 3 of 4 30 steps" in page.text
  assert page.text.count("epochs best 3 of 4 40 steps") == 2
  assert "optim.learning_rate = 0.1" in page.text
  assert ["seedroot of all randomness of training", "5", "flag"] in page.rows
  assert len(page.all("img", "src")) == 2 and page.all("section", "id")[0] == "Stages"
  assert len(Page(tmp_path / "stages" / "0" / "report.html").all("img", "src")) == 1


@pytest.mark.parametrize(("value", "shown"), [
    (None, "–"), (0, "0"), (20000, "20,000"), (-3, "−3"), (True, "True"), (1.0, "1.000"), (0.95712, "0.9571"),
    (0.0, "0.000"), (128.0115, "128.0"), (1234.56, "1,235"), (-98765.4, "−98,765"), (1.5e12, "1.500e+12"),
    (2e-7, "2.000e−07"), (float("nan"), "nan"), ("nan", "nan"), ("007", "007"), ("1e5", "1e5"), ([1], "[1]")])
def test_numbers(value, shown):
  assert fmt(value) == shown


def command(*arguments):
  """Runs a Python command from the root of the repository."""
  return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_command(tmp_path):
  folder = make_run(tmp_path / "run", config=MINIMAL)
  done = command("-m", "jaxtrain.report", folder)
  assert (done.returncode, done.stdout, done.stderr) == (0, os.path.join(folder, "report.html") + "\n", "")
  refused = command("-m", "jaxtrain.report", str(tmp_path))
  assert (refused.returncode, refused.stdout) == (2, "")
  assert refused.stderr == (
      f"jaxtrain: {str(tmp_path)!r} holds neither a run (config.json) nor a sweep (sweep.json)\n")


def test_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
  folder = make_run(tmp_path / "run", config=MINIMAL)
  os.mkdir(os.path.join(folder, "report.html"))
  monkeypatch.setattr(sys, "argv", ["report", folder])
  assert __main__.main() == 2 and sorted(os.listdir(tmp_path)) == ["run"]
  assert capsys.readouterr().err.startswith(f"jaxtrain: {folder}/report.html")
  assert "report.html.new" not in os.listdir(folder)


def test_neither_jax_nor_pyplot_is_loaded(tmp_path):
  folder = make_run(tmp_path / "run", config={"log": {"figures": "standard", "families": ["losses", "classes"]}})
  code = ("import jaxtrain.report.run_page as page, sys; assert 'jax' not in sys.modules;"
          "page.write_run(sys.argv[1], 'end');"
          "assert not {'jax', 'matplotlib.pyplot'} & set(sys.modules)")
  done = command("-c", code, folder)
  assert (done.returncode, done.stderr) == (0, "") and len(os.listdir(os.path.join(folder, "figures"))) == 2


def test_fields_are_shown_with_what_they_mean(tmp_path):
  """What the run noted of its own fields, and what is known of those that all share."""
  folder = make_run(tmp_path / "run", config=MINIMAL | {"origins": {"loss.weights.kl": "flag", "seed": "flag"}},
                    process={"meanings": {"loss.weights.kl": "weight of <KL>", "model.kind": 3, "seed": "mine"}})
  page = page_of(folder)
  assert ["loss.weights.klweight of <KL>", "0.5", "flag"] in page.rows
  assert ["seedroot of all randomness of training", "3", "flag"] in page.rows
  assert ["model.kind", "'semisup'"] in page.rows and ["data.source", "'csv'"] in page.rows
  assert "<KL>" not in page.source
  replace_text(folder, "run.json", lambda text: json.dumps({"meanings": 5}))
  assert ["loss.weights.kl", "0.5", "flag"] in page_of(folder).rows


def test_commands_that_do_it_again(tmp_path):
  """A process that went on by the folder alone is repeated with the flags of the first."""
  main, first = "/x/jaxtrain/main.py", ["--config=a.py", "--config.seed=3"]
  start = lambda *flags: [main, *flags]
  again = lambda *argvs: run_page.repeated(list(argvs), ["SEED=1"])
  assert again(start(*first, "--workdir=runs/a"), start("--workdir", "runs/a", "--config.train.num_epochs=9")) == [
      "SEED=1 python -m jaxtrain.main --config=a.py --config.seed=3",
      "SEED=1 python -m jaxtrain.main --config=a.py --config.seed=3 --config.train.num_epochs=9"]
  assert again(start(*first), start(*first)) == ["SEED=1 python -m jaxtrain.main --config=a.py --config.seed=3"]
  assert again(["train.py", "a b"]) == ["python train.py 'a b'"]
