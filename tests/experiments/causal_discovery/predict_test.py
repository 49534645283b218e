"""A trained model on a table of its user's: edge probabilities, sampled graphs, tables that do not fit."""

import contextlib
import csv
import functools
import html
import io
import os

import numpy as np
import pandas as pd
import pytest

import jaxtrain
import runs
from jaxtrain import ensemble, predict as command
from jaxtrain.data import files, inputs, writing
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import predict as verbs, training, user_table
from jaxtrain.run import trained as run_state
from jaxtrain.workdir import quality


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shared):
  """A folder with a run of no worth, and tables."""
  folder = tmp_path_factory.mktemp("predict")
  shared.copy(folder / "run", *runs.smoke("causal_discovery"))
  x = np.random.RandomState(0).normal(size=(30, 4))
  x[:, 1] += 2 * x[:, 0]
  table = {name: x[:, d] for d, name in enumerate(("a", "b", "c", "d"))}
  for name, columns in {"plain": table, "scaled": {n: 5 + 3 * v for n, v in table.items()},
                        "marked": table | {"b_intervened": (np.arange(30) > 20).astype(float)},
                        "constant": table | {"c": np.ones(30)}, "missing": table | {"c": np.full(30, np.nan)},
                        "gaps": table | {"c": np.where(np.arange(30) % 10, x[:, 2], np.nan)},
                        "filled": {n: v[np.arange(30) % 10 > 0] for n, v in table.items()},
                        "mixed": table | {"c": np.array(["W-01", *map(str, x[1:, 2])], object)},
                        "alike": {"a": x[:, 0], "b": x[:, 0]},
                        "twice": table | {"e": np.where(np.arange(30) % 11 == 5, np.nan, x[:, 1])},
                        "three": {name: table[name] for name in ("a", "b", "d")},
                        "infinite": table | {"c": np.append(x[1:, 2], np.inf)},
                        "text": {"well": np.array(["W-01"] * 30, object)} | table,
                        "stray": table | {"e_intervened": np.zeros(30)}, "one": {"a": x[:, 0]},
                        "wrong": table | {"b_intervened": np.full(30, 0.5)}}.items():
    writing.write(str(folder / f"{name}.csv"), columns)
  with runs.restored_once():
    yield folder


@functools.cache  # many tests ask for the graph of the plain table
def answer(folder, verb, table, *more):
  """(rows that a verb writes for a table, what it says)."""
  output = str(folder / f"{verb}-{table}.csv")
  with contextlib.redirect_stdout(io.StringIO()) as said:
    command.run([f"--workdir={folder / 'run'}", f"--verb={verb}", f"--input={folder / table}.csv",
                 f"--output={output}", *more])
  with open(output, encoding="utf-8") as file:
    return list(csv.DictReader(file)), said.getvalue()


def apply(*args):
  """Rows that a verb writes for a table."""
  return answer(*args)[0]


def test_graph_lists_each_ordered_pair(trained):
  rows = apply(trained, "graph", "plain")
  assert len(rows) == 12 and len({(row["cause"], row["effect"]) for row in rows}) == 12
  probs = [float(row["prob"]) for row in rows]
  assert 0 <= min(probs) < max(probs) <= 1


@pytest.mark.parametrize("suffix", [".html", ".dot"])
def test_a_drawing_says_what_the_model_is_worth(suffix, trained):
  """As the screen does: what was measured, and each warning, here that the run is no better than chance."""
  path = trained / f"worth{suffix}"
  worth = quality.of_workdir(str(trained / "run"))
  with contextlib.redirect_stdout(io.StringIO()):
    command.run([f"--workdir={trained / 'run'}", "--verb=graph", f"--input={trained / 'plain.csv'}",
                 f"--output={path}"])
  text = html.unescape(path.read_text(encoding="utf-8"))
  assert worth.warnings and all(line[1:] in text for line in (*worth.warnings, *worth.results_in_words()))


