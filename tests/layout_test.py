"""The layout of the repository, held by reading the source: who imports whom, what is used nowhere, how long it is.

A rule takes {path: source text} and returns its violations, one line each. Every rule is run over the repository, and
over bad snippets that it must find. The table of ranks is RANKS in BUILD.
"""

import ast
import fnmatch
import functools
import os
import pathlib
import re
import subprocess
import sys
from typing import Iterator, NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("jaxtrain", "configs", "launch", "tests")
TEXTS = ("*.py", "*.md", "*.sh", "*.yaml", "*.yml", "*.toml", "*.js", "*.bazel", "BUILD", "run")

# A room is a folder or a file of the top folder, `sweep/__main__` one too; it imports those of lower ranks, and itself.
REPORT_MAY_IMPORT = ("errors", "spelling", "jsonable", "streams", "config", "workdir", "statistics")
FAMILY_MAY_NOT_IMPORT = ("devices",)
PICTURES_MAY_IMPORT = ("jaxtrain/jsonable.py", "jaxtrain/workdir/reading.py", "jaxtrain/workdir/fields.py",
                       "jaxtrain/report/figures.py", "jaxtrain/report/page.py", "jaxtrain/report/panels.py",
                       "jaxtrain/report/reliability.py", "jaxtrain/statistics.py")
LIBRARIES = {  # beyond the standard library
  "errors": (), "spelling": (), "jsonable": (), "streams": (), "commands": ("absl",),
  "types": ("jax", "numpy", "flax.struct"),
  "rng": ("jax", "numpy", "flax.struct"), "statistics": ("numpy", "scipy"), "report": ("numpy", "scipy", "matplotlib"),
}
IMPORTED_WITHOUT_JAX = ("errors", "spelling", "jsonable", "streams", "config", "workdir", "statistics", "commands",
                        "report/__main__")

TOP_LEVEL = ("pyproject.toml", "README.md", "BUILD", "MODULE.bazel", "LICENSE", *FOLDERS)
USES_JAX = ("jax", "jaxlib", "flax", "optax", "orbax", "chex", "numpyro")
PICKLES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
MAY_CONFIGURE_JAX = ("jaxtrain/devices/backend.py", "jaxtrain/devices/processes.py", "tests/conftest.py")
CITATION = re.compile(r"\b(?:DESIGN|INTERFACE)\b|\b(?:STACK|STYLE)(?:\.md\b| \d)|\bspecs?[ /](?:\w+ \d|\w+\.md|W\d)")
MAX_FILE_LINES, MAX_BODY_LINES, MAX_COLUMNS = 350, 60, 120

Sources = dict[str, str]
parse = functools.cache(ast.parse)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Import(NamedTuple):
  """One imported name: where, `a.b` for `from a import b`, and whether it is imported only when a function runs."""
  line: int
  name: str
  late: bool


def repository(patterns: tuple[str, ...] = ("*.py",)) -> Sources:
  """All files of the repository whose names match."""
  paths = [path for folder in (*FOLDERS, ".ci", ".github") for path in (ROOT / folder).rglob("*")]
  paths = [path for path in (*ROOT.iterdir(), *paths) if path.is_file() and "__pycache__" not in path.parts]
  return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)
          if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)}


def read_ranks(build: str) -> dict[str, int]:
  """Rank by room, from the text of BUILD."""
  for node in ast.parse(build).body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RANKS":
      return {room: rank for rank, rooms in enumerate(ast.literal_eval(node.value)) for room in rooms}
  raise ValueError("BUILD has no RANKS")


RANKS = read_ranks((ROOT / "BUILD").read_text(encoding="utf-8"))


def module_name(path: str) -> str:
  """`jaxtrain/data/arrays.py` -> `jaxtrain.data.arrays`; a package for its `__init__.py`."""
  return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_under(name: str, package: str) -> bool:
  """Whether a dotted name is the package or inside it."""
  return name == package or name.startswith(package + ".")


