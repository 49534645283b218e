"""BUILD against the source: each file in one target, deps that are the imports, a py_test for each test, no cycles.

A failure says which line to add or remove. What BUILD uses of Starlark is Python syntax: `ast` refuses the rest, and
Python runs it with rules that write down their attributes. Where Bazel is installed, it reads the file too (offline,
with a stub of rules_python).
"""

import ast
import functools
import os
import pathlib
import re
import shutil
import subprocess
import textwrap
from typing import Any, NamedTuple

import pytest

import jaxtrain
from layout_test import FOLDERS, imported, module_name, nodes_of, parse, repository, ROOT, TEXTS

CONFTEST, PACKAGE = "tests/conftest.py", "jaxtrain/__init__.py"
# Tests about the repository itself quote code: only their imports count, not their strings.
ABOUT_REPOSITORY = ("tests/build_test.py", "tests/layout_test.py")
STARLARK = (ast.Module, ast.Expr, ast.Assign, ast.Call, ast.keyword, ast.Constant, ast.Name, ast.Attribute, ast.List,
            ast.Tuple, ast.Dict, ast.ListComp, ast.comprehension, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.Subscript,
            ast.Slice, ast.Compare, ast.expr_context, ast.operator, ast.unaryop, ast.cmpop)
BAZEL_SECONDS = 55

STUB = """
def _impl(ctx):
    return []

_ATTRS = {
    "args": attr.string_list(),
    "data": attr.label_list(allow_files = True),
    "deps": attr.label_list(),
    "main": attr.label(allow_single_file = True),
    "srcs": attr.label_list(allow_files = True),
}
py_binary = rule(implementation = _impl, attrs = _ATTRS)
py_library = rule(implementation = _impl, attrs = _ATTRS)
python_unit = rule(implementation = _impl, attrs = _ATTRS)

def py_test(**kwargs):
    python_unit(**kwargs)
"""

Sources = dict[str, str]


class Target(NamedTuple):
  """A rule of BUILD with its attributes."""
  kind: str
  name: str
  srcs: list[str]
  deps: list[str] = []
  data: list[str] = []
  args: list[str] = []
  main: str = ""

  @property
  def sharers(self) -> str:
    """Those of the targets that one comprehension over files makes have one list of deps; they are named by path."""
    return self.kind if "/" in self.name else self.name


def pattern_of(glob: str) -> re.Pattern:
  """`a/**/*.py` as a regular expression."""
  parts = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*"}
  return re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*)", glob)))


def read_build(text: str, sources: Sources) -> dict[str, Target]:
  """Targets by name. Raises ValueError for what is no Starlark, or a name used twice."""
  targets = {}

  def glob(include: list[str], exclude: list[str] = (), allow_empty: bool = False) -> list[str]:
    matches = [[path for path in sources if pattern_of(pattern).fullmatch(path)] for pattern in include]
    if not allow_empty and not all(matches):
      raise ValueError(f"BUILD: nothing matches {include[matches.index([])]}")
    return [path for path in sources if any(path in matched for matched in matches)
            and not any(pattern_of(pattern).fullmatch(path) for pattern in exclude)]

  def rule(kind: str) -> Any:
    def add(name: str, **attributes: Any) -> None:
      if name in targets:
        raise ValueError(f"BUILD: a second target {name}")
      targets[name] = Target(kind, name, **attributes)
    return add

  tree = ast.parse(text)
  for node in ast.walk(tree):
    if not isinstance(node, STARLARK):
      raise ValueError(f"BUILD:{node.lineno}: {type(node).__name__} is no part of Starlark, or of what is used here")
  nothing = lambda *args, **kwargs: None
  exec(compile(tree, "BUILD", "exec"), {
    "__builtins__": {"len": len}, "load": nothing, "package": nothing, "filegroup": nothing, "glob": glob,
    **{kind: rule(kind) for kind in ("py_library", "py_binary", "py_test")}})
  return targets


def names_in_code(path: str, tree: ast.AST) -> set[str]:
  """Dotted names that code imports; `from a import b` gives `a.b`."""
  return {found.name for found in imported(path, tree)}


@functools.cache
def names_in_strings(tree: ast.AST) -> set[str]:
  """Dotted names of modules that strings mention: experiments of a config, commands and code that a test starts."""
  names, documents = set(), (ast.Module, ast.ClassDef, ast.FunctionDef)
  docstrings = {id(node.body[0].value) for node, _ in nodes_of(tree)
                if isinstance(node, documents) and ast.get_docstring(node) is not None}
  for node, _ in nodes_of(tree):
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)) or id(node) in docstrings:
      continue
    mentioned = set(re.findall(r"\bjaxtrain(?:\.\w+)+", node.value))
    names |= mentioned | {f"{name}.__main__" for name in mentioned}  # python -m
    names |= {name.replace("/", ".").removesuffix(".py") for name in re.findall(r"\bconfigs/\w+(?:\.py)?", node.value)}
    if "configs" in node.value.split("/"):
      names.add("configs")
    if "import " in node.value:
      try:
        names |= names_in_code("", parse(textwrap.dedent(node.value)))
      except SyntaxError:
        continue
  return names


