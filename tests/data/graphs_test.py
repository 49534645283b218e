"""Graphs in files: read back by other readers, of hard names, with layers that point downwards."""

import json
import re
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import numpy as np
import pytest

from jaxtrain.data import graph_curves, graphs
from pages import Page

HARD = ['a"b', "<c> & $d$", "e\\f\ng", "µ, ö", "plain", "a very long name of a variable"]

NOTES = ["left out: column 'a & <b>': it is text", "the network was trained on other tables"]


def columns_of(names, probs):
  """Columns of a matrix of probabilities."""
  pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
  text = lambda k: np.asarray([names[pair[k]] for pair in pairs], object)
  return {"cause": text(0), "effect": text(1), "prob": np.asarray([probs[pair] for pair in pairs])}


@pytest.fixture(name="chain")
def chain_():
  """Six variables in a chain of sure edges, with two weaker ones that close cycles."""
  probs = np.full((6, 6), 0.02)
  for k in range(5):
    probs[k, k + 1] = 0.99 - 0.01 * k
  probs[4, 0], probs[2, 1] = 0.6, 0.55
  return columns_of(HARD, probs)


def test_what_is_shown_is_likely_or_the_strongest(chain):
  graph = graphs.read(chain)
  assert graph.names == HARD and graph.shown == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (4, 0), (2, 1)]
  weak = graphs.read(chain | {"prob": chain["prob"] / 3})
  assert len(weak.shown) == 10 and weak.shown[:7] == graph.shown
  assert "no edge is more likely than not" in graphs.sentence(weak)


def test_layers_go_down_the_strongest_edges(chain):
  graph = graphs.read(chain)
  assert graphs.layers(graph) == [0, 1, 2, 3, 4, 5]
  places = graphs.place_nodes(graph)
  assert (np.diff(places[:, 1]) < 0).all() and places.min() >= 0 and places.max() <= 1


def test_no_edges_make_a_circle():
  places = graphs.place_nodes(graphs.read(columns_of(["a", "b", "c", "d"], np.zeros((4, 4)))))
  np.testing.assert_allclose(np.hypot(*(places - 0.5).T), 0.5)


def test_strongest_edges_in_words(chain):
  lines = graphs.strongest(chain)
  assert len(lines) == 11 and lines[1].endswith('a"b -> <c> & $d$  0.990')
  assert [float(line.rsplit("  ", 1)[1]) for line in lines[1:]] == sorted(chain["prob"], reverse=True)[:10]


def test_edges_that_are_ruled_out_are_not_among_the_strongest():
  probs = np.zeros((3, 3))
  assert graphs.strongest(columns_of(["a", "b", "c"], probs)) == ["no edge has a probability above 0"]
  probs[0, 2] = 0.25
  assert graphs.strongest(columns_of(["a", "b", "c"], probs))[1:] == ["  a -> c  0.250"]


def test_two_edges_of_a_pair_are_one_line_and_doubt_is_dashed():
  probs = np.zeros((3, 3))
  probs[0, 1], probs[1, 0], probs[1, 2] = 0.5, 0.45, 0.9
  columns = columns_of(["a", "b", "c"], probs)
  links = graphs.read(columns, 0.4).links()
  assert [(link.cause, link.effect, link.headed, link.dashed) for link in links] == [
      (1, 2, True, False), (0, 1, False, False)]
  verdict = {("a", "b"): "undecided", ("b", "a"): "undecided", ("b", "c"): "none"}
  columns["pair"] = np.asarray([verdict.get(pair, "none") for pair in zip(columns["cause"], columns["effect"])], object)
  graph = graphs.read(columns, 0.4)
  assert [link.dashed for link in graph.links()] == [True, True]
  assert "dashed: doubtful" in graphs.sentence(graph) and "without a head" in graphs.sentence(graph)
  assert "says nothing" not in graphs.sentence(graph)
  whole = graphs.read(columns_of(["a", "b", "c"], 1 - np.eye(3)), 0.4)
  assert "so that the graph says nothing" in graphs.sentence(whole)
  verdict |= {("a", "b"): "caused by", ("b", "a"): "causes"}
  columns["pair"] = np.asarray([verdict.get(pair, "none") for pair in zip(columns["cause"], columns["effect"])], object)
  assert (1, 0, True, False) in [(one.cause, one.effect, one.headed, one.dashed)
                                 for one in graphs.read(columns, 0.4).links()]


def test_no_line_runs_behind_a_box():
  """A chain with an edge from its first node to its last, which a straight line would lead through all others."""
  at, half = np.array([[100.0, 400.0 - 90 * k] for k in range(5)]), np.full((5, 2), (60.0, 17.0))
  edges = [(0, 4), (0, 1), (4, 1)]
  bends = graph_curves.choose_bends(at, half, edges, np.zeros(2), np.array([400.0, 440.0]))
  for (i, j), bend in zip(edges, bends):
    others = [k for k in range(5) if k not in (i, j)]
    assert not graph_curves.covered(graph_curves.points_of(at[i], at[j], bend), at[others], half[others]).any()
    start, _, end = graph_curves.between_boxes(at, half, (i, j), bend)
    for node, place in ((i, start), (j, end)):  # at the edge of its box
      assert 0.8 < (np.abs(place - at[node]) / half[node]).max() < 1.5
  straight = graph_curves.points_of(at[0], at[4], 0.0)
  assert graph_curves.covered(straight, at[1:4], half[1:4]).any()


