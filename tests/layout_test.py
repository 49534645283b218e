"""The layout that DESIGN 3 decides, held by reading the source: who imports whom, what is used nowhere, how long it is.

A rule takes {path: source text} and returns its violations, one line each. Every rule is run over the repository, and
over bad snippets that it must find.
"""

import ast
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
from typing import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Modules and folders of jaxtrain by rank, and the ranks that a row may import. DESIGN 3 has the table without fields,
# packing, workdir, console, plan, assembly, runs and evaluation. `figures.py` of an experiment has a rule of its own.
ROWS = (
    ("types", "rng", "turns"),
    ("losses", "schedules", "nn", "optim", "step", "ensemble", "modules", "fields", "config",
     "axes"),
    ("data",),
    ("experiments",),
    ("processes", "parallel", "packing", "checkpoint", "preempt", "metrics", "facts", "workdir", "console", "plan",
     "feed", "board", "journal"),
    ("assembly", "members", "runs", "evaluation", "loop", "wave", "waves"),
    ("main", "predict", "pools", "search", "sweep", "serve"),
    ("figures", "page", "compare", "collection", "comparison", "report"),
)
MAY_IMPORT = ((), (0,), (0, 1), (0, 1, 2), (0,), (0, 1, 4), (0, 4), ())
LEFTWARDS = (1, 5, 6, 7)  # rows in which a module may import the names to its left
COMMANDS, PICTURES = 6, 7
COMMANDS_ALSO = ("fields", "modules", "config", "axes", "assembly", "evaluation", "loop", "waves")  # beyond the ranks
LAZY = ("figures", "report", "comparison")  # what main and sweep import inside a function only

# Sideways imports for which the table has no row. The module's docstring says why under **Departs**, naming the other.
DEPARTURES = (
    ("checkpoint", "preempt"),  # the points at which a test kills a save
    ("workdir", "checkpoint"),  # a workdir's description is made from its checkpoints
    ("parallel", "processes"),  # devices of several processes
    ("checkpoint", "packing"),  # the arrays it stores
    ("workdir", "packing"),  # the digest of what is stored
    ("predict", "data/files"),  # the files that are applied to are those that are trained on
    ("predict", "data/writing"),  # and are written alike
    ("journal", "workdir"),  # the way JSON is written
    ("preempt", "processes"),  # a process that leaves may have to wait for others
)

TOP_LEVEL = ("pyproject.toml", "README.md", "BUILD", "MODULE.bazel", "LICENSE", "configs", "launch", "tests",
             "jaxtrain")
USES_JAX = ("jax", "jaxlib", "flax", "optax", "orbax", "chex", "numpyro")
PICKLES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
MAY_CONFIGURE_JAX = ("jaxtrain/main.py", "jaxtrain/processes.py", "jaxtrain/parallel.py", "tests/conftest.py")
MAX_FILE_LINES, MAX_BODY_LINES, MAX_COLUMNS = 350, 60, 120

Sources = dict[str, str]


def repository() -> Sources:
  """All Python files of the repository."""
  paths = [path for top in ("jaxtrain", "configs", "launch", "tests") for path in (ROOT / top).rglob("*.py")]
  return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def module_name(path: str) -> str:
  """`jaxtrain/data/arrays.py` -> `jaxtrain.data.arrays`; a package for its `__init__.py`."""
  return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_under(name: str, package: str) -> bool:
  """Whether a dotted name is the package or inside it."""
  return name == package or name.startswith(package + ".")