@functools.cache
def files_by_name(paths: tuple[str, ...], folder: str) -> dict[str, str]:
  """File by the name under which a file of that folder imports it."""
  by_name = {module_name(path): path for path in paths}
  by_name["configs"] = next((path for path in paths if path.startswith("configs/")), "")
  if folder.split("/")[0] == "tests":  # pyproject.toml puts tests/ on the path, and a script finds what lies beside it
    for prefix in ("tests.", f"{folder.replace('/', '.')}."):
      by_name |= {name.removeprefix(prefix): path for name, path in by_name.items() if name.startswith(prefix)}
  return by_name


def needed_files(path: str, sources: Sources) -> set[str]:
  """Files of the repository that a file imports, with the `__init__.py` that an import runs on its way."""
  if path == PACKAGE:  # runs first on every import, and imports only when asked: whoever asks needs the commands
    return set()
  tree = parse(sources[path])
  names = names_in_code(path, tree)
  if not path.startswith("jaxtrain/") and path not in ABOUT_REPOSITORY:
    names |= names_in_strings(tree)
  by_name, needed = files_by_name(tuple(sources), os.path.dirname(path)), set()
  for name in [*names, *([path.removesuffix(".py").replace("/", ".")] if path.startswith("jaxtrain/") else [])]:
    while name:
      if name in by_name:
        needed.add(by_name[name])
      name = name.rpartition(".")[0]
  return needed - {path, ""}


def owners(targets: dict[str, Target]) -> dict[str, list[str]]:
  """Targets, tests aside, that list a file."""
  found = {}
  for name, target in targets.items():
    for path in target.srcs if target.kind != "py_test" else ():
      found.setdefault(path, []).append(name)
  return found


def wrong_files(targets: dict[str, Target], sources: Sources) -> list[str]:
  """Files in no target or in several, targets with files that are not there, tests without their py_test."""
  found, of_file, data = [], owners(targets), {path for target in targets.values() for path in target.data}
  for path in sources:
    if path.endswith(".js"):
      found += [f'BUILD: "{path}" is in no data'] * (path not in data)
    elif path.endswith("_test.py"):
      name, test = path.removesuffix(".py"), targets.get(path.removesuffix(".py"))
      if test is None or test[:3] + test[5:] != ("py_test", name, [CONFTEST, path], [path], CONFTEST):
        found.append(f'BUILD: "{name}" is no py_test that runs {path} by {CONFTEST}')
    elif path.endswith(".py") and path != CONFTEST and len(of_file.get(path, [])) != 1:
      found.append(f'BUILD: "{path}" is in {" and ".join(of_file.get(path, ["no target"]))}; one target has to list it')
  found += [f'BUILD: "{name}" lists "{path}"; there is no such file' for name, target in targets.items()
            for path in target.srcs if path not in sources]
  return found


def wrong_deps(targets: dict[str, Target], sources: Sources) -> list[str]:
  """Differences between deps and the imports."""
  found, of_file, groups = [], owners(targets), {}
  for target in targets.values():
    groups.setdefault(target.sharers, []).append(target)
  for name, group in groups.items():
    want = set()
    for target in group:
      needed = set().union(*(needed_files(path, sources) for path in target.srcs if path in sources)) - set(target.srcs)
      want |= {f":{of_file[path][0]}" for path in needed if path in of_file}
    have = {dep for target in group for dep in target.deps}
    found += [f'BUILD: "{name}": add "{dep}", to deps' for dep in sorted(want - have)]
    found += [f'BUILD: "{name}": remove "{dep}", from deps; nothing imports it' for dep in sorted(have - want)]
  return found


def cycles(targets: dict[str, Target]) -> list[str]:
  """Chains of deps and data that come back to their start."""
  found = []
  for start in targets:
    todo, seen = [(start,)], set()
    while todo:
      chain = todo.pop()
      for label in (*targets[chain[-1]].deps, *targets[chain[-1]].data):
        name = label.removeprefix(":")
        if name == start:
          found.append(f"BUILD: cycle {' -> '.join((*chain, name))}")
        elif name in targets and name not in seen:
          seen.add(name)
          todo.append((*chain, name))
  return found


