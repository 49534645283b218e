"""Strip logs and tables of two embeddings, from files that a model's verbs would write."""

import sys

import numpy as np
import pytest

from drawn import texts
from jaxtrain.data import files, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import __main__ as command, applied, figures_strip, groups, lithology_tables
from jaxtrain.report import figures

CLASSES = [f"c{k:02d}" for k in range(13)]


def classified(folder, num_rows=60, labelled=True):
  """A table of two holes, from deep to shallow, with a row without a result."""
  random = np.random.default_rng(0)
  prob = random.dirichlet(np.arange(1.0, 14.0), num_rows)
  prob[3] = np.nan
  pred = np.array([None if np.isnan(row).any() else CLASSES[row.argmax()] for row in prob], object)
  columns = {"Borehole_ID": np.repeat(np.array(["1-U1-A", "1-U2-A"], object), num_rows // 2),
             "Depth_Bin": np.arange(num_rows)[::-1] % (num_rows // 2) / 5}
  columns |= {"Principal": np.where(np.arange(num_rows) % 3 == 0, None, pred)} if labelled else {}
  columns |= {f"prob_{name}": prob[:, k] for k, name in enumerate(CLASSES)}
  columns |= {"pred_label": pred, "novelty": np.linspace(0, 100, num_rows)}
  path = str(folder / "classified.npz")
  writing.write(path, columns)
  return path, columns


def test_a_strip_log_has_the_bins_of_its_hole_from_the_top_down(tmp_path):
  path, columns = classified(tmp_path)
  log = applied.strip_log(files.read("npz", path), "1-U1-A", "Borehole_ID", "Depth_Bin", "Principal")
  rows = [k for k in range(29, -1, -1) if k != 3]
  np.testing.assert_array_equal(log.depth, columns["Depth_Bin"][rows])
  assert log.step == pytest.approx(0.2) and log.others == 3 and len(log.classes) == 10 == log.prob.shape[1]
  np.testing.assert_array_equal(log.prob[:, 0], columns[f"prob_{log.classes[0]}"][rows])
  means = {name: columns[f"prob_{name}"][rows].mean() for name in CLASSES}
  assert log.classes == sorted(CLASSES, key=lambda name: -means[name])[:10]
  assert log.pred.tolist() == columns["pred_label"][rows].tolist() and log.agree == 1
  assert [name is None for name in log.label] == [k % 3 == 0 for k in rows]
  np.testing.assert_array_equal(log.novelty, columns["novelty"][rows])


@pytest.mark.parametrize("labelled", [True, False])
def test_the_command_draws_a_hole(tmp_path, monkeypatch, capsys, labelled):
  path, _ = classified(tmp_path, labelled=labelled)
  picture = tmp_path / "hole.png"
  monkeypatch.setattr(sys, "argv", ["vae", f"--classified={path}", "--hole=1-U2-A", f"--output={picture}"])
  assert command.main() == 0 and picture.read_bytes().startswith(b"\x89PNG")
  assert "strip log of 30 bins of 1-U2-A" in capsys.readouterr().out
  with figures.styled():
    figure = figures_strip.strip_log(applied.strip_log(files.read("npz", path), "1-U2-A", "Borehole_ID", "Depth_Bin",
                                                       "Principal"))
  stack = figure.axes[0].collections
  widths = [one.get_paths()[0].vertices[:, 0].max() - one.get_paths()[0].vertices[:, 0].min() for one in stack]
  assert sum(widths) == pytest.approx(1) and len(stack) == 11  # ten classes, and what is left of 1
  assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1] and len(figure.axes) == 3 + labelled
  said = texts(figure)
  assert "3 other classes" in said and ("true" in said) == labelled and "at 95 or more" in said


@pytest.mark.parametrize(("change", "said"), [
    ({"hole": "1-U3-A"}, "--hole: {} has no '1-U3-A', allowed 1-U1-A, 1-U2-A"),
    ({"group": "hole"}, "--group_column: {} has no column 'hole'"), ({"at": "depth"}, "--at_column: {} has no column")])
def test_what_a_table_lacks_is_said(tmp_path, change, said):
  path, _ = classified(tmp_path)
  given = {"hole": "1-U1-A", "group": "Borehole_ID", "at": "Depth_Bin", "label": "Principal"} | change
  with pytest.raises(UserError) as error:
    applied.strip_log(files.read("npz", path), *given.values())
  assert said.format(path) in error.value.message
  writing.write(path, {"a": np.arange(3)})
  with pytest.raises(UserError, match="has no probabilities of classes"):
    applied.strip_log(files.read("npz", path), *given.values())


def embedded(folder, name, start, depth=0.2):
  """A table as a model with twelve latent dimensions embeds it."""
  columns = {"hole": np.array(["a", "b", None], object), "depth": np.array([0.0, depth, np.nan]),
             "Principal": np.array(["ooze", None, "clay"], object)}
  columns |= {f"emb_{k}": np.array([start + k, -1.5, np.nan], np.float32) for k in range(12)}
  writing.write(str(folder / name), columns | {"novelty": np.float32([start, 2, 3])})
  return str(folder / name)


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_two_models_embeddings_stand_in_one_table(tmp_path, monkeypatch, ending):
  one, two = embedded(tmp_path, "one.csv", 100), embedded(tmp_path, "two.csv", 200)
  output = str(tmp_path / f"both.{ending}")
  monkeypatch.setattr(sys, "argv", ["vae", f"--unsup={one}", f"--semisup={two}", f"--output={output}"])
  assert command.main() == 0
  found = files.read(ending, output).values
  if ending == "csv":
    assert list(found) == ["hole", "depth", "Principal", *(f"unsup_emb_{k}" for k in range(12)),
                           *(f"semisup_emb_{k}" for k in range(12))]
    assert [float(found[f"{kind}_emb_11"][0]) for kind in ("unsup", "semisup")] == [111, 211]
  else:
    arrays = np.load(output)
    assert sorted(arrays) == ["semisup", "unsup", "y"] and arrays["y"].tolist() == ["ooze", "", "clay"]
    np.testing.assert_array_equal(arrays["semisup"][0], np.arange(200, 212))


def test_embeddings_of_different_tables_are_refused(tmp_path):
  one, two = (files.read("csv", embedded(tmp_path, name, 1, depth)) for name, depth in (("a.csv", 0.2), ("b.csv", 0.4)))
  with pytest.raises(UserError, match="column 'depth', row 3 is '0.2' and '0.4'"):
    applied.pair_embeddings(one, two)
  with pytest.raises(UserError, match="are of different tables: 3 and 3 rows"):
    applied.pair_embeddings(one, two._replace(values={k: v for k, v in two.values.items() if k != "depth"}))
  with pytest.raises(UserError, match="has no embedding"):
    applied.pair_embeddings(one, two._replace(values={"depth": two.values["depth"]}))


def test_groups_are_those_of_the_published_table():
  classes = [name for rows in lithology_tables.ROWS.values() for name in rows]
  found = groups.groups_of(classes)
  rows = {group: sum(n for name, n in some.items()) for group, some in lithology_tables.ROWS.items()}
  assert len(classes) == 139 and len(set(found)) == 14 and rows["Carbonate"] == 100531
  assert found == [group for group, some in lithology_tables.ROWS.items() for _ in some]
  assert groups.groups_of(["Nannofossil  Ooze", "clay"]) == ["Carbonate", "Clay/Mud"]
  assert groups.groups_of(["Nannofossil  Ooze", "clay", "my clay"]) == [] == groups.groups_of([])


def test_the_group_is_that_of_the_summed_probabilities():
  classes = ["clay", "chalk", "wackestone"]
  columns = {"prob_clay": np.array([0.4, 0.6, np.nan]), "prob_chalk": np.array([0.3, 0.2, 0.1]),
             "prob_wackestone": np.array([0.3, 0.2, 0.1])}
  found = groups.pick_group(classes, columns)
  assert found["pred_group"].tolist() == ["Carbonate", "Clay/Mud", None]
  np.testing.assert_allclose(found["pred_group_prob"], [0.6, 0.6, np.nan], rtol=1e-6)
  assert groups.pick_group(["a"], {"prob_a": np.ones(1)}) == {}