def imported(path: str, tree: ast.AST) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
  """(node, dotted name) of all that a file imports, inside functions too: `from a import b` gives `a.b`."""
  package = path.removesuffix(".py").split("/")[:-1]
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((node, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = package[:len(package) + 1 - node.level] if node.level else []
      base += [node.module] if node.module else []
      yield from ((node, ".".join([*base, alias.name])) for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
      if node.args and isinstance(node.args[0], ast.Constant):
        yield node, node.args[0].value


def inner_imports(sources: Sources) -> Iterator[tuple[str, ast.stmt | ast.expr, str]]:
  """(path, node, path of the imported file) for imports of one of the sources by another."""
  by_name = {module_name(path): path for path in sources}
  for path, text in sources.items():
    for node, name in imported(path, ast.parse(text)):
      while name and name not in by_name:
        name = name.rpartition(".")[0]
      if name:
        yield path, node, by_name[name]


def package_only(sources: Sources) -> Sources:
  """The sources that are no tests."""
  return {path: text for path, text in sources.items() if not path.startswith("tests/")}


def is_picture(path: str) -> bool:
  """Whether a file draws: it may not load jax."""
  parts = path.split("/")
  in_family = parts[1] == "experiments" and re.fullmatch(r"figures(_[a-z]+)?\.py", parts[-1]) is not None
  return in_family or path.removeprefix("jaxtrain/").removesuffix(".py") in ROWS[PICTURES]


def attributes(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
  """(node, `a.b.c`) for dotted expressions."""
  return ((node, ast.unparse(node)) for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def head(path: str) -> str:
  """The module or folder of jaxtrain that a file belongs to."""
  return path.split("/")[1].removesuffix(".py")


def rank(path: str) -> int | None:
  """Row of the table."""
  return next((number for number, row in enumerate(ROWS) if head(path) in row), None)


def refused(path: str, node: ast.AST, other: str, is_top: bool) -> str | None:
  """Why a file of jaxtrain may not import another, or None."""
  mine, yours, me, you = rank(path), rank(other), head(path), head(other)
  if "__init__" in other or path == other:
    return None
  if is_picture(path) and me == "experiments":
    same_folder = path.rpartition("/")[0] == other.rpartition("/")[0]
    return None if other == "jaxtrain/figures.py" or same_folder else "figures.py of an experiment"
  if me == you:  # inside a folder; families are folders of experiments, and their figures.py stands apart
    apart = me == "experiments" and (path.split("/")[2] != other.split("/")[2] or is_picture(other))
    return "a family" if apart else None
  if mine == yours and (mine not in LEFTWARDS or ROWS[mine].index(you) > ROWS[mine].index(me)):
    return None if (me, you) in DEPARTURES else f"{me} (rank {mine})"
  if mine == COMMANDS and (you in COMMANDS_ALSO or (me in ("main", "sweep") and you in LAZY and not is_top)):
    return None
  if (me, other.removeprefix("jaxtrain/").removesuffix(".py")) in DEPARTURES:
    return None
  return None if mine == yours or yours in MAY_IMPORT[mine] else f"{me} (rank {mine})"


def imports_point_downwards(sources: Sources) -> list[str]:
  """The table of ranks."""
  found, sources = [], {path: text for path, text in sources.items() if path.startswith("jaxtrain/")}
  for path in sources:
    if rank(path) is None and path != "jaxtrain/__init__.py":
      found.append(f"{path}: `{head(path)}` has no rank; add it to a row of ROWS")
  sources = {path: text for path, text in sources.items() if path == "jaxtrain/__init__.py" or rank(path) is not None}
  for path, node, other in inner_imports(sources):
    who = refused(path, node, other, node.col_offset == 0) if path != "jaxtrain/__init__.py" else "jaxtrain/__init__.py"
    if who:
      found.append(f"{path}:{node.lineno}: {who} may not import {module_name(other)}")
  return found


def departures_are_explained(sources: Sources) -> list[str]:
  """A departure from the table is in use, and its reason in the docstring."""
  found, edges = [], {(path, other) for path, _, other in inner_imports(sources)}
  for me, you in DEPARTURES:
    path = f"jaxtrain/{me}.py"
    if path not in sources:
      continue
    docstring = ast.get_docstring(ast.parse(sources[path])) or ""
    if (path, f"jaxtrain/{you}.py") not in edges:
      found.append(f"{path}: imports {you} no more; remove it from DEPARTURES")
    elif "**Departs**" not in docstring or you.replace("/", ".") not in docstring.split("**Departs**")[1]:
      found.append(f"{path}: the docstring has no **Departs** that says why it imports {you}")
  return found


def low_modules_import_little(sources: Sources) -> list[str]:
  """Row 0 needs jax, numpy and flax.struct alone; what draws needs numpy and matplotlib."""
  found = []
  for path, text in package_only(sources).items():
    low = path in ("jaxtrain/types.py", "jaxtrain/rng.py")
    if not low and not is_picture(path):
      continue
    allowed = ("jax", "numpy", "flax.struct") if low else ("numpy", "scipy", "matplotlib")
    for node, name in imported(path, ast.parse(text)):
      if not any(is_under(name, top) for top in (*allowed, *sys.stdlib_module_names, "jaxtrain")):
        found.append(f"{path}:{node.lineno}: imports {name}; allowed are {', '.join(allowed)}")
  return found


def pictures_load_no_jax(sources: Sources) -> list[str]:
  """Nothing that a drawing module imports imports jax, step by step through the package."""
  edges, outer = {}, {}
  for path, _, other in inner_imports(sources):
    edges.setdefault(path, set()).add(other)
  for path, text in sources.items():
    outer[path] = [name for _, name in imported(path, ast.parse(text)) if any(is_under(name, top) for top in USES_JAX)]
    folders = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
    edges.setdefault(path, set()).update(f"{folder}/__init__.py" for folder in folders)
  found = []
  for start in filter(is_picture, sources):
    todo, seen = [(start,)], {start}
    while todo:
      chain = todo.pop()
      if outer[chain[-1]]:
        found.append(f"{' -> '.join(chain)} -> {outer[chain[-1]][0]}: what draws may not load jax")
      for other in sorted((edges[chain[-1]] & set(sources)) - seen):
        seen.add(other)
        todo.append((*chain, other))
  return found


def linen_stays_in_nets(sources: Sources) -> list[str]:
  """flax.linen only in nn/ and experiments/*/nets.py."""
  found = []
  for path, text in package_only(sources).items():
    if path.startswith("jaxtrain/nn/") or fnmatch.fnmatch(path, "jaxtrain/experiments/*/nets.py"):
      continue
    tree = ast.parse(text)
    for node, name in (*imported(path, tree), *attributes(tree)):
      if is_under(name, "flax.linen"):
        found.append(f"{path}:{node.lineno}: flax.linen belongs in nn/ and experiments/*/nets.py")
  return sorted(set(found))


def no_pickle(sources: Sources) -> list[str]:
  """No pickle, by module or by numpy."""
  found = []
  for path, text in package_only(sources).items():
    tree = ast.parse(text)
    for node, name in imported(path, tree):
      if name.partition(".")[0] in PICKLES:
        found.append(f"{path}:{node.lineno}: {name} runs or makes pickles")
    for node in ast.walk(tree):
      if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        if not (isinstance(node.value, ast.Constant) and node.value.value is False):
          found.append(f"{path}:{node.value.lineno}: allow_pickle")
  return found


def no_private_jax(sources: Sources) -> list[str]:
  """No jax._src."""
  found = []
  for path, text in sources.items():
    tree = ast.parse(text)
    for node, name in (*imported(path, tree), *attributes(tree)):
      if is_under(name, "jax._src"):
        found.append(f"{path}:{node.lineno}: {name} is private to jax")
  return sorted(set(found))


def no_legacy_keys(sources: Sources) -> list[str]:
  """Typed keys only: jax.random.key."""
  found = []
  for path, text in sources.items():
    tree = ast.parse(text)
    for node, name in (*imported(path, tree), *attributes(tree)):
      if name.split(".")[-1] == "PRNGKey":
        found.append(f"{path}:{node.lineno}: PRNGKey; use jax.random.key")
  return found


def jax_is_configured_in_one_place(sources: Sources) -> list[str]:
  """jax.config.update only where a process is set up."""
  found = []
  for path, text in sources.items():
    if path in MAY_CONFIGURE_JAX:
      continue
    tree = ast.parse(text)
    named = [(node, name) for node, name in imported(path, tree) if is_under(name, "jax.config")]
    for node, _ in (*named, *(pair for pair in attributes(tree) if pair[1] == "jax.config.update")):
      found.append(f"{path}:{node.lineno}: jax.config belongs in {', '.join(MAY_CONFIGURE_JAX)}")
  return found


def all_is_described(sources: Sources) -> list[str]:
  """Every module has a docstring, and in the package every public class, function and method."""
  found = []
  for path, text in sources.items():
    tree = ast.parse(text)
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
  for path, text in package_only(sources).items():
    num_lines = len(text.splitlines())
    found += [f"{path}:{k}: {len(line)} columns, over {MAX_COLUMNS}"
              for k, line in enumerate(text.splitlines(), 1) if len(line) > MAX_COLUMNS]
    if num_lines > MAX_FILE_LINES:
      found.append(f"{path}: {num_lines} lines, over {MAX_FILE_LINES}")
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        num_lines = node.end_lineno - body[0].lineno + 1 if body else 0
        if num_lines > MAX_BODY_LINES:
          found.append(f"{path}:{node.lineno}: {node.name} has {num_lines} lines, over {MAX_BODY_LINES}")
  return found


def strays(names: list[str], ignored: list[str]) -> list[str]:
  """Top-level names beyond the agreed ones; files of .gitignore and dotfiles do not count."""
  return [name for name in names if name not in TOP_LEVEL and not name.startswith(".")
          and not any(fnmatch.fnmatch(name, pattern.strip("/")) for pattern in ignored)]


RULES = (imports_point_downwards, departures_are_explained, low_modules_import_little, pictures_load_no_jax,
         linen_stays_in_nets, no_pickle, no_private_jax, no_legacy_keys, jax_is_configured_in_one_place,
         all_is_described, units_are_small)
DOC = "'''Doc.'''\n"
GOOD = {
    "jaxtrain/__init__.py": DOC,
    "jaxtrain/types.py": DOC + "import os\nimport flax.struct",
    "jaxtrain/optim.py": DOC,
    "jaxtrain/processes.py": DOC,
    "jaxtrain/preempt.py": "'''S.\n\n**Departs**: processes.'''\nfrom jaxtrain import processes",
    "jaxtrain/step.py": DOC + "from jaxtrain import __version__, optim\nfrom jaxtrain.types import UserError",
    "jaxtrain/packing.py": DOC,
    "jaxtrain/checkpoint.py": "'''S.\n\n**Departs**: packing, preempt.'''\nfrom jaxtrain import packing, preempt",
    "jaxtrain/figures.py": DOC + "import numpy as np",
    "jaxtrain/report.py": DOC + "from jaxtrain import figures",
    "jaxtrain/data/arrays.py": DOC + "import jax",
    "jaxtrain/loop.py": DOC + "from jaxtrain import checkpoint, step",
    "jaxtrain/experiments/a/__init__.py": "",
    "jaxtrain/experiments/a/a.py": DOC + "from jaxtrain.data import arrays\nfrom jaxtrain.experiments.a import nets",
    "jaxtrain/experiments/a/nets.py": DOC + "import flax.linen as nn",
    "jaxtrain/experiments/a/figures.py": DOC + "from jaxtrain.experiments.a import figures_data",
    "jaxtrain/experiments/a/figures_data.py": DOC + "from jaxtrain.figures import new",
    "jaxtrain/experiments/b/b.py": DOC,
    "jaxtrain/main.py": DOC + "import jax\n\ndef _run():\n  from jaxtrain import report\n  jax.config.update('a', 1)",
}
BAD = {  # rule -> (file, text that replaces it among the good ones, what the violation says)
    imports_point_downwards: (
        ("jaxtrain/types.py", "from jaxtrain import optim", "types (rank 0) may not import"),
        ("jaxtrain/optim.py", "from jaxtrain.step import repeat", "optim (rank 1) may not import"),
        ("jaxtrain/optim.py", "def f():\n  import jaxtrain.data.arrays", "optim.py:2: optim (rank 1)"),
        ("jaxtrain/optim.py", "from .data import arrays", "may not import jaxtrain.data.arrays"),
        ("jaxtrain/step.py", "from jaxtrain import loop", "may not import jaxtrain.loop"),
        ("jaxtrain/data/arrays.py", "from jaxtrain.experiments.a import a", "data (rank 2)"),
        ("jaxtrain/preempt.py", "from jaxtrain import checkpoint", "preempt (rank 4)"),
        ("jaxtrain/preempt.py", "from jaxtrain import step", "preempt (rank 4)"),
        ("jaxtrain/loop.py", "from jaxtrain.data import arrays", "loop (rank 5)"),
        ("jaxtrain/loop.py", "importlib.import_module('jaxtrain.experiments.a.a')", "may not import jaxtrain.exp"),
        ("jaxtrain/runs.py", "from jaxtrain import loop", "runs (rank 5)"),
        ("jaxtrain/main.py", "from jaxtrain import report", "main (rank 6)"),
        ("jaxtrain/main.py", "from jaxtrain import step", "main (rank 6)"),
        ("jaxtrain/predict.py", "def f():\n  from jaxtrain import report", "predict (rank 6)"),
        ("jaxtrain/figures.py", "from jaxtrain import report", "figures (rank 7)"),
        ("jaxtrain/figures.py", "from jaxtrain import types", "figures (rank 7)"),
        ("jaxtrain/experiments/a/a.py", "from jaxtrain.experiments.b import b", "a family"),
        ("jaxtrain/experiments/a/a.py", "from jaxtrain.experiments.a import figures", "a family"),
        ("jaxtrain/experiments/a/a.py", "from jaxtrain import loop", "experiments (rank 3)"),
        ("jaxtrain/experiments/a/figures.py", "from jaxtrain import report", "figures.py of an"),
        ("jaxtrain/experiments/a/a.py", "from jaxtrain.experiments.a import figures_data", "a family"),
        ("jaxtrain/experiments/a/figures_data.py", "from jaxtrain import report", "figures.py of an"),
        ("jaxtrain/__init__.py", "from jaxtrain import types", "jaxtrain/__init__.py may not"),
        ("jaxtrain/utils.py", "x = 1", "`utils` has no rank"),
    ),
    departures_are_explained: (
        ("jaxtrain/checkpoint.py", DOC, "imports preempt no more"),
        ("jaxtrain/checkpoint.py", "'''On preempt.'''\nfrom jaxtrain import preempt", "no **Departs**"),
    ),
    low_modules_import_little: (
        ("jaxtrain/rng.py", "import optax", "rng.py:1: imports optax"),
        ("jaxtrain/types.py", "from flax import linen", "imports flax.linen"),
        ("jaxtrain/report.py", "import jinja2", "imports jinja2"),
    ),
    pictures_load_no_jax: (
        ("jaxtrain/figures.py", "def f():\n  import optax", "figures.py -> optax"),
        ("jaxtrain/experiments/a/figures.py", "from jaxtrain.experiments.a import nets", "-> flax.linen"),
        ("jaxtrain/experiments/a/figures_data.py", "import jax", "figures_data.py -> jax"),
        ("jaxtrain/experiments/a/__init__.py", "import jax", "a/__init__.py -> jax"),
    ),
    linen_stays_in_nets: (
        ("jaxtrain/experiments/a/a.py", "from flax import linen as nn", "a.py:1: flax.linen"),
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
        ("jaxtrain/step.py", "jax.config.update('a', 1)", "step.py:1: jax.config belongs"),
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
}
CASES = [pytest.param(rule, *case, id=f"{rule.__name__}-{number}")
         for rule, cases in BAD.items() for number, case in enumerate(cases)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository(rule):
  found = rule(repository())
  assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_passes_what_is_good(rule):
  assert rule(GOOD) == []


@pytest.mark.parametrize(("rule", "path", "text", "says"), CASES)
def test_rule_finds_what_is_bad(rule, path, text, says):
  found = rule(GOOD | {path: text})
  assert any(says in line for line in found), found
  assert all(path in line for line in found), found


def test_every_rule_can_fail():
  assert set(BAD) == set(RULES)


def test_top_level():
  ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
  assert not strays(os.listdir(ROOT), ignored)
  assert set(TOP_LEVEL) <= set(os.listdir(ROOT))


def test_strays_are_found():
  assert strays([*TOP_LEVEL, ".ci", "runs", "a.egg-info", "setup.py"], ["/runs/", "*.egg-info/"]) == ["setup.py"]


@pytest.mark.smoke
def test_pictures_run_without_jax():
  modules = [module_name(path) for path in repository() if path.startswith("jaxtrain/") and is_picture(path)]
  code = f"import sys, {', '.join(modules)}; print([n for n in sys.modules if n.split('.')[0] in {USES_JAX}])"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
  assert done.stdout.strip() == "[]"


@pytest.mark.smoke
@pytest.mark.parametrize("path", [path for path in repository() if path.startswith("jaxtrain/")])
def test_module_imports(path):
  __import__(module_name(path))