def reached_files(start: str, targets: dict[str, Target]) -> set[str]:
  """Python files that a target has by itself and through deps and data."""
  todo, seen = [start], set()
  while todo:
    name = todo.pop()
    if name not in seen:
      seen.add(name)
      todo += [label[1:] for label in (*targets[name].deps, *targets[name].data) if label[1:] in targets]
  return {path for name in seen for path in targets[name].srcs}


def lost_files(targets: dict[str, Target], sources: Sources) -> list[str]:
  """Files of the package, commands aside, that no command reaches; experiments come through the configs."""
  commands = [name for name, target in targets.items() if target.kind == "py_binary"]
  have = set().union(*(reached_files(name, targets) for name in commands))
  return [f'BUILD: no command leads to "{path}"; a config that names its experiment does, through data = [":configs"]'
          for path in sources if re.fullmatch(r"jaxtrain/.*\.py", path) and path not in have]


def problems(text: str, sources: Sources) -> list[str]:
  """All that is wrong with a BUILD."""
  targets = read_build(text, sources)
  return (wrong_files(targets, sources) + wrong_deps(targets, sources) + cycles(targets)
          + lost_files(targets, sources))


def test_build_agrees_with_the_source():
  found = problems((ROOT / "BUILD").read_text(encoding="utf-8"), repository(TEXTS))
  assert not found, "\n" + "\n".join(found)


def test_module_has_the_version_of_the_package():
  assert f'version = "{jaxtrain.__version__}"' in (ROOT / "MODULE.bazel").read_text(encoding="utf-8")


SOURCES = {PACKAGE: "def f():\n  from jaxtrain import main", "jaxtrain/types.py": "",
           "jaxtrain/step.py": "from jaxtrain.types import Batch", "jaxtrain/page.js": "",
           "jaxtrain/main.py": "def main():\n  from jaxtrain import step", "jaxtrain/exp/__init__.py": "",
           "jaxtrain/exp/vae.py": "from jaxtrain import step", "configs/vae.py": "x = 'jaxtrain.exp.vae'",
           CONFTEST: "", "tests/a_test.py": "'''On jaxtrain.main.'''\nimport jaxtrain.types\nrun('configs/vae.py')",
           "tests/b/c_test.py": "from jaxtrain import step"}
BUILD = """
load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")
CUT = [["types", "none"], ["step"]]
py_library(name = "package", srcs = ["jaxtrain/__init__.py"], data = glob(["jaxtrain/*.js"]))
[py_library(name = name, srcs = glob(["jaxtrain/%s.py" % file for file in CUT[k]], allow_empty = True), deps = deps)
 for k, name, deps in [(0, "core", [":package"]), (1, "maths", [":package", ":core"])]]
py_library(name = "exp", srcs = glob(["jaxtrain/exp/**/*.py"]), deps = [":package", ":maths"])
py_library(name = "configs", srcs = glob(["configs/*.py"]), deps = [":package", ":exp"])
py_binary(name = "main", srcs = ["jaxtrain/main.py"], data = [":configs"], deps = [":package", ":maths"])
[py_test(name = path[:-len(".py")], srcs = ["tests/conftest.py", path], args = [path], main = "tests/conftest.py",
         deps = [":configs", ":core", ":maths", ":package"]) for path in glob(["tests/**/*_test.py"])]
"""


def test_good_build_passes():
  assert problems(BUILD, SOURCES) == []


@pytest.mark.parametrize(("old", "new", "says"), [
  ('"maths", [":package", ":core"]', '"maths", [":package"]', '"maths": add ":core", to deps'),
  ('data = [":configs"], deps = [', 'data = [":configs"], deps = [":exp", ', '"main": remove ":exp", from deps'),
  ('[":configs"], deps = [":package", ":maths"]', '[":configs"], deps = [":package"]', '"main": add ":maths", to deps'),
  ('data = [":configs"]', "data = []", 'no command leads to "jaxtrain/exp/vae.py"'),
  ('deps = [":package", ":exp"]', 'deps = [":package"]', '"configs": add ":exp", to deps'),
  ('"jaxtrain/exp/**/*.py"', '"jaxtrain/exp/__init__.py"', '"jaxtrain/exp/vae.py" is in no target'),
  ('"jaxtrain/exp/**/*.py"', '"jaxtrain/exp/*.py", "jaxtrain/step.py"', '"jaxtrain/step.py" is in maths and exp'),
  ('["jaxtrain/main.py"]', '["jaxtrain/main.py", "jaxtrain/old.py"]', 'lists "jaxtrain/old.py"; there is no'),
  ('srcs = ["jaxtrain/__init__.py"], data = glob(["jaxtrain/*.js"])', 'srcs = ["jaxtrain/__init__.py"]', "in no data"),
  ('"core", [":package"]', '"core", [":package", ":maths"]', "cycle core -> maths -> core"),
  ('"tests/**/*_test.py"', '"tests/*_test.py"', '"tests/b/c_test" is no py_test that runs tests/b/c_test.py'),
  ('main = "tests/conftest.py"', 'main = "tests/a_test.py"', '"tests/a_test" is no py_test'),
  ("args = [path]", "args = []", '"tests/a_test" is no py_test'),
  ('deps = [":configs", ":core", ', 'deps = [":core", ', '"py_test": add ":configs", to deps'),
  ('deps = [":configs", ":core", ', 'deps = [":main", ":configs", ":core", ', '"py_test": remove ":main", from deps'),
])
def test_bad_build_is_found(old, new, says):
  assert BUILD.count(old) == 1
  found = problems(BUILD.replace(old, new), SOURCES)
  assert any(says in line for line in found), found


