"""Measured tables with a graph from the literature, written as tasks (`task_files.py`) that any method is judged by.

  sachs      853 cells in which nothing was perturbed, 11 proteins; the consensus graph of 17 edges
  sachs_all  all 7,466 cells. Several conditions are pooled: the table does not say which cell had which drug, so that
             no cell is marked as set
  syntren    a folder with simulated gene expression and the networks behind it, as SynTReN and its users write them

The tables of Sachs come from the package `cdt`, whose files are read without importing it, or from a CSV file with
their columns. A graph of SynTReN is that of the simulator; that of Sachs is what biologists agreed on in 2005, not a
measurement: scores against it say how far a method agrees with them.

**Source:** Sachs et al. 2005 (Causal protein-signaling networks derived from multiparameter single-cell data), figure
3, and its consensus as in the network `sachs` of Scutari's bnlearn. SynTReN: Van den Bulcke et al. 2006; the arrays
`data1.npy`, `DAG1.npy`: Lachapelle et al. 2020 (GraN-DAG).
"""

import importlib.util
import os
import re
from typing import NamedTuple

import numpy as np

from jaxtrain.data import files
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import knowledge

PROTEINS = {  # name -> how tables spell it
    "Raf": ("praf", "raf"), "Mek": ("pmek", "mek"), "Plcg": ("plcg",), "PIP2": ("pip2",), "PIP3": ("pip3",),
    "Erk": ("p44/42", "erk"), "Akt": ("pakts473", "akt"), "PKA": ("pka",), "PKC": ("pkc",), "P38": ("p38",),
    "Jnk": ("pjnk", "jnk")}
CONSENSUS = {"Plcg": ("PIP3", "PIP2"), "PIP3": ("PIP2",), "PKC": ("Mek", "Raf", "PKA", "P38", "Jnk"),
             "PKA": ("Raf", "Mek", "Erk", "Akt", "P38", "Jnk"), "Raf": ("Mek",), "Mek": ("Erk",), "Erk": ("Akt",)}
UNPERTURBED = 853  # rows at the head of the table
IN_CDT = ("data", "resources", "cyto_full_data.csv")
NPY = re.compile(r"data(.*)\.npy")
NETWORK_SUFFIXES, TABLE_SUFFIXES = (".sif",), (".csv", ".tsv", ".txt")


class Real(NamedTuple):
  """A table [n, D] of named variables, NaN where a cell is missing, and the graph [D, D] that is held to be true."""
  names: list[str]
  values: np.ndarray
  graph: np.ndarray


def graph_of(edges: list[tuple[str, str]], names: list[str], where: str) -> np.ndarray:
  """[D, D] int64 of edges between variables of these names; edges to themselves are dropped.

  Raises:
    UserError: a name that is no variable, or a cycle: the metrics are of acyclic graphs.
  """
  found, place = np.zeros((len(names), len(names)), np.int64), {name: k for k, name in enumerate(names)}
  for edge in edges:
    for name in edge:
      if name not in place:
        raise UserError(f"{where}: the network has {name!r}, which is no column of the table")
    found[place[edge[0]], place[edge[1]]] = edge[0] != edge[1]
  if np.diag(knowledge.ancestors(found)).any():
    raise UserError(f"{where}: the network has a cycle; allowed acyclic ones")
  return found


def path_in_cdt() -> str:
  """The table in the package cdt. Raises UserError where it is not there."""
  spec = importlib.util.find_spec("cdt")
  for folder in spec.submodule_search_locations if spec else ():
    if os.path.exists(path := os.path.join(folder, *IN_CDT)):
      return path
  raise UserError("--real: the cells of Sachs et al. are a file of the package cdt (pip install --no-deps cdt); with "
                  "--input=FILE.csv the table is your own")


def read_sachs(path: str, num_rows: int | None) -> dict[str, Real]:
  """The task of the cells of Sachs et al. of a CSV file, "" for that of cdt; so many rows of it, None for all."""
  path = path or path_in_cdt()
  columns = files.read("csv", path, field="--input")
  spelt, names = {name.strip().lower(): name for name in columns.values}, list(PROTEINS)
  found = [next((spelt[word] for word in PROTEINS[name] if word in spelt), None) for name in names]
  if None in found:
    lacking = names[found.index(None)]
    raise UserError(f"{path} has no column of the protein {lacking}, allowed {' | '.join(PROTEINS[lacking])}")
  values = np.stack([columns.numbers(name) for name in found], axis=1)[:num_rows]
  edges = [(cause, effect) for cause, effects in CONSENSUS.items() for effect in effects]
  return {"0000": Real(names, values, graph_of(edges, names, path))}


def read_arrays(folder: str) -> dict[str, Real]:
  """The tasks of `data1.npy` [n, D] and `DAG1.npy` [D, D], and so on, of a folder."""
  found = {}
  for name in sorted(filter(NPY.fullmatch, os.listdir(folder))):
    paths = [os.path.join(folder, one) for one in (name, name.replace("data", "DAG", 1))]
    try:
      values, graph = (np.load(path, allow_pickle=False) for path in paths)
    except (OSError, ValueError, EOFError) as error:
      raise UserError(f"--input: cannot read {paths[0]!r} and {paths[1]!r} as arrays: {error}") from None
    if values.ndim != 2 or graph.shape != 2 * values.shape[1:] or not np.isin(graph, (0, 1)).all():
      raise UserError(f"--input: {paths[0]!r} is {list(values.shape)} and {paths[1]!r} {list(graph.shape)}, allowed "
                      "[n, D] and [D, D] of zeros and ones")
    names = [f"x{k}" for k in range(values.shape[1])]
    edges = [(names[i], names[j]) for i, j in np.argwhere(graph)]
    found[NPY.fullmatch(name)[1] or "0000"] = Real(names, values.astype(float), graph_of(edges, names, paths[1]))
  return found