def test_rows_with_missing_cells_are_left_out_and_counted(trained):
  rows, said = answer(trained, "graph", "gaps")
  assert ": 30 rows read, 12 pairs, in " in said and "\n27 of 30 rows, 3 with missing cells left out\n" in said
  want, said = answer(trained, "graph", "filled")
  np.testing.assert_allclose([float(row["prob"]) for row in rows], [float(row["prob"]) for row in want], atol=1e-6)
  assert ": 27 rows read, 12 pairs, in " in said and "left out" not in said


@pytest.mark.parametrize("table, same_as, words", [
    ("constant", "three", "left out: column 'c': it is constant"),
    ("missing", "three", "left out: column 'c': it has fewer than two cells with a number"),
    ("text", "plain", "left out: column 'well': its cells are text"),
    ("twice", "plain", "left out: column 'e': it repeats 'b'")])  # where it is there
def test_columns_that_say_nothing_are_left_out_by_name(table, same_as, words, trained):
  rows, said = answer(trained, "graph", table)
  assert words in said.splitlines()
  want, said = answer(trained, "graph", same_as)
  assert "left out" not in said
  assert [(row["cause"], row["effect"]) for row in rows] == [(row["cause"], row["effect"]) for row in want]
  np.testing.assert_allclose([float(row["prob"]) for row in rows], [float(row["prob"]) for row in want], atol=1e-6)


def test_a_table_unlike_those_of_training_is_said_to_be_one(trained):
  x = np.random.RandomState(1).normal(size=(200, 8))
  writing.write(str(trained / "large.csv"), {f"v{d}": x[:, d] for d in range(8)})
  verb = run_state.restore(str(trained / "run"), "best").experiment.predict["sample_graphs"]
  words = "tables of 4 or 6 variables and 24 rows; this one has 8 and 200: the further away, the less"
  assert words in "\n".join(verb.say(files.read("csv", str(trained / "large.csv")), None))
  assert "the further away" not in answer(trained, "graph", "plain")[1]


@pytest.mark.parametrize("num_rows, said", [
    ((50, 500), []), ((200, 200), []), ((10, 40), ["tables of 3 variables and 10 to 40 rows; this one has 3 and 200"]),
    ((2000, 2000), ["tables of 3 variables and 2,000 rows; this one has 3 and 200"])])
def test_a_table_is_compared_with_all_numbers_of_rows_of_training(num_rows, said, tmp_path):
  """Up to a quarter of the fewest and four times the most."""
  x = np.random.RandomState(1).normal(size=(200, 3))
  writing.write(str(tmp_path / "a.csv"), {name: x[:, d] for d, name in enumerate("abc")})
  lines = user_table.say(files.read("csv", str(tmp_path / "a.csv")), True, (3,), num_rows)
  assert len(lines) == len(said) and all(words in line for words, line in zip(said, lines)), lines


def test_numbers_that_may_mean_missing_and_counts_of_rows_are_warned_of():
  random = np.random.RandomState(0)
  table = {"id": np.arange(40), "a": random.normal(size=40), "b": random.normal(size=40)}
  table["a"][[3, 9, 20]] = -999.25
  columns = inputs.from_memory(table, {}, None)
  lines = [line for line in user_table.say(columns, True, (3,), (40, 40)) if line.startswith("warning: ")]
  assert len(lines) == 2 and "'id' counts the rows" in lines[0] and "leave it out with --columns" in lines[0]
  assert "'a': -999.25 stands in 3 rows" in lines[1] and lines[1].endswith("name it in --missing")


def test_a_column_that_is_left_out_keeps_no_row(tmp_path):
  """Rows whose only cell is one of a constant column, with and without a network that reads missing cells."""
  x, gaps = np.random.RandomState(1).normal(size=(9, 2)), np.arange(9) % 3 == 0
  columns = {"a": np.where(gaps, np.nan, x[:, 0]), "b": np.where(gaps, np.nan, x[:, 1]), "c": np.ones(9)}
  writing.write(str(tmp_path / "a.csv"), columns)
  for incomplete in (True, False):
    table = user_table.read(files.read("csv", str(tmp_path / "a.csv")), incomplete)
    assert table.names == ["a", "b"] and not np.isnan(table.values).any() and len(table.values) == 6, incomplete


