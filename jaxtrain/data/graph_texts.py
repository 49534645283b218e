"""Graphs as text for other programs: Graphviz (.dot) and GraphML, of a `graphs.Graph` and what is said of it."""

import re
from typing import Any, Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np

NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def dot(graph: Any, said: Sequence[str]) -> list[str]:
  """Lines of a digraph of Graphviz, with the lines that are drawn labelled by their probability, those that were given
  dotted, and what is said as its label.
  """
  quoted = lambda name: '"' + str(name).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
  lines = [f"  label={quoted(chr(10).join(said))};"] * bool(said)
  lines += [f"  {quoted(name)};" for name in graph.names]
  look = lambda link: 'label="given", style=dotted, color=gray40' if link.given else (
      f'label="{link.prob:.2f}", weight={1 + round(99 * link.prob)}, penwidth={0.5 + 2 * link.prob:.2f}'
      + ", style=dashed" * link.dashed)
  lines += [f"  {quoted(graph.names[link.cause])} -> {quoted(graph.names[link.effect])} [{look(link)}"
            f"{'' if link.headed else ', dir=none'}];" for link in graph.links()]
  return ["digraph {", "  node [shape=box, style=rounded];", *lines, "}"]


def graphml(graph: Any, said: Sequence[str]) -> list[str]:
  """Lines of GraphML of all pairs, with the attribute `probability`, `given` of those that were given, and what is said
  as its description; letters that XML does not allow are left out.
  """
  clean = lambda text: escape(NOT_XML.sub("", str(text)))
  lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
           '<key id="name" for="node" attr.name="name" attr.type="string"/>',
           '<key id="probability" for="edge" attr.name="probability" attr.type="double"/>']
  lines += ['<key id="given" for="edge" attr.name="given" attr.type="string"/>'] * bool(graph.given)
  lines += ['<graph edgedefault="directed">']
  lines += [f"<desc>{clean(' '.join(said))}</desc>"] * bool(said)
  lines += [f'<node id={quoteattr(f"n{k}")}><data key="name">{clean(name)}</data></node>'
            for k, name in enumerate(graph.names)]
  given = lambda pair: f'<data key="given">{clean(graph.given[pair])}</data>' if pair in graph.given else ""
  lines += [f'<edge source="n{i}" target="n{j}"><data key="probability">{float(graph.probs[i, j])!r}</data>'
            f"{given((i, j))}</edge>" for i, j in np.ndindex(*graph.probs.shape) if i != j]
  return [*lines, "</graph>", "</graphml>"]


def write(path: str, lines: Sequence[str]) -> None:
  """Writes lines into a file; letters that UTF-8 has not are replaced."""
  with open(path, "w", encoding="utf-8", errors="replace") as file:
    file.write("\n".join([*lines, ""]))
