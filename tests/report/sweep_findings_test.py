"""What the page of a sweep says by itself: the edge of the grid, the split, many metrics, pages of members."""

import os

from made_sweeps import make_run, make_sweep, page_of, row_of, run_main
from pages import Page


def test_page_opens_on_what_was_monitored_and_tells_the_edge_of_the_grid(tmp_path):
  page, data = page_of(make_sweep(tmp_path / "s", rates=(0.1, 0.01, 0.001)), output=tmp_path / "out.html")
  assert data["metrics"][data["main"]]["name"] == "best val_loss"
  said = "The best rate, 0.1, is the largest of the 3 that were tried, so that larger ones may be better still."
  assert said in page.text
  loss = lambda k, rate, seed: abs(k - 1) + 0.01 * seed
  page, _ = page_of(make_sweep(tmp_path / "t", rates=(0.1, 0.01, 0.001), loss=loss), output=tmp_path / "out.html")
  assert "that were tried" not in page.text


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