def test_a_task_with_missing_cells_keeps_its_rows_and_standardises_over_what_is_there(trained):
  """A cell whose mark is missing counts as missing; a row without any cell is left out."""
  x, marks = np.random.RandomState(1).normal(3, 2, size=(8, 3)), np.zeros(8)
  x[[0, 3, 3, 3, 5], [0, 0, 1, 2, 2]] = np.nan
  marks[[4, 6]] = np.nan, 1
  path = trained / "holes.csv"
  writing.write(str(path), {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "b_intervened": marks})
  columns = files.read("csv", str(path))
  table = user_table.read(columns, incomplete=True)
  task = user_table.task_of(table)
  want = x.copy()
  want[4, 1] = np.nan
  want = np.delete(want, 3, axis=0)
  assert table.names == ["a", "b", "c"]
  np.testing.assert_array_equal(task["observed"][0], ~np.isnan(want))
  np.testing.assert_allclose(task["values"][0], np.nan_to_num((want - np.nanmean(want, 0)) / np.nanstd(want, 0)),
                             rtol=1e-5, atol=1e-6)
  assert np.asarray(task["intervened"])[0, :, 1].tolist() == [0, 0, 0, 0, 0, 1, 0]
  assert user_table.say(columns, True, (3,), (8, 8)) == [
      "7 of 8 rows, 1 without any cell left out",
      "3 of 21 cells missing: a pair is judged by the rows that hold both its variables"]
  assert user_table.say(columns, True, (3,), (8, 16))[-1].startswith(
      "the network was trained on tables of 3 variables and 8 to 16 rows; this one has 3 and 7: ")
  assert len(user_table.read(columns, incomplete=False).values) == 4


def test_a_graph_in_python_is_that_of_the_command(trained):
  run, frame = jaxtrain.load(trained / "run"), pd.read_csv(trained / "marked.csv", index_col=False)
  read = lambda row: (row["cause"], row["effect"], float(row["prob"]), int(row["edge"]), row["pair"],
                      float(row["prob_none"]), *([row["given"]] if "given" in row else []))
  want = [read(row) for row in apply(trained, "graph", "marked", "--required=b->a")]
  found = run.graph(frame, required=[("b", "a")])
  assert list(found.itertuples(index=False, name=None)) == want and list(found.index) == list(range(12))
  want = [read(row) for row in apply(trained, "graph", "marked")]
  assert list(run.graph(frame.to_dict("list"))["prob"]) == [row[2] for row in want]
  sampled = run.sample_graphs(frame.drop(columns="b_intervened").to_numpy(), num=200)
  assert len(sampled) == 12 and all(len(column) == 200 for column in sampled.values()) and "x0->x3" in sampled
  with pytest.raises(UserError, match="^threshold: got 0.5, allowed nothing with verb=sample_graphs"):
    run.sample_graphs(frame, num=200, threshold=0.5)
  with pytest.raises(UserError, match="^num: got 0, allowed 1 or more with verb=sample_graphs"):
    run.sample_graphs(frame)


def test_members_that_disagree_are_averaged_pair_by_pair():
  """a -> b: 0.9 and 0.2, b -> a: 0.1 and 0.8: 0.55 and 0.45."""
  pairs = {"cause": np.array(["a", "b"], object), "effect": np.array(["b", "a"], object)}
  verb = verbs.make_verbs(None, training.Model(None, None, None))["graph"]
  joined = ensemble.join(verb, [pairs | {"prob": np.array([0.9, 0.1])}, pairs | {"prob": np.array([0.2, 0.8])}])
  assert list(joined["cause"]) == ["a", "b"] and joined["prob"] == pytest.approx([0.55, 0.45])


