"""What the page of a sweep says by itself: the edge of the grid, the split, many metrics, pages of members."""

import os

import numpy as np

from jaxtrain.report import collection, figures, pictures, sweep_notes, sweep_page
from made_sweeps import make_run, make_sweep, metric_of, page_of, row_of, run_main
from pages import Page


def test_page_opens_on_what_was_monitored_and_tells_the_edge_of_the_grid(tmp_path):
  page, data = page_of(make_sweep(tmp_path / "s", rates=(0.1, 0.01, 0.001)), output=tmp_path / "out.html")
  assert data["metrics"][data["main"]]["name"] == "best val_loss"
  said = "The best rate, 0.1, is the largest of the 3 that were tried, so that larger ones may be better still."
  assert said in page.text
  loss = lambda k, rate, seed: abs(k - 1) + 0.01 * seed
  page, _ = page_of(make_sweep(tmp_path / "t", rates=(0.1, 0.01, 0.001), loss=loss), output=tmp_path / "out.html")
  assert "that were tried" not in page.text


def weighted(folder, said):
  """Runs of three weights of a term: the smaller, the lower the loss, and the lower the AUC."""
  for k, weight in enumerate((0.1, 1.0, 3.0)):
    make_run(folder / str(k), 1.0 + k, config={"loss": {"weights": {"class": weight}}}, said=said,
             scalars={"auc": 0.5 + 0.1 * k, "class": 0.5 - 0.1 * k, "sharp": 1.0 * k})
  return [folder / str(k) for k in range(3)]


def test_settings_whose_losses_do_not_compare_are_judged_by_what_does(tmp_path):
  runs = weighted(tmp_path, {"loss": "lower", "class": "lower", "auc": "higher"})
  page, data = page_of(*runs, output=tmp_path / "out.html")
  assert data["metrics"][data["main"]]["name"] == "test_auc" and metric_of(data, "test_auc")["best"] == 2
  assert "settings are compared by test_auc" in page.text and "Highest mean test_auc: weights.class=3" in page.text
  assert "The best weights.class by test_auc, 3, is the largest of the 3 that were tried" in page.text
  losses = [metric for metric in data["metrics"] if metric["name"].endswith("loss")]
  assert len(losses) > 1 and all(one["best"] is None and not one["pairs"] for one in losses)
  assert "Lowest mean" not in page.text


def test_without_a_metric_that_compares_no_setting_is_the_best(tmp_path):
  page, data = page_of(*weighted(tmp_path, {"class": "lower"}), output=tmp_path / "out.html")
  assert data["metrics"][data["main"]]["name"] == "best val_loss" and metric_of(data, "best val_loss")["best"] is None
  assert "no other metric of held-out rows says which is best" in page.text
  assert "mean best" not in page.text and "Lowest mean" not in page.text and "that were tried" not in page.text


def test_seeds_of_one_split_are_said_to_share_it(tmp_path):
  for seed in range(3):
    for fold in range(2):
      config = {"seed": seed, "data": {"split": {"kind": "random", "fold": fold}}}
      make_run(tmp_path / str(fold) / str(seed), 1.0 + seed, config=config)
  one = [tmp_path / "0" / str(seed) for seed in range(3)]
  says = "All seeds share one split of the data"
  assert says in page_of(*one, output=tmp_path / "out.html")[0].text
  assert says not in page_of(*one, tmp_path / "1" / "0", output=tmp_path / "out.html")[0].text


def test_many_metrics_stand_in_a_second_table(tmp_path):
  scalars = {f"m{k}": float(k) for k in range(9)} | {"m0_ci95": 0.5}
  make_run(tmp_path / "a", 1.0, scalars=scalars)
  page, data = page_of(tmp_path / "a", output=tmp_path / "out.html")
  heads = [row for row in page.rows if row[:1] == ["run"]]
  assert len(heads) == 2 and set(heads[0][2:]) | set(heads[1][1:]) == {
      *(metric["name"] for metric in data["metrics"]), "best at"}
  assert len(heads[0]) == 9 and "test_m8" in heads[1] and "m0_ci95" not in page.source


