"""Graphs in files: read back by other readers, of hard names, with layers that point downwards."""

import json
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import numpy as np
import pytest

from jaxtrain.data import graphs
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


def test_picture_is_drawn(tmp_path, chain):
  path, ink = str(tmp_path / "g.png"), []
  for notes in ((), NOTES):
    graphs.WRITERS[".png"](path, chain, notes=notes)
    ink.append((matplotlib.image.imread(path)[..., :3] < 0.9).any(axis=-1))
  assert 0.01 < ink[0].mean() < 0.5 and ink[1][-20:].sum() > ink[0][-20:].sum() + 100  # the notes stand below


def test_page_holds_all_and_is_escaped(tmp_path, chain):
  path = str(tmp_path / "g.html")
  graphs.WRITERS[".html"](path, chain, notes=NOTES)
  page = Page(path)
  assert not {"script", "link", "c", "img"} & {tag for tag, _ in page.elements}
  assert HARD[1] in page.text and ["<c> & $d$", "0.02", "", "0.98", "0.02", "0.02", "0.02"] in page.rows
  assert ['a"b', "<c> & $d$", "0.990"] in page.rows and "7 edges that are more likely than not" in page.text
  assert all(note in page.text for note in NOTES)


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
  assert text.startswith("digraph {\n") and text.count(" -> ") == 7
  graphs.WRITERS[".dot"](str(path), chain, notes=NOTES)
  assert f"  label={json.dumps(chr(10).join(NOTES))};" in path.read_text(encoding="utf-8")
  assert '  "a\\"b" -> "<c> & $d$" [label="0.99"' in text and '"e\\\\f\\ng";' in text
  for line in text.splitlines()[2:8]:
    assert json.loads(line.strip().rstrip(";")) in HARD  # the escapes of .dot are among those of JSON