def test_what_is_known_holds_in_probabilities_and_in_graphs(trained):
  """The other edges of independent ones stay as they are."""
  by_pair = lambda rows: {(row["cause"], row["effect"]): row for row in rows}
  rows, said = answer(trained, "graph", "plain", "--required=b->a,a->c", "--forbidden=d->a", "--tiers=d;c",
                      "--threshold=0.99")
  free, known = by_pair(apply(trained, "graph", "plain")), by_pair(rows)
  assert "the graph has 2 edges, those with a probability of 0.99 or more (as given), 2 of them given by you" in said
  lines = said.splitlines()
  found = lines[lines.index("the strongest edges:") + 1:][:7]
  assert found[5:] == ["given by --required: a -> c, b -> a", "ruled out by --forbidden: d -> a"]  # 12 pairs, 7 decided
  assert not {tuple(line.split()[:3:2]) for line in found[:5]} & {("b", "a"), ("a", "c")}
  fixed = {("b", "a"): 1, ("a", "c"): 1, ("a", "b"): 0, ("c", "a"): 0, ("c", "b"): 0, ("d", "a"): 0, ("c", "d"): 0}
  for pair, row in known.items():
    want = fixed[pair] if pair in fixed else float(free[pair]["prob"])
    assert float(row["prob"]) == pytest.approx(want, abs=1e-12) and int(row["edge"]) == (want == 1), pair
  assert known["b", "a"]["pair"] == "given by you" and known["c", "a"]["pair"] == "ruled out by you"
  assert {pair: row["given"] for pair, row in known.items() if row["given"]} == {
      ("b", "a"): "required", ("a", "c"): "required", ("a", "b"): "circle", ("c", "a"): "circle", ("c", "b"): "circle",
      ("d", "a"): "forbidden", ("c", "d"): "tiers"} and "given" not in free["b", "a"]
  rows = apply(trained, "sample_graphs", "plain", "--num=200", "--required=b->a,a->c", "--forbidden=d->a",
               "--tiers=d;c", "--acyclic")
  assert len(rows) == 200
  for (cause, effect), value in fixed.items():
    assert {int(row[f"{cause}->{effect}"]) for row in rows} == {value}
  for row in rows:
    graph = np.array([[int(row.get(f"{i}->{j}", 0)) for j in "abcd"] for i in "abcd"])
    assert not np.trace(np.linalg.matrix_power(graph + np.eye(4, dtype=int), 4) - np.eye(4, dtype=int))


def test_graphs_that_are_hardly_ever_acyclic_are_refused():
  cycle, chain = np.eye(3)[[1, 2, 0]], np.diag([1.0, 1.0], 1)
  found = verbs.acyclic_graphs(lambda k: np.stack([cycle, chain, cycle]), 2)
  assert found.shape == (2, 3, 3) and (found == chain).all()
  with pytest.raises(UserError, match="^--acyclic: 0 of 100 sampled graphs are acyclic, and 2 were asked for"):
    verbs.acyclic_graphs(lambda k: np.stack([cycle, cycle]), 2)


def test_units_do_not_matter_and_interventions_do(trained):
  by_pair = lambda table: {(row["cause"], row["effect"]): float(row["prob"]) for row in apply(trained, "graph", table)}
  plain, scaled, marked = map(by_pair, ("plain", "scaled", "marked"))
  np.testing.assert_allclose([scaled[pair] for pair in plain], list(plain.values()), atol=1e-5)
  assert max(abs(marked[pair] - plain[pair]) for pair in plain) > 1e-4


