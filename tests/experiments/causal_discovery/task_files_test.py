"""Tasks as files, graphs of any method judged, the table of an assessed run; and figures of families."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import __main__ as command, figures_suites, task_files
from jaxtrain.workdir.reading import RunData

NAMES = ["x0", "x1", "x2"]


def call(monkeypatch, *flags):
  """Runs the command in this process."""
  monkeypatch.setattr(sys, "argv", ["causal_discovery", *flags])
  assert command.main() == 0


def write(path, rows):
  """A CSV file of rows."""
  with open(path, "w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows(rows)
  return str(path)


def test_columns_of_a_task_mark_experiments_and_leave_missing_cells_empty():
  task = {"values": np.arange(6.0).reshape(2, 3), "intervened": np.array([[0, 0, 0], [0, 1, 0]]),
          "observed": np.array([[True, True, False], [True] * 3]), "adjacency": np.zeros((3, 3))}
  found = task_files.columns_of(task)
  assert list(found) == ["x0", "x1", "x2", "x1_intervened"] and list(found["x1_intervened"]) == [0, 1]
  assert np.isnan(found["x2"][0]) and found["x2"][1] == 5


def test_graphs_of_probabilities_and_of_samples(tmp_path):
  path = write(tmp_path / "a.csv", [["cause", "effect", "prob"], ["x0", "x1", 0.75], ["x2", "x1", 0.25]])
  probs, graphs = task_files.read_graphs(path, NAMES)
  assert probs[0, 1] == 0.75 and probs[2, 1] == 0.25 and probs.sum() == 1
  assert graphs.shape == (1, 3, 3) and graphs[0, 0, 1] == 1 and graphs.sum() == 1
  path = write(tmp_path / "b.csv", [["x0->x1", "x2->x0"], [1, 0], [1, 1], [0, 1], [1, 0]])
  probs, graphs = task_files.read_graphs(path, NAMES)
  assert graphs.shape == (4, 3, 3) and list(graphs[:, 0, 1]) == [1, 1, 0, 1] and list(graphs[:, 2, 0]) == [0, 1, 1, 0]
  assert probs[0, 1] == 0.75 and probs[2, 0] == 0.5 and probs.sum() == 1.25


@pytest.mark.parametrize("rows, words", [
    ([["cause", "effect", "prob"], ["x0", "y", 1]], "got 'y', allowed x0, x1, x2"),
    ([["cause", "effect", "prob"], ["x0", "x1", 2]], "column 'prob'"),
    ([["a", "b"], [1, 2]], "got the column 'a', allowed cause, effect and prob, or CAUSE->EFFECT"),
    ([["x0->x9"], [1]], "got the column 'x0->x9'"), ([["x0->x1"], [0.5]], "other numbers than 0 and 1")])
def test_graphs_that_are_none(tmp_path, rows, words):
  with pytest.raises(UserError) as caught:
    task_files.read_graphs(write(tmp_path / "a.csv", rows), NAMES)
  assert words in caught.value.message and "a.csv" in caught.value.message


def test_files_that_are_not_there(tmp_path):
  with pytest.raises(UserError, match="--tasks: .* holds no tasks"):
    task_files.score(str(tmp_path / "no"), str(tmp_path))
  (tmp_path / "tasks" / "empty").mkdir(parents=True)
  with pytest.raises(UserError, match="--tasks: .*empty' holds no tasks, which are pairs of files NUMBER.csv"):
    task_files.score(str(tmp_path / "tasks"), str(tmp_path))
  with pytest.raises(UserError, match="--graphs: cannot read"):
    task_files.read_graphs(str(tmp_path / "no.csv"), NAMES)
  (tmp_path / "full").write_text("", encoding="utf-8")
  with pytest.raises(UserError, match="is not empty"):
    task_files.write_tasks(None, str(tmp_path))


def test_a_family_whose_tasks_were_all_rejected_has_no_folder(tmp_path, monkeypatch):
  task = {"values": np.zeros((2, 3)), "intervened": np.zeros((2, 3)), "observed": np.ones((2, 3), bool),
          "adjacency": np.zeros((3, 3))}
  monkeypatch.setattr(task_files, "sources_of", lambda config: {"id": [task, task], "gone": []})
  monkeypatch.setattr(task_files, "unpacked", iter)
  assert task_files.write_tasks(None, str(tmp_path)) == 2
  assert [path.name for path in tmp_path.iterdir()] == ["id"] and len(list((tmp_path / "id").iterdir())) == 4


@pytest.mark.parametrize("flags, words", [
    ((), "--config, --tasks with --graphs, --real, --workdir: allowed one of these"),
    (("--tasks=a", "--output=b.csv"), "allowed one of these"), (("--graphs=a", "--config=b"), "allowed one of these"),
    (("--workdir=a", "--output=b.txt"), "--output: got 'b.txt', allowed the path of a file .csv"),
    (("--config=configs/causal_discovery.py:smoke",), "--output: required"),
    (("--config=configs/vae.py:smoke", "--output=b"), "--config: its experiment is"),
    (("--config=configs/causal_discovery.py:smoke", "--output=b"), "config.eval.max_test_tasks: got 0, allowed 1")])
def test_command_lines_that_are_refused(monkeypatch, capfd, flags, words):
  monkeypatch.setattr(sys, "argv", ["causal_discovery", *flags])
  assert command.main() == 2 and words in capfd.readouterr().err


@pytest.mark.slow
def test_the_truth_as_a_methods_graphs_is_judged_perfect_and_noise_is_not(tmp_path, monkeypatch, capsys):
  """Tasks written by the command, true graphs of some and reversed graphs of others judged by it."""
  flags = ["--config=configs/causal_discovery.py:smoke", "--config.eval.max_test_tasks=8",
           "--config.data.test_families=gone corruptions=missing:share=0.2 num_nodes=5"]
  call(monkeypatch, *flags, f"--output={tmp_path / 'tasks'}")
  assert "16 tasks in" in capsys.readouterr().out
  for family in ("id", "gone"):
    truths = sorted((tmp_path / "tasks" / family).glob("*.truth.csv"))
    assert len(truths) == 8 and len(list((tmp_path / "tasks" / family).glob("*.csv"))) == 16
    (tmp_path / "graphs" / family).mkdir(parents=True)
    for truth in truths:
      to = tmp_path / "graphs" / family / truth.name.replace(".truth", "")
      shutil.copy(truth, to)
      if family == "gone":
        to.write_text(to.read_text(encoding="utf-8").replace("cause,effect", "effect,cause"), encoding="utf-8")
  table = (tmp_path / "tasks" / "gone" / "0000.csv").read_text(encoding="utf-8")
  assert ",," in table and "x4" in table and "x5" not in table
  out = tmp_path / "scores.csv"
  call(monkeypatch, f"--tasks={tmp_path / 'tasks'}", f"--graphs={tmp_path / 'graphs'}", f"--output={out}")
  with open(out, newline="", encoding="utf-8") as file:
    gone, own = csv.DictReader(file)
  assert (gone["family"], own["family"], own["tasks"]) == ("gone", "id", "8")
  assert [float(own[name]) for name in ("auroc", "e_edge_f1", "e_shd", "ne_sid")] == [1, 1, 0, 0]
  assert float(gone["e_edge_f1"]) < 0.2 and float(gone["skeleton_f1"]) == 1


SCALARS = {"auroc": 0.8, "e_edge_f1": 0.4, "auroc_ci95": 0.02} | {
    f"{name}/f{k}": value for k in range(5) for name, value in (
        ("rows", 8), ("auroc", 0.75 - 0.05 * k), ("auroc_ci95", 0.03), ("e_edge_f1", 0.3),
        ("distance_spectral", 0.5 * k), ("distance_kl_degree", 0.1 * k**2), ("distance_mechanism", 0.0),
        ("ood_detection_auroc", 0.5 + 0.1 * k), ("auroc_over_partial_correlation", 0.1 - 0.05 * k))}


def run_with(scalars):
  """What a page reads of a run with these scalars."""
  evals = {"test": {"split": "test", "scalars": scalars}}
  return RunData("", {}, {}, {}, [], [], [], evals, "test", {}, {}, [])


def test_figures_of_families_show_each_of_them():
  figure = figures_suites.suite(run_with(SCALARS))
  titles = [ax.get_title() for ax in figure.axes]
  assert len(titles) == 4 and [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
      f"f{k}" for k in range(5)]
  drawn_at = figure.axes[0].lines[0].get_xdata()
  np.testing.assert_allclose(drawn_at, [0.75 - 0.05 * k for k in range(5)])
  assert figures_suites.suite(run_with({"auroc": 0.8, "auroc/er": 0.7})) is None


def test_a_slope_is_that_of_least_squares_with_its_interval():
  from scipy import stats
  random = np.random.RandomState(0)
  x = random.rand(12)
  y = 0.8 - 0.3 * x + 0.05 * random.normal(size=12)
  want = stats.linregress(x, y)
  b, half, a = figures_suites.slope(np.append(x, np.nan), np.append(y, 1.0))
  np.testing.assert_allclose([b, half, a], [want.slope, stats.t.ppf(0.975, 10) * want.stderr, want.intercept])
  assert np.isnan(figures_suites.slope(np.ones(5), y[:5])).all() and np.isnan(figures_suites.slope(x[:2], y[:2])).all()


def test_the_figure_of_degradation_says_its_slopes():
  figure = figures_suites.degradation(run_with(SCALARS))
  assert figure.axes[0].get_title().startswith("slope -0.10 ± 0.00")
  assert "no slope" in [ax.get_title() for ax in figure.axes]  # all at one distance
  assert figures_suites.degradation(run_with({"auroc": 0.8})) is None


def test_the_table_of_a_run_has_a_row_for_each_family(tmp_path):
  (tmp_path / "eval").mkdir()
  (tmp_path / "config.json").write_text(json.dumps({"experiment": "x"}), encoding="utf-8")
  record = {"split": "test", "step": 1, "digest": "sha256:" + "0" * 64, "scalars": SCALARS, "metrics": {}}
  (tmp_path / "eval" / "test.json").write_text(json.dumps(record), encoding="utf-8")
  found = command.table_of(str(tmp_path))
  assert list(found["family"]) == ["id", *(f"f{k}" for k in range(5))]
  np.testing.assert_allclose(found["auroc"], [0.8, *(0.75 - 0.05 * k for k in range(5))])
  np.testing.assert_allclose(found["distance_spectral"], [np.nan, 0, 0.5, 1, 1.5, 2])
  record["scalars"] = {name: value for name, value in SCALARS.items() if not name.endswith("/f0") or "rows" in name}
  (tmp_path / "eval" / "test.json").write_text(json.dumps(record), encoding="utf-8")
  rejected = command.table_of(str(tmp_path))  # all tasks of the first family
  assert rejected.keys() == found.keys() and np.isnan(rejected["auroc"][1]) and rejected["auroc_ci95"][2] == 0.03
  record["scalars"] = {"auroc": 0.8}
  (tmp_path / "eval" / "test.json").write_text(json.dumps(record), encoding="utf-8")
  with pytest.raises(UserError, match="is not assessed by families"):
    command.table_of(str(tmp_path))