@pytest.mark.parametrize(("more", "says"), [
  ('py_library(name = "exp")', "a second target exp"),
  ('py_library(name = "a", srcs = glob(["a/*.py"]))', "nothing matches a/"),
  ("for x in CUT:\n  package()", "For is no part of Starlark"),
  ('py_library(name = f"{CUT}")', "JoinedStr is no part of Starlark"),
])
def test_build_that_bazel_would_refuse_is_refused(more, says):
  with pytest.raises(ValueError, match=says):
    read_build(BUILD + more, SOURCES)


def test_glob_reads_stars():
  assert pattern_of("a/**/*.py").fullmatch("a/b.py") and pattern_of("a/**/*.py").fullmatch("a/b/c/d.py")
  assert not pattern_of("a/*.py").fullmatch("a/b/c.py") and not pattern_of("a/*.py").fullmatch("a/bXpy")
  assert pattern_of("a/**").fullmatch("a/b/c.js") and not pattern_of("*").fullmatch("a/b")


def test_strings_name_what_a_test_starts():
  code = """
import child

def test_a():
  '''Not jaxtrain.exp.vae, this is a docstring.'''
  run("-m", "jaxtrain.sweep")
  run("-c", "from jaxtrain import step")
  read(root / "configs")
"""
  more = {"tests/a_test.py": code, "tests/child.py": "", "jaxtrain/sweep/__init__.py": "",
          "jaxtrain/sweep/__main__.py": ""}
  modules = {f"jaxtrain/{name}.py" for name in ("__init__", "sweep/__init__", "sweep/__main__", "step")}
  assert needed_files("tests/a_test.py", SOURCES | more) == modules | {"configs/vae.py", "tests/child.py"}


def test_a_script_finds_what_lies_beside_it():
  more = {"tests/b/c_test.py": "import near, a", "tests/b/near.py": "", "tests/a.py": "", "tests/other/near.py": ""}
  assert needed_files("tests/b/c_test.py", SOURCES | more) == {"tests/b/near.py", "tests/a.py"}


def old_bazel(folder: pathlib.Path) -> str:
  """Path of a Bazel that takes a WORKSPACE, so needs no network; skips the test where there is none."""
  bazel = shutil.which("bazel")
  if not bazel:
    pytest.skip("bazel is not on PATH (Debian: apt-get install bazel-bootstrap)")
  asked = subprocess.run([bazel, "--version"], cwd=folder, capture_output=True, text=True, timeout=BAZEL_SECONDS)
  version, major = asked.stdout.strip(), re.search(r"bazel (\d+)\.", asked.stdout)  # Debian's 4.2.3 says no_version
  if major and int(major[1]) >= 7:
    pytest.skip(f"{version} resolves MODULE.bazel over the network")
  return bazel


def test_bazel_reads_build(tmp_path):
  bazel, copy, stub = old_bazel(tmp_path), tmp_path / "copy", tmp_path / "stub"
  (stub / "python").mkdir(parents=True)
  for path, text in {"WORKSPACE": "", "python/BUILD": "", "python/defs.bzl": STUB}.items():
    (stub / path).write_text(text, encoding="utf-8")
  copy.mkdir()
  for folder in FOLDERS:
    shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
  for path in ("BUILD", "pyproject.toml"):
    shutil.copy(ROOT / path, copy)
  (copy / "WORKSPACE").write_text('local_repository(name = "rules_python", path = "../stub")\n', encoding="utf-8")

  def query(what: str) -> set[str]:
    command = [bazel, f"--output_user_root={tmp_path / 'bazel'}", "--batch", "query", what]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=BAZEL_SECONDS)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())

  try:
    targets = read_build((ROOT / "BUILD").read_text(encoding="utf-8"), repository(TEXTS))
    assert {f"//:{path}" for path in reached_files("jaxtrain/main", targets)} <= query("deps(//:jaxtrain/main)")
    assert {f"//:{name}" for name in targets} <= query("//:all")
  finally:
    subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=False)  # Bazel leaves read-only files behind
