"""The door through which an experiment adds figures of several runs to the page that compares them."""

import json
import os

import made_assessments as made
import made_sweeps
from jaxtrain.report import collection, comparisons, figures, pictures, sweep_page
from made_sweeps import page_of
from pages import Page

FIELDS = [("vq", 0), ("vq", 1), ("none", 0), ("none", 1)]


def sweep(folder, ends=None):
  """A sweep of two kinds of latent space and two seeds; `ends` gives members another end than done."""
  base = {"experiment": made.EXPERIMENT, "seed": 0, "model": {"latent": {"kind": "vq"}}}
  made_sweeps.write_lines(folder / "sweep.json", [json.dumps({"version": 1, "config": "configs/a.py", "base": base})])
  lines = []
  for member, (kind, seed) in enumerate(FIELDS):
    run, values = f"runs/{member:03d}", {"model.latent.kind": kind, "seed": seed}
    lines.append({"event": "added", "member": member, "digest": "ab", "values": values, "folder": run})
    if ends is None or member not in ends:
      lines += [{"event": "started", "member": member}, {"event": "done", "member": member}]
      made.make_run(folder / run, kind=kind, seed=seed, lost=0.05 + 0.01 * member)
  made_sweeps.write_lines(folder / "journal.jsonl", map(json.dumps, lines))
  return folder


def test_figures_stand_on_the_page_with_captions_and_words_for_those_who_do_not_see(tmp_path):
  page, _ = page_of(sweep(tmp_path / "s"), output=tmp_path / "out.html")
  alts = page.all("img", "alt")
  assert [alt.partition(":")[0] for alt in alts] == ["compare_latents", "anomaly", "codebook_quality"]
  assert all(src.startswith("data:image/png;base64,") for src in page.all("img", "src"))
  assert len(page.all("source", "srcset")) == 3  # one for phones each
  assert "compare latents . Look for points near the lower left corner" in page.text and "Figures" in page.text
  assert all(": Look for " in alt for alt in alts)


def test_a_sweep_draws_none_where_no_run_has_figures_and_the_report_command_does(tmp_path, monkeypatch):
  family = lambda runs, labels: figures.new_figure(2, 2)
  monkeypatch.setattr(figures, "experiment_families", lambda *_: {"only": family})
  base = {"experiment": made.EXPERIMENT, "log": {"figures": "none", "families": []}}
  paths = [str(tmp_path / name) for name in "ab"]
  for k, path in enumerate(paths):
    made_sweeps.make_run(path, 1.0, config=base | {"seed": k})
  pages = [Page(sweep_page.write(paths, str(tmp_path / f"{asked}.html"), asked=asked)) for asked in (False, True)]
  assert [len(page.all("img", "src")) for page in pages] == [0, 1]
  assert "None were drawn: log.figures is none. python -m jaxtrain.report" in pages[0].text
  made_sweeps.make_run(tmp_path / "c", 1.0)  # says nothing of figures: has the standard ones
  assert comparisons.are_wanted(collection.gather([str(tmp_path / "c"), *paths]))


def test_runs_that_differ_in_their_seed_share_a_label(tmp_path, monkeypatch):
  seen = []
  family = lambda runs, labels: seen.append((runs, labels))
  monkeypatch.setattr(figures, "experiment_families", lambda *_: {"only": family})
  page, _ = page_of(sweep(tmp_path / "s", ends={3}), output=tmp_path / "out.html")
  (runs, labels), = seen
  assert labels == ["latent.kind=vq", "latent.kind=vq", "latent.kind=none"]
  assert [run.config["seed"] for run in runs] == [0, 1, 0]
  assert not page.all("img", "src") and "Figures" not in page.text


def test_a_figure_that_fails_is_noted_and_the_others_are_drawn(tmp_path, monkeypatch, capsys):
  def broken(runs, labels):
    """Look for nothing."""
    raise KeyError("codes")

  def only_wide(runs, labels, narrow=False):
    """Look for bars."""
    if narrow:
      raise ValueError("too wide for <phones>")
    figure = figures.new_figure(3, 2)
    figure.subplots().bar(range(len(runs)), 1.0)
    return figure

  monkeypatch.setattr(figures, "experiment_families", lambda *_: {"broken": broken, "only_wide": only_wide})
  page, _ = page_of(sweep(tmp_path / "s"), output=tmp_path / "out.html")
  assert page.all("img", "alt") == ["only_wide: Look for bars."] and not page.all("source", "srcset")
  assert "Note: figure broken was not drawn: KeyError: 'codes'" in page.text
  assert "Note: figure only_wide was not drawn for phones: ValueError: too wide for <phones>" in page.text
  assert capsys.readouterr().err.count("jaxtrain: figure ") == 2


def test_runs_of_several_experiments_or_of_none_that_has_any(tmp_path):
  made.make_run(tmp_path / "a")
  made_sweeps.make_run(tmp_path / "b", 1.0)
  mixed = collection.gather([str(tmp_path / "a"), str(tmp_path / "b")])
  assert comparisons.draw(mixed, ["a", "b"]) == []
  assert comparisons.draw(mixed[1:], ["b"]) == []  # its family compares nothing
  unknown = mixed[0]._replace(fields={"experiment": "os"})
  assert comparisons.draw([unknown], ["a"]) == []


def test_runs_that_cannot_be_read_are_passed_over(tmp_path):
  folders = [made.make_run(tmp_path / name) for name in "ab"]
  members = collection.gather(folders)
  os.remove(os.path.join(folders[0], "config.json"))
  runs, labels = comparisons.read_runs(members, ["first", "second"])
  assert labels == ["second"] and [run.folder for run in runs] == folders[1:]
  pending = members[1]._replace(curves={})
  assert comparisons.read_runs([pending], ["x"]) == ([], [])


def test_a_caption_is_that_of_the_figure_else_of_its_family():
  def family():
    """Look for
    this.
    """
  figure = figures.new_figure(2, 2)
  assert pictures.caption_of(family, figure) == "Look for this."
  figure.set_label("Look for\n that.")
  assert pictures.caption_of(family, figure) == "Look for that."