@functools.cache
def nodes_of(tree: ast.AST) -> tuple[tuple[ast.AST, bool], ...]:
  """(node, whether a function holds it) of all nodes but contexts of names."""
  found, todo = [], [(tree, False)]
  for node, late in todo:
    late = late or isinstance(node, FUNCTIONS)
    found.append((node, late))
    for name in node._fields:  # of 700,000 nodes ast.iter_child_nodes takes twice as long
      value = getattr(node, name)
      if isinstance(value, list):
        todo += [(child, late) for child in value if isinstance(child, ast.AST)]
      elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
        todo.append((value, late))
  return tuple(found)


@functools.cache
def imported(path: str, tree: ast.AST) -> tuple[Import, ...]:
  """All that a file imports."""
  return tuple(find_imports(path, tree))


def find_imports(path: str, tree: ast.AST) -> Iterator[Import]:
  """The same, one by one."""
  package = path.split("/")[:-1]
  for node, late in nodes_of(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      base = package[:len(package) + 1 - node.level] if node.level else []
      base += [node.module] if node.module else []
      names = [".".join([*base, alias.name]) for alias in node.names]
    elif isinstance(node, ast.Call) and dotted(node.func).endswith(("import_module", "__import__")):
      names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    yield from (Import(node.lineno, name, late) for name in names)


def inner_imports(sources: Sources) -> Iterator[tuple[str, Import, str]]:
  """(path, import, path of the imported file) for imports of one of the sources by another."""
  by_name = {module_name(path): path for path in sources}
  for path, text in sources.items():
    for found in imported(path, parse(text)):
      name = found.name
      while name and name not in by_name:
        name = name.rpartition(".")[0]
      if name and by_name[name] != path:
        yield path, found, by_name[name]


def under(sources: Sources, *folders: str) -> Sources:
  """The sources in these top folders."""
  return {path: text for path, text in sources.items() if path.split("/")[0] in folders}


def room(path: str) -> str:
  """The room of jaxtrain that a file belongs to; the command of a family belongs to the family."""
  inner = path.removeprefix("jaxtrain/").removesuffix(".py")
  return inner if inner.endswith("/__main__") and inner.count("/") == 1 else inner.split("/")[0]


def is_picture_of_family(path: str) -> bool:
  """Whether a file draws for an experiment."""
  return re.fullmatch(r"jaxtrain/experiments/\w+/figures(_[a-z]+)?\.py", path) is not None


def dotted(node: ast.AST) -> str:
  """`a.b.c` of such an expression; what is no name stands as `()`."""
  if isinstance(node, ast.Attribute):
    return f"{dotted(node.value)}.{node.attr}"
  return node.id if isinstance(node, ast.Name) else "()"


@functools.cache
def attributes(tree: ast.AST) -> tuple[tuple[int, str], ...]:
  """(line, `a.b.c`) of dotted expressions."""
  return tuple((node.lineno, dotted(node)) for node, _ in nodes_of(tree) if isinstance(node, ast.Attribute))


@functools.cache
def used_names(path: str, text: str) -> list[tuple[int, str]]:
  """(line, dotted name) of what a file imports and of its dotted expressions."""
  tree = parse(text)
  return sorted({*((found.line, found.name) for found in imported(path, tree)), *attributes(tree)})


def refused(path: str, found: Import, other: str) -> str | None:
  """Why a file of jaxtrain may not import another, or None."""
  me, you, rank = room(path), room(other), f"{room(path)} (rank {RANKS[room(path)]})"
  if you == "__init__" and found.name in ("jaxtrain", "jaxtrain.__version__"):
    return None
  if is_picture_of_family(path):
    near = is_picture_of_family(other) and path.rpartition("/")[0] == other.rpartition("/")[0]
    return None if near or other in PICTURES_MAY_IMPORT else "figures.py of an experiment"
  if me == you:  # families are folders of experiments
    apart = me == "experiments" and (path.split("/")[2] != other.split("/")[2] or is_picture_of_family(other))
    return "a family" if apart else None
  if you == "experiments":
    return None if other == "jaxtrain/experiments/__init__.py" else f"{rank} finds experiments by name and"
  if me == "__init__" and not found.late:
    return "each module imports jaxtrain/__init__.py, which outside functions"
  if you == "report" and me != "report/__main__" and not found.late:
    return f"{rank} outside functions"
  allowed = RANKS[you] < RANKS[me]
  allowed = allowed and (me != "report" or you in REPORT_MAY_IMPORT)
  return None if allowed and (me != "experiments" or you not in FAMILY_MAY_NOT_IMPORT) else rank


def imports_point_downwards(sources: Sources) -> list[str]:
  """The table of ranks."""
  sources = under(sources, "jaxtrain")
  found = [f"{path}: `{room(path)}` has no rank; add it to RANKS of BUILD" for path in sources
           if room(path) not in RANKS]
  for path, what, other in inner_imports({path: text for path, text in sources.items() if room(path) in RANKS}):
    who = refused(path, what, other)
    if who:
      found.append(f"{path}:{what.line}: {who} may not import {module_name(other)}")
  return found


def libraries_are_few(sources: Sources) -> list[str]:
  """What low rooms, and what draws, may import from outside."""
  found = []
  for path, text in under(sources, "jaxtrain").items():
    which = "report" if is_picture_of_family(path) else room(path)
    for what in imported(path, parse(text)) if which in LIBRARIES else ():
      if not any(is_under(what.name, top) for top in (*LIBRARIES[which], *sys.stdlib_module_names, "jaxtrain")):
        found.append(f"{path}:{what.line}: imports {what.name}; allowed are {', '.join(LIBRARIES[which]) or 'none'}")
  return found


def readers_load_no_jax(sources: Sources) -> list[str]:
  """Importing config, workdir, report or figures imports no jax, step by step; what draws imports none later either."""
  sources = under(sources, "jaxtrain")
  draws = lambda path: room(path) == "report" or is_picture_of_family(path)
  edges = {path: {f"{'/'.join(path.split('/')[:depth])}/__init__.py" for depth in range(1, path.count("/") + 1)}
           for path in sources}
  for path, what, other in inner_imports(sources):
    if not what.late or draws(path):
      edges[path].add(other)
  outer = {path: [what.name for what in imported(path, parse(text)) if not what.late or draws(path)]
           for path, text in sources.items()}
  found = []
  for start in (path for path in sources if draws(path) or room(path) in IMPORTED_WITHOUT_JAX):
    todo, seen = [(start,)], {start}
    while todo:
      chain = todo.pop()
      found += [f"{' -> '.join(chain)} -> {name}: what reads files may not load jax" for name in outer[chain[-1]]
                if any(is_under(name, top) for top in USES_JAX)]
      for other in sorted((edges[chain[-1]] & set(sources)) - seen):
        seen.add(other)
        todo.append((*chain, other))
  return found


def linen_stays_in_nets(sources: Sources) -> list[str]:
  """flax.linen only in nn/ and experiments/*/nets*.py."""
  return [f"{path}:{line}: flax.linen belongs in nn/ and experiments/*/nets*.py"
          for path, text in under(sources, "jaxtrain", "configs", "launch").items()
          if not path.startswith("jaxtrain/nn/") and not fnmatch.fnmatch(path, "jaxtrain/experiments/*/nets*.py")
          for line, name in used_names(path, text) if is_under(name, "flax.linen")]


def no_pickle(sources: Sources) -> list[str]:
  """No pickle, by module or by numpy."""
  found = []
  for path, text in under(sources, "jaxtrain", "configs", "launch").items():
    found += [f"{path}:{what.line}: {what.name} runs or makes pickles" for what in imported(path, parse(text))
              if what.name.partition(".")[0] in PICKLES]
    found += [f"{path}:{node.value.lineno}: allow_pickle" for node, _ in nodes_of(parse(text))
              if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False"]
  return found


def no_private_jax(sources: Sources) -> list[str]:
  """No jax._src."""
  return [f"{path}:{line}: {name} is private to jax" for path, text in sources.items()
          for line, name in used_names(path, text) if is_under(name, "jax._src")]


def no_legacy_keys(sources: Sources) -> list[str]:
  """Typed keys only: jax.random.key."""
  return [f"{path}:{line}: PRNGKey; use jax.random.key" for path, text in sources.items()
          for line, name in used_names(path, text) if name.split(".")[-1] == "PRNGKey"]


def jax_is_configured_in_one_place(sources: Sources) -> list[str]:
  """jax.config.update only where a process is set up."""
  found = []
  for path, text in sources.items():
    lines = [what.line for what in imported(path, parse(text)) if is_under(what.name, "jax.config")]
    lines += [line for line, name in attributes(parse(text)) if name == "jax.config.update"]
    found += [f"{path}:{line}: jax.config belongs in {', '.join(MAY_CONFIGURE_JAX)}" for line in lines
              if path not in MAY_CONFIGURE_JAX]
  return found


def all_is_described(sources: Sources) -> list[str]:
  """Every module has a docstring, and in the package every public class, function and method."""
  found = []
  for path, text in sources.items():
    tree = parse(text)
    if tree.body and not ast.get_docstring(tree):
      found.append(f"{path}:1: the module has no docstring")
    if path.startswith("tests/"):
      continue
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for node in (*tree.body, *(node for part in classes for node in part.body)):
      if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not ast.get_docstring(node):
        if not node.name.startswith("_") and node.name != "setup":  # setup is Linen's, as __call__ is Python's
          found.append(f"{path}:{node.lineno}: {node.name} has no docstring")
  return found


def units_are_small(sources: Sources) -> list[str]:
  """Limits on the lines of a file, of a function's body without its docstring, and on columns."""
  found = []
  for path, text in under(sources, "jaxtrain", "configs", "launch").items():
    lines = text.splitlines()
    found += [f"{path}:{k}: {len(line)} columns, over {MAX_COLUMNS}" for k, line in enumerate(lines, 1)
              if len(line) > MAX_COLUMNS]
    if len(lines) > MAX_FILE_LINES:
      found.append(f"{path}: {len(lines)} lines, over {MAX_FILE_LINES}")
    for node, _ in nodes_of(parse(text)):
      if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        num_lines = node.end_lineno - body[0].lineno + 1 if body else 0
        if num_lines > MAX_BODY_LINES:
          found.append(f"{path}:{node.lineno}: {node.name} has {num_lines} lines, over {MAX_BODY_LINES}")
  return found


def plans_are_not_cited(sources: Sources) -> list[str]:
  """The repository stands alone: no text names the pages that it was planned on. Snippets below do."""
  return [f"{path}:{k}: cites `{match[0]}`, which readers do not have" for path, text in sources.items()
          if path != "tests/layout_test.py"
          for k, line in enumerate(text.splitlines(), 1) for match in CITATION.finditer(line)]


def strays(names: list[str], ignored: list[str]) -> list[str]:
  """Top-level names beyond the agreed ones; files of .gitignore and dotfiles do not count."""
  return [name for name in names if name not in TOP_LEVEL and not name.startswith(".")
          and not any(fnmatch.fnmatch(name, pattern.strip("/")) for pattern in ignored)]


RULES = (imports_point_downwards, libraries_are_few, readers_load_no_jax, linen_stays_in_nets, no_pickle,
         no_private_jax, no_legacy_keys, jax_is_configured_in_one_place, all_is_described, units_are_small)
RULES_OF_TEXTS = (plans_are_not_cited,)  # over all texts of the repository, not the Python files alone
DOC = "'''Doc.'''\n"
GOOD = {
  "jaxtrain/__init__.py": DOC + "__version__ = '1'\n\ndef _load():\n  from jaxtrain import loop",
  "jaxtrain/errors.py": DOC + "import os",
  "jaxtrain/jsonable.py": DOC,
  "jaxtrain/config/__init__.py": DOC + "from jaxtrain.config import fields",
  "jaxtrain/config/fields.py": DOC + "import ml_collections\nfrom jaxtrain import experiments, jsonable\n" +
                               "def _f():\n  import jax",
  "jaxtrain/workdir/reading.py": DOC + "from jaxtrain.errors import UserError",
  "jaxtrain/types.py": DOC + "import os\nimport flax.struct\nfrom jaxtrain import errors",
  "jaxtrain/statistics.py": DOC + "import scipy.stats",
  "jaxtrain/optim.py": DOC,
  "jaxtrain/step.py": DOC + "from jaxtrain import __version__, optim\nfrom jaxtrain.types import Batch",
  "jaxtrain/data/arrays.py": DOC + "import jax",
  "jaxtrain/devices/backend.py": DOC + "import jax\n\njax.config.update('a', 1)",
  "jaxtrain/report/__init__.py": "",
  "jaxtrain/report/figures.py": DOC + "import numpy as np\nfrom jaxtrain import config, statistics",
  "jaxtrain/report/__main__.py": DOC + "from jaxtrain.report import figures",
  "jaxtrain/run/start.py": DOC + "from jaxtrain.data import arrays\nfrom jaxtrain.run import stops",
  "jaxtrain/run/stops.py": DOC,
  "jaxtrain/loop.py": DOC + "from jaxtrain import step\nfrom jaxtrain.run import start",
  "jaxtrain/sweep/axes.py": DOC + "from jaxtrain import loop",
  "jaxtrain/sweep/__main__.py": DOC + "from jaxtrain.sweep import axes",
  "jaxtrain/experiments/__init__.py": "",
  "jaxtrain/experiments/a/__init__.py": "",
  "jaxtrain/experiments/a/a.py": DOC + "from jaxtrain.data import arrays\nfrom jaxtrain.experiments.a import nets_b",
  "jaxtrain/experiments/a/__main__.py": DOC + "from jaxtrain import config\nfrom jaxtrain.experiments.a import a",
  "jaxtrain/experiments/a/nets_b.py": DOC + "import flax.linen as nn",
  "jaxtrain/experiments/a/figures.py": DOC + "from jaxtrain.experiments.a import figures_data",
  "jaxtrain/experiments/a/figures_data.py": DOC + "from jaxtrain import jsonable\nfrom jaxtrain.report import figures",
  "jaxtrain/experiments/b/b.py": DOC,
  "jaxtrain/main.py": DOC + "import jax\nfrom jaxtrain import loop\n\ndef _run():\n  from jaxtrain import report",
  "launch/a.py": DOC + "STYLE = 1  # as specified",
}
A = "jaxtrain/experiments/a"
BAD = {  # rule -> (file, text that replaces it among the good ones, what the violation says)
  imports_point_downwards: (
    ("jaxtrain/types.py", "from jaxtrain import optim", "types (rank 2) may not import"),
    ("jaxtrain/types.py", "from jaxtrain import statistics", "types (rank 2) may not import"),
    ("jaxtrain/jsonable.py", "from jaxtrain import errors", "jsonable (rank 0) may not import"),
    ("jaxtrain/config/fields.py", "from jaxtrain.workdir import reading", "config (rank 1) may not import"),
    ("jaxtrain/workdir/reading.py", "from jaxtrain.config import fields", "workdir (rank 1)"),
    ("jaxtrain/workdir/reading.py", "from jaxtrain import config", "may not import jaxtrain.config"),
    ("jaxtrain/workdir/reading.py", "def f():\n  from jaxtrain import load", "workdir (rank 1) may not"),
    ("jaxtrain/optim.py", "from jaxtrain.step import repeat", "optim (rank 3) may not import"),
    ("jaxtrain/optim.py", "def f():\n  import jaxtrain.data.arrays", "optim.py:2: optim (rank 3)"),
    ("jaxtrain/optim.py", "from .data import arrays", "may not import jaxtrain.data.arrays"),
    ("jaxtrain/step.py", "from jaxtrain import loop", "may not import jaxtrain.loop"),
    ("jaxtrain/data/arrays.py", "from jaxtrain.devices import backend", "data (rank 5)"),
    ("jaxtrain/devices/backend.py", "from jaxtrain.data import arrays", "devices (rank 5)"),
    ("jaxtrain/run/stops.py", "from jaxtrain import loop", "run (rank 7)"),
    ("jaxtrain/run/stops.py", "from jaxtrain.report import figures", "run (rank 7) outside functions"),
    ("jaxtrain/loop.py", "importlib.import_module('jaxtrain.experiments.a.a')", "may not import jaxtrain.exp"),
    ("jaxtrain/loop.py", "from jaxtrain.sweep import axes", "loop (rank 8)"),
    ("jaxtrain/sweep/axes.py", "def f():\n  from jaxtrain import main", "sweep (rank 9)"),
    ("jaxtrain/sweep/__main__.py", "from jaxtrain import main", "rank 10) may not import jaxtrain.main"),
    ("jaxtrain/main.py", "from jaxtrain.report import figures", "main (rank 10) outside functions"),
    ("jaxtrain/main.py", "from jaxtrain.experiments.a import a", "finds experiments by name and may not import"),
    ("jaxtrain/predict.py", "def f():\n  from jaxtrain import main", "predict (rank 10)"),
    ("jaxtrain/report/figures.py", "from jaxtrain import types", "report (rank 6)"),
    ("jaxtrain/report/figures.py", "from jaxtrain.experiments.a import figures", "report (rank 6)"),
    ("jaxtrain/report/figures.py", "from jaxtrain.report import __main__", "report (rank 6)"),
    (f"{A}/a.py", "from jaxtrain.devices import backend", "experiments (rank 6)"),
    (f"{A}/a.py", "def f():\n  from jaxtrain.report import figures", "experiments (rank 6)"),
    (f"{A}/a.py", "from jaxtrain.experiments.b import b", "a family"),
    (f"{A}/a.py", "from jaxtrain.experiments.a import figures_data", "a family"),
    (f"{A}/a.py", "from jaxtrain import loop", "experiments (rank 6)"),
    (f"{A}/__main__.py", "from jaxtrain import loop", "experiments (rank 6)"),
    (f"{A}/figures.py", "from jaxtrain.report import __main__", "figures.py of an"),
    (f"{A}/figures_data.py", "from jaxtrain import streams", "figures.py of an"),
    ("jaxtrain/__init__.py", "from jaxtrain import types", "outside functions may not import jaxtrain.types"),
    ("jaxtrain/utils.py", "x = 1", "`utils` has no rank"),
    ("jaxtrain/data/__main__.py", "x = 1", "`data/__main__` has no rank"),
  ),
  libraries_are_few: (
    ("jaxtrain/errors.py", "import numpy", "errors.py:1: imports numpy; allowed are none"),
    ("jaxtrain/rng.py", "import optax", "rng.py:1: imports optax"),
    ("jaxtrain/types.py", "from flax import linen", "imports flax.linen"),
    ("jaxtrain/statistics.py", "import jax", "imports jax"),
    ("jaxtrain/commands.py", "import numpy", "imports numpy; allowed are absl"),
    ("jaxtrain/report/figures.py", "def f():\n  import jinja2", "imports jinja2"),
    (f"{A}/figures_data.py", "import pandas", "imports pandas"),
  ),
  readers_load_no_jax: (
    ("jaxtrain/report/figures.py", "def f():\n  import optax", "figures.py -> optax"),
    ("jaxtrain/config/fields.py", "try:\n  import jax\nexcept ImportError:\n  pass", "fields.py -> jax"),
    ("jaxtrain/workdir/reading.py", "from jaxtrain.data import arrays", "reading.py -> jaxtrain/data/arrays.py"),
    (f"{A}/figures.py", "from jaxtrain.experiments.a import nets_b", "-> flax.linen"),
    (f"{A}/figures_data.py", "import jax", "figures_data.py -> jax"),
    (f"{A}/__init__.py", "import jax", "a/__init__.py -> jax"),
  ),
  linen_stays_in_nets: (
    (f"{A}/a.py", "from flax import linen as nn", "a.py:1: flax.linen"),
    ("jaxtrain/step.py", "import flax\nflax.linen.Dense(3)", "step.py:2: flax.linen"),
  ),
  no_pickle: (
    ("jaxtrain/data/arrays.py", "def f():\n  import pickle", "arrays.py:2: pickle"),
    ("configs/a.py", "from joblib import load", "joblib.load"),
    ("jaxtrain/data/arrays.py", "np.load('a.npz', allow_pickle=True)", "allow_pickle"),
  ),
  no_private_jax: (
    ("jaxtrain/step.py", "from jax._src import core", "jax._src.core is private"),
    ("tests/a_test.py", "import jax\njax._src.core", "is private"),
  ),
  no_legacy_keys: (
    ("jaxtrain/step.py", "jax.random.PRNGKey(0)", "use jax.random.key"),
    ("tests/a_test.py", "from jax.random import PRNGKey", "use jax.random.key"),
  ),
  jax_is_configured_in_one_place: (
    ("jaxtrain/main.py", "jax.config.update('a', 1)", "main.py:1: jax.config belongs"),
    ("tests/a_test.py", "from jax import config", "jax.config belongs"),
  ),
  all_is_described: (
    ("tests/a_test.py", "x = 1", "a_test.py:1: the module has no docstring"),
    ("jaxtrain/step.py", DOC + "def run(): pass", "run has no docstring"),
    ("jaxtrain/step.py", DOC + "class A:\n  '''A.'''\n  def go(self): pass", "go has no docstring"),
  ),
  units_are_small: (
    ("jaxtrain/step.py", "x = 1\n" * 351, "step.py: 351 lines, over 350"),
    ("jaxtrain/step.py", "x = 1  # " + "a" * 112, "step.py:1: 121 columns, over 120"),
    ("jaxtrain/step.py", "def f():\n  '''Doc.'''\n" + "  x = 1\n" * 61, "f has 61 lines, over 60"),
  ),
  plans_are_not_cited: (
    ("jaxtrain/step.py", "'''**Source:** DESIGN 4.'''", "step.py:1: cites `DESIGN`"),
    ("launch/a.py", "x = 1\n# as INTERFACE defines it", "a.py:2: cites `INTERFACE`"),
    ("README.md", "(STACK 3: 24 of 25 went unseen)", "cites `STACK 3`"),
    (".ci/run", "# sentences as in STYLE.md", "cites `STYLE.md`"),
    ("tests/a_test.py", "x = 1  # spec tabular_vae 3-5", "cites `spec tabular_vae 3`"),
    ("BUILD", "# the sign bug (spec W1)", "cites `spec W1`"),
    ("launch/job.yaml", "# specs/semantic_compression.md", "cites `specs/semantic_compression.md`"),
  ),
}
CASES = [pytest.param(rule, *case, id=f"{rule.__name__}-{number}")
         for rule, cases in BAD.items() for number, case in enumerate(cases)]


@pytest.mark.parametrize("rule", (*RULES, *RULES_OF_TEXTS), ids=lambda rule: rule.__name__)
def test_repository(rule):
  found = rule(repository(TEXTS) if rule in RULES_OF_TEXTS else repository())
  assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", BAD, ids=lambda rule: rule.__name__)
def test_rule_passes_what_is_good(rule):
  assert rule(GOOD) == []


@pytest.mark.parametrize(("rule", "path", "text", "says"), CASES)
def test_rule_finds_what_is_bad(rule, path, text, says):
  found = rule(GOOD | {path: text})
  assert any(says in line for line in found), found
  assert all(path in line for line in found), found


def test_every_rule_can_fail():
  assert {*RULES, *RULES_OF_TEXTS} <= set(BAD)


def test_top_level():
  ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
  assert not strays(os.listdir(ROOT), ignored)
  assert set(TOP_LEVEL) <= set(os.listdir(ROOT))


def test_strays_are_found():
  assert strays([*TOP_LEVEL, ".ci", "runs", "a.egg-info", "setup.py"], ["/runs/", "*.egg-info/"]) == ["setup.py"]


@pytest.mark.smoke
def test_readers_run_without_jax():
  modules = [module_name(path) for path in under(repository(), "jaxtrain")
             if is_picture_of_family(path) or room(path) in (*IMPORTED_WITHOUT_JAX, "report")]
  code = f"import sys, {', '.join(modules)}; print([n for n in sys.modules if n.split('.')[0] in {USES_JAX}])"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
  assert done.stdout.strip() == "[]"


@pytest.mark.smoke
def test_modules_import():
  for path in under(repository(), "jaxtrain"):
    __import__(module_name(path))
    assert pathlib.Path(sys.modules[module_name(path)].__file__) == ROOT / path