def test_sampled_graphs_have_the_probabilities(trained):
  rows, said = answer(trained, "sample_graphs", "plain", "--num=4000")
  assert ": 30 rows read, 4,000 graphs, in " in said
  probs = {f"{row['cause']}->{row['effect']}": float(row["prob"]) for row in apply(trained, "graph", "plain")}
  assert len(rows) == 4000 and set(rows[0]) == set(probs)
  for pair, p in probs.items():
    assert abs(np.mean([int(row[pair]) for row in rows]) - p) < 5 * (0.25 / 4000) ** 0.5


@pytest.mark.parametrize("table, words", [
    ("infinite", "column 'c', row 31: inf, allowed a finite number"),
    ("mixed", "column 'c', row 2: 'W-01' is not a number; choose the columns of numbers with --columns"),
    ("alike", "got 1 variables and 30 rows, allowed 2 or more of each; 'b': it repeats 'a'"),
    ("stray", "marks a variable 'e' that is not there"), ("one", "got 1 variables and 30 rows"),
    ("wrong", "column 'b_intervened', row 2: 0.5, allowed 0 or 1")])
def test_tables_that_do_not_fit_are_refused_in_a_line(table, words, trained):
  with pytest.raises(UserError) as caught:
    apply(trained, "graph", table)
  assert words in str(caught.value) and "\n" not in str(caught.value)
  assert not os.path.exists(trained / f"graph-{table}.csv")


@pytest.mark.parametrize("flags, words", [
    (("--verb=graph", "--num=3"), "--num: got 3, allowed nothing"),
    (("--verb=sample_graphs",), "--num: got 0, allowed 1 or more"),
    (("--verb=graph", "--acyclic"), "--acyclic: got True, allowed nothing with --verb=graph"),
    (("--verb=graph", "--required=a->b,b->a"), "--required: got edges in a circle through a, b"),
    (("--verb=graph", "--forbidden=a->z"), "--forbidden: got 'z', allowed a, b, c, d")])
def test_flags_that_do_not_fit_are_refused(flags, words, trained):
  with pytest.raises(UserError) as caught:
    command.run([f"--workdir={trained / 'run'}", f"--input={trained / 'plain'}.csv", f"--output={trained / 'x.csv'}",
                 *flags])
  assert words in str(caught.value)


def test_a_graph_is_no_function_of_rows_to_export(trained):
  with pytest.raises(UserError, match="does not take rows one by one"):
    command.run([f"--workdir={trained / 'run'}", "--verb=graph", f"--export={trained / 'graph.stablehlo'}"])


def test_a_graph_is_drawn_and_its_strongest_edges_are_said(trained, capsys):
  output = str(trained / "graph.html")
  command.run([f"--workdir={trained / 'run'}", "--verb=graph", f"--input={trained / 'marked'}.csv",
               f"--output={output}", "--columns=d,b,a"])
  said = capsys.readouterr().out.splitlines()
  assert said[0].startswith("jaxtrain: best val_e_edge_f1 ")
  said = said[said.index("the strongest edges:") + 1:]
  assert all(" -> " in line for line in said[:6]) and said[6].startswith("the graph has ")
  assert said[-1].startswith("The model assumes no hidden common cause")
  with open(output, encoding="utf-8") as file:
    page = file.read()
  assert "Graph of 3 variables" in page
  assert page.index("<span>d</span>") < page.index("<span>b</span>") < page.index("<span>a</span>")


def test_chosen_columns_keep_their_marks_and_give_what_a_smaller_table_gives(trained):
  table = trained / "few.csv"
  with open(trained / "marked.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  kept = ("a", "b", "d", "b_intervened")
  writing.write(str(table), {name: np.asarray([float(row[name]) for row in rows]) for name in kept})
  assert apply(trained, "graph", "marked", "--columns=a,b,d") == apply(trained, "graph", "few")


@pytest.mark.parametrize("names, words", [("a,z", "has no column 'z'; it has a, b, c, d"), ("a", "got 1 variables")])
def test_columns_that_are_not_there(trained, names, words):
  with pytest.raises(UserError, match=words):
    apply(trained, "graph", "plain", f"--columns={names}")
