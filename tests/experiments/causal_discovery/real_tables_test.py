"""Measured tables as tasks: what is read of files of several forms, what is refused, how they are judged."""

import importlib.util
import sys

import numpy as np
import pytest

from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import __main__ as command, knowledge, real_tables, task_files

HEAD = "praf,pmek,plcg,PIP2,PIP3,p44/42,pakts473,PKA,PKC,P38,pjnk"


def write(path, text):
  """A text file, and its path."""
  path.write_text(text, encoding="utf-8")
  return str(path)


def cells(path, num_rows=900):
  """A table with the columns of Sachs et al."""
  rows = [",".join(str(100 * r + d) for d in range(11)) for r in range(num_rows)]
  return write(path, "\n".join([HEAD, *rows]))


def test_the_proteins_have_the_consensus_graph(tmp_path):
  """17 edges, acyclic; the sets of parents as in bnlearn's network."""
  found = real_tables.read(["sachs", "sachs_all"], cells(tmp_path / "cells.csv"))
  one, names = found["sachs"]["0000"], found["sachs"]["0000"].names
  assert one.values.shape == (853, 11) and found["sachs_all"]["0000"].values.shape == (900, 11)
  assert one.values[2, names.index("Erk")] == 205 and one.values[2, names.index("Plcg")] == 202
  parents = {name: {names[i] for i in np.flatnonzero(one.graph[:, j])} for j, name in enumerate(names)}
  assert parents == {"Plcg": set(), "PKC": set(), "PKA": {"PKC"}, "PIP3": {"Plcg"}, "PIP2": {"Plcg", "PIP3"},
                     "Raf": {"PKC", "PKA"}, "Mek": {"PKC", "PKA", "Raf"}, "Erk": {"Mek", "PKA"}, "Akt": {"Erk", "PKA"},
                     "P38": {"PKC", "PKA"}, "Jnk": {"PKC", "PKA"}}
  assert one.graph.sum() == 17 and not np.diag(knowledge.ancestors(one.graph)).any()


def test_cells_are_found_in_the_package_without_importing_it(tmp_path, monkeypatch):
  folder = tmp_path / "cdt" / "data" / "resources"
  folder.mkdir(parents=True)
  (tmp_path / "cdt" / "__init__.py").write_text("raise RuntimeError", encoding="utf-8")
  monkeypatch.syspath_prepend(str(tmp_path))
  importlib.invalidate_caches()
  with pytest.raises(UserError, match="a file of the package cdt"):
    real_tables.read(["sachs"], "")
  cells(folder / "cyto_full_data.csv")
  assert real_tables.read(["sachs"], "")["sachs"]["0000"].values.shape == (853, 11)


def test_tasks_are_written_judged_and_read_back(tmp_path, monkeypatch):
  path, tasks = cells(tmp_path / "cells.csv"), str(tmp_path / "tasks")
  monkeypatch.setattr(sys, "argv", ["causal_discovery", "--real=sachs", f"--input={path}", f"--output={tasks}"])
  assert command.main() == 0
  graphs = tmp_path / "graphs" / "sachs"
  graphs.mkdir(parents=True)
  write(graphs / "0000.csv", "cause,effect,prob\nRaf,Mek,0.9\nPlcg,PIP3,0.8\nAkt,Erk,0.7\n")
  found = task_files.score(tasks, str(tmp_path / "graphs"))
  assert found["tasks"].tolist() == [1] and found["e_shd"][0] == 16 and found["correct_count"][0] == 2
  task = task_files.read_tasks(tasks)["sachs"][0]
  assert task["adjacency"].sum() == 17 and task["observed"].all() and task["values"].shape == (853, 11)
  np.testing.assert_allclose(task["values"].std(0), 1, rtol=1e-6)


def test_expression_and_networks_of_several_forms(tmp_path):
  """A folder of pairs of files, with genes in rows or in columns; and arrays."""
  for name in ("1", "2", "notes"):
    (tmp_path / name).mkdir()
  write(tmp_path / "1" / "nn_dataset.txt", "GENE\ts1\ts2\ts3\ng1\t1\t2\t3\ng2\t4\t5\t6\ng3\t7\t8\t\n")
  write(tmp_path / "1" / "nn_network.sif", "g1 ac g2\ng2 re g2\n")
  write(tmp_path / "2" / "table.csv", "x,y\n1,2\n3,4\n5,7\n")
  write(tmp_path / "2" / "network.csv", "cause,effect\ny,x\n")
  write(tmp_path / "notes" / "read.me", "")
  found = real_tables.read(["syntren"], str(tmp_path))["syntren"]
  assert list(found) == ["1", "2"]
  assert found["1"].names == ["g1", "g2", "g3"] and found["1"].values[:, 1].tolist() == [4, 5, 6]
  assert np.isnan(found["1"].values[2, 2]) and np.argwhere(found["1"].graph).tolist() == [[0, 1]]
  assert found["2"].values.tolist() == [[1, 2], [3, 4], [5, 7]] and found["2"].graph.tolist() == [[0, 0], [1, 0]]
  alone = tmp_path / "arrays"
  alone.mkdir()
  np.save(alone / "data1.npy", np.arange(6.0).reshape(3, 2))
  np.save(alone / "DAG1.npy", np.array([[0, 1], [0, 0]]))
  found = real_tables.read_syntren(str(alone))
  assert list(found) == ["1"] and found["1"].graph.tolist() == [[0, 1], [0, 0]] and found["1"].values.shape == (3, 2)


@pytest.mark.parametrize("files, words", [
    ({}, "holds no expression table and network"),
    ({"a.csv": "x,y\n1,2\n"}, "has 1 tables and 0 networks"),
    ({"a.csv": "x,y\n1,2\n", "b.sif": "x ac z\n"}, "the network has 'z', which is no column of the table"),
    ({"a.csv": "x,y\n1,2\n", "b.sif": "x ac y\ny ac x\n"}, "the network has a cycle"),
    ({"a.csv": "x,x\n1,2\n", "b.sif": "x ac y\n"}, "a column for each gene, by different names"),
    ({"a.csv": "x,y\n1,two\n", "b.sif": "x ac y\n"}, "could not convert string to float: 'two'"),
    ({"a.csv": "x,y\n1,2\n", "b.sif": "x\n"}, "got 'x', allowed lines CAUSE TYPE EFFECT")])
def test_folders_that_do_not_fit_are_refused_in_a_line(files, words, tmp_path):
  for name, text in files.items():
    write(tmp_path / name, text)
  with pytest.raises(UserError) as caught:
    real_tables.read(["syntren"], str(tmp_path))
  assert words in caught.value.message and "\n" not in caught.value.message


def test_what_is_not_there_is_said(tmp_path):
  with pytest.raises(UserError, match="^--real: got 'mars', allowed sachs"):
    real_tables.read(["mars"], "")
  with pytest.raises(UserError, match="^--input: got '', allowed a folder with an expression table"):
    real_tables.read(["syntren"], "")
  with pytest.raises(UserError, match="no column of the protein Mek"):
    real_tables.read(["sachs"], write(tmp_path / "a.csv", HEAD.replace("pmek", "m") + "\n" + "1," * 10 + "1\n"))
  with pytest.raises(UserError, match="^--input: got 'x', allowed with one of"):
    real_tables.read(["sachs", "syntren"], "x")