def test_pages_of_members_are_drawn_on_demand(tmp_path, monkeypatch, capsys):
  folder = make_sweep(tmp_path / "s", rates=(0.1,), seeds=(0, 1), ends={1: "pending"}, name="-rate=0.1,seed")
  os.remove(os.path.join(folder, "runs", "000-rate=0.1,seed", "report.html"))
  page, _ = page_of(folder, output=os.path.join(folder, "report.html"))
  assert not page.all("a", "href") and "1 of 2 runs have no page of their own yet." in page.text
  assert run_main(monkeypatch, folder, "--members") == 0
  page = Page(os.path.join(folder, "report.html"))
  assert page.all("a", "href") == ["runs/000-rate%3D0.1%2Cseed/report.html"] and row_of(page, "000")["status"] == "done"
  assert "no page of their own" not in page.text
  assert len(Page(os.path.join(folder, "runs", "000-rate=0.1,seed", "report.html")).all("img", "src")) >= 1
  assert run_main(monkeypatch, os.path.join(folder, "runs", "000-rate=0.1,seed"), "--members") == 2
  assert "is no sweep" in capsys.readouterr().err


def test_runs_of_different_data_are_not_ranked(tmp_path):
  for name, path in (("m1", "one.csv"), ("m2", "two.csv")):
    make_run(tmp_path / name, 1.0, config={"data": {"path": path}, "seed": 0, "train": {"num_epochs": len(path)}})
  page, data = page_of(tmp_path / "m1", tmp_path / "m2", output=tmp_path / "out.html")
  assert "of different data (data.path)" in page.text or "of different data (path)" in page.text, page.text
  assert all(metric["best"] is None for metric in data["metrics"])
  assert "Lowest mean" not in page.text and "that were tried" not in page.text


def test_single_runs_that_differ_in_much_have_the_names_of_their_folders(tmp_path):
  member = lambda name, k: collection.Member(name, name, "done", "", {f"f.x{i}": k for i in range(6)},
                                             frozenset(f"f.x{i}" for i in range(6)))
  members = [member("m1", 1), member("m2", 2)]
  fields = collection.varying(members)
  assert collection.group_labels(members, [[0], [1]], fields) == ["m1", "m2"]


def test_a_field_of_two_values_that_others_follow_has_no_edge():
  """Two runs that differ in two fields say nothing of either; with a third that differs in one alone they do."""
  keys = ("optim.rate", "model.depth")
  members = [collection.Member(str(k), str(k), "done", "", dict(zip(keys, values)), frozenset(keys),
                               metrics={"best val_loss": loss}, is_final=True)
             for k, (*values, loss) in enumerate(((0.1, 25, 3.0), (0.2, 35, 1.0), (0.2, 25, 2.0)))]
  depth = "The best depth, 35, is the largest of the 2 that were tried, so that larger ones may be better still."
  for count, said in ((2, []), (3, [depth])):  # of the rate no run differs alone from the best
    some, groups = members[:count], [[k] for k in range(count)]
    compared = sweep_page.compare_metric("best val_loss", some, groups)
    found = sweep_page.edges_of_grid(compared, some, groups, collection.varying(some))
    assert found == said


def test_best_states_from_before_a_schedule_ended_are_counted():
  steps = np.arange(1, 5) * 10.0
  beta = {("train", "beta"): (steps, np.array([0.1, 0.2, 0.3, 0.3])), ("val", "loss"): (steps, steps)}
  members = [collection.Member(str(k), str(k), "done", "", {}, curves=beta, best_step=best)
             for k, best in enumerate((10, 30, 40, None))]
  (said,) = sweep_notes.schedules(members)
  assert "In 1 of 4 runs the best state is from a time when beta still changed" in said
  assert not sweep_notes.schedules(members[1:])  # by step 30 beta has its last value
  rising = {("train", "beta"): (steps, np.array([0.1, 0.2, 0.3, 0.4]))}
  (said,) = sweep_notes.schedules([member._replace(curves=rising) for member in members])
  assert "In 3 of 4 runs" in said


def test_groups_have_the_colours_that_figures_give_them():
  """Figures know no group whose runs have not begun: here the first."""
  curve = {("val", "loss"): (np.arange(2), np.arange(2))}
  members = [collection.Member(str(k), str(k), "done", "", {}, curves=curve if k else {}) for k in range(3)]
  found = sweep_page.color_records(members, {0: 0, 1: 1, 2: 2}, 3)
  assert found["places"] == [2, 0, 1] and found["hues"] == figures.HUES


def test_code_in_a_caption_is_marked_as_such():
  shown = pictures.picture("maps", "by UMAP (`log.figures=full`), <else> PCA", b"\x89PNG" + bytes(40))
  assert "<code>log.figures=full</code>), &lt;else&gt; PCA" in shown and "`" not in shown