def read_network(path: str) -> list[tuple[str, str]]:
  """Edges of lines `cause type effect` (.sif), or of a CSV file with the columns cause and effect."""
  if path.endswith(NETWORK_SUFFIXES):
    with open(path, encoding="utf-8", errors="replace") as file:
      words = [line.split() for line in file if line.strip()]
    if wrong := [line for line in words if len(line) < 2]:
      raise UserError(f"{path}: got {' '.join(wrong[0])!r}, allowed lines CAUSE TYPE EFFECT")
    return [(line[0], effect) for line in words for effect in line[2:] or line[1:]]
  columns = files.read("csv", path, field="--input")
  return [(str(cause), str(effect)) for cause, effect in zip(columns.values["cause"], columns.values["effect"])]


def is_network(path: str) -> bool:
  """Whether a file holds edges: by its suffix, or by its first line."""
  if path.endswith(NETWORK_SUFFIXES):
    return True
  with open(path, encoding="utf-8", errors="replace") as file:
    head = file.readline().strip().lower().split(",")
  return {"cause", "effect"} <= {word.strip('" ') for word in head}


def read_expression(path: str) -> tuple[list[str], np.ndarray]:
  """(genes, values [n, D]): a table with a column for each gene, or, as SynTReN writes it, with a row for each.

  A row for each gene is a row that begins with a word.
  """
  with open(path, encoding="utf-8", errors="replace") as file:
    lines = [re.split(r"[\t,]", line.rstrip("\r\n")) for line in file if line.strip()]
  head, *rows = lines or [[]]
  by_gene = bool(rows) and not is_number(rows[0][0])
  try:
    table = np.asarray([[float(cell) if cell.strip() else np.nan for cell in row[by_gene:]] for row in rows], float)
  except ValueError as error:
    raise UserError(f"{path}: {str(error).partition('(')[0].strip()}; allowed rows of as many numbers") from None
  names = [row[0].strip('" ') for row in rows] if by_gene else [name.strip('" ') for name in head]
  if table.ndim != 2 or len(names) != (len(table) if by_gene else table.shape[1]) or len(set(names)) != len(names):
    raise UserError(f"{path}: allowed a column for each gene, by different names, or a row for each")
  return names, table.T if by_gene else table


def is_number(cell: str) -> bool:
  """Whether a cell reads as a number, or is empty."""
  try:
    return not cell.strip() or np.isreal(float(cell))
  except ValueError:
    return False


def read_pair(folder: str) -> Real | None:
  """The task of a folder with one expression table and one network; None where it has none of them."""
  paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))
           if name.lower().endswith(NETWORK_SUFFIXES + TABLE_SUFFIXES)]
  networks = [path for path in paths if is_network(path)]
  tables = [path for path in paths if path not in networks]
  if not paths:
    return None
  if len(networks) != 1 or len(tables) != 1:
    raise UserError(f"--input: {folder!r} has {len(tables)} tables and {len(networks)} networks, allowed one of each: "
                    "a table of expression, and a .sif or a .csv with the columns cause and effect")
  names, values = read_expression(tables[0])
  return Real(names, values, graph_of(read_network(networks[0]), names, networks[0]))


def read_syntren(folder: str) -> dict[str, Real]:
  """The tasks of a folder: its own arrays or pair of files, and the pairs of its folders. Raises UserError."""
  if not folder or not os.path.isdir(folder):
    raise UserError(f"--input: got {folder!r}, allowed a folder with an expression table and a network, folders of "
                    "such, or data1.npy with DAG1.npy (syntren_p20.zip of the repository GraN-DAG); no package brings "
                    "them")
  inside = sorted(name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name)))
  found = read_arrays(folder) | {name: read_pair(os.path.join(folder, name)) for name in inside}
  found |= {"0000": read_pair(folder)} if not found else {}
  found = {name: task for name, task in found.items() if task is not None}
  if not found:
    raise UserError(f"--input: {folder!r} holds no expression table and network")
  return found


READERS = {"sachs": lambda path: read_sachs(path, UNPERTURBED), "sachs_all": lambda path: read_sachs(path, None),
           "syntren": read_syntren}


def read(kinds: list[str], path: str) -> dict[str, dict[str, Real]]:
  """kind -> its tasks by name. Raises UserError for a kind that there is not, or data that are not there."""
  for kind in kinds:
    if kind not in READERS:
      raise UserError(f"--real: got {kind!r}, allowed {' | '.join(READERS)}")
  if path and len({kind.partition("_")[0] for kind in kinds}) > 1:
    raise UserError(f"--input: got {path!r}, allowed with one of {' | '.join(READERS)} at a time")
  return {kind: READERS[kind](path) for kind in kinds}
