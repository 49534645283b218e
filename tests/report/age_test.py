"""Whether the page of a run is as new as what it shows."""

import os

from jaxtrain import config as config_lib
from jaxtrain.report import age
from jaxtrain.workdir import jsonfile


def test_a_page_is_drawn_again_only_where_something_it_shows_is_newer(tmp_path, monkeypatch):
  monkeypatch.setattr(age, "code_of_pages", lambda config: [str(tmp_path / "code.py")])
  made = config_lib.common()
  made.log.figures = "minimal"
  is_drawn = lambda: age.is_drawn(made, str(tmp_path))
  date = lambda path, time: os.utime(tmp_path / path, ns=(time, time))
  for folder in ("eval", "stages/0/figures"):
    (tmp_path / folder).mkdir(parents=True)
  jsonfile.write_json(str(tmp_path / "config.json"), {"seed": 1})
  assert not is_drawn()
  for name in ("eval/test.json", "stages/0/config.json", "stages/0/history.json", "stages/0/report.html", "report.html",
               "code.py"):
    (tmp_path / name).touch()
  for path in tmp_path.rglob("*"):
    date(path, 0)
  jsonfile.write_json(str(tmp_path / "config.json"), {"seed": 1})  # as it is
  assert is_drawn()
  for path in ("eval/test.json", "stages/0/figures", "stages/0/history.json", "code.py"):
    date(path, 1)
    assert not is_drawn()
    date(path, 0)
  for path in ("stages/0/figures", "stages/0/report.html"):  # taken away by hand
    (tmp_path / path).rename(tmp_path / "away")
    assert not is_drawn()
    (tmp_path / "away").rename(tmp_path / path)
  assert is_drawn()
  jsonfile.write_json(str(tmp_path / "config.json"), {"seed": 2})
  assert not is_drawn()


def test_the_code_of_pages_is_that_of_reports_and_of_the_familys_figures():
  made = config_lib.common()
  made.experiment = "jaxtrain.experiments.tabular_vae.vae"
  names = {os.path.relpath(path, os.path.dirname(age.__file__)) for path in age.code_of_pages(made)}
  assert names >= {"run_page.py", "plots.js", "../experiments/tabular_vae/figures_data.py"}
  assert not any("autoencoder" in name for name in names)