def test_picture_is_drawn(tmp_path, chain):
  """Notes stand below, and edges that were given have not the colour of those that were found."""
  path, ink, blue = str(tmp_path / "g.png"), [], []
  given = {"given": np.where(chain["prob"] > 0.5, "required", "").astype(object)}
  for notes, columns in (((), chain), (NOTES, chain | given)):
    graphs.WRITERS[".png"](path, columns, notes=notes)
    picture = matplotlib.image.imread(path)[..., :3]
    ink.append((picture < 0.9).any(axis=-1))
    blue.append(int((picture[..., 2] - picture[..., 0] > 0.3)[:, :picture.shape[1] // 3].sum()))  # of the graph
  assert 0.01 < ink[0].mean() < 0.5 and ink[1][-20:].sum() > ink[0][-20:].sum() + 100
  assert blue[0] > 100 and 10 * blue[1] < blue[0]


def test_page_holds_all_and_is_escaped(tmp_path, chain):
  path, digest = str(tmp_path / "g.html"), "ab12" * 16
  graphs.WRITERS[".html"](path, chain, notes=NOTES, about=["Made by <a> model.", f"sha256:{digest}, from a.csv"])
  page = Page(path)
  assert not {"script", "link", "c", "img"} & {tag for tag, _ in page.elements}
  assert HARD[1] in page.text and ["<c> & $d$", "0.02", "", "0.98", "0.02", "0.02", "0.02"] in page.rows
  assert ['a"b', "<c> & $d$", "0.990"] in page.rows and "7 edges that are more likely than not" in page.text
  assert all(note in page.text for note in [*NOTES, "What this is", "Made by <a> model."])
  assert "sha256:ab12ab12ab12 , from" in page.text and digest in page.all("span", "title")  # a phone's line holds it
  (style,) = page.all("svg", "style")
  assert int(re.search(r"max-width:(\d+)px", style)[1]) >= 900  # as wide as the page


def test_graphml_has_every_pair(tmp_path, chain):
  path = str(tmp_path / "g.graphml")
  graphs.WRITERS[".graphml"](path, chain, notes=NOTES)
  space = "{http://graphml.graphdrawing.org/xmlns}"
  root = ElementTree.parse(path).getroot()
  assert root.find(f"{space}graph/{space}desc").text == " ".join(NOTES)
  names = {node.get("id"): node.find(f"{space}data").text for node in root.iter(f"{space}node")}
  found = {(names[e.get("source")], names[e.get("target")]): float(e.find(f"{space}data").text)
           for e in root.iter(f"{space}edge")}
  assert found == {(c, e): p for c, e, p in zip(chain["cause"], chain["effect"], chain["prob"])}


def test_dot_quotes_names(tmp_path, chain):
  path = tmp_path / "g.dot"
  graphs.WRITERS[".dot"](str(path), chain)
  text = path.read_text(encoding="utf-8")
  assert text.startswith("digraph {\n") and text.count(" -> ") == 6  # of two edges between one pair one line
  graphs.WRITERS[".dot"](str(path), chain, notes=NOTES)
  assert f"  label={json.dumps(chr(10).join(NOTES))};" in path.read_text(encoding="utf-8")
  assert '  "a\\"b" -> "<c> & $d$" [label="0.99"' in text and '"e\\\\f\\ng";' in text
  for line in text.splitlines()[2:8]:
    assert json.loads(line.strip().rstrip(";")) in HARD  # the escapes of .dot are among those of JSON


def test_what_was_given_is_no_finding(tmp_path):
  """b -> c was given and c -> b ruled out; a -> b is all that was found, though b -> c has the probability 1."""
  probs = np.zeros((3, 3))
  probs[0, 1], probs[1, 2] = 0.75, 1.0
  columns = columns_of(["a", "b", "c"], probs)
  given = {("b", "c"): "required", ("c", "b"): "circle"}
  columns["given"] = np.array([given.get(pair, "") for pair in zip(columns["cause"], columns["effect"])], object)
  graph = graphs.read(columns)
  assert graphs.strongest(columns)[1:] == ["  a -> b  0.750"] and graph.found == [(0, 1)] and graph.is_sure
  assert [(one.cause, one.effect, one.given, one.dashed) for one in graph.links()] == [
      (1, 2, True, False), (0, 1, False, False)]
  assert graphs.sentence(graph).startswith("1 edges") and "dotted: 1 given by you" in graphs.sentence(graph)
  doubtful = graphs.read(columns, 0.9)
  assert not doubtful.is_sure and [one.dashed for one in doubtful.links()] == [False, True]
  texts = {}
  for suffix in (".html", ".dot", ".graphml"):
    graphs.WRITERS[suffix](str(tmp_path / f"g{suffix}"), columns)
    texts[suffix] = (tmp_path / f"g{suffix}").read_text(encoding="utf-8")
  assert '"b" -> "c" [label="given", style=dotted' in texts[".dot"] and texts[".dot"].count("dotted") == 1
  assert texts[".graphml"].count('<data key="given">') == 2 and '<data key="given">circle<' in texts[".graphml"]
  page = Page(str(tmp_path / "g.html"))
  assert [["a", "", "0.75", "0.00"], ["b", "0.00", "", "given"], ["c", "0.00", "ruled out", ""]] == page.rows[1:4]
  assert page.rows[5:] == [["a", "b", "0.750"], ["b", "c", "given"]]
  (line,) = re.findall(r'style="([^"]*)"><title>b -&gt; c: given, not found', texts[".html"])
  assert "stroke-dasharray:2 4" in line and "--edge" not in line
