"""BUILD against the source: each file in one target, deps that are the imports, a py_test for each test, no cycles.

BUILD is kept by hand; a failure says which line to add or remove. What it uses of Starlark is Python syntax, so `ast`
reads it. Where Bazel is installed, it reads the file too (offline, with a stub of rules_python).
"""

import ast
import pathlib
import re
import shutil
import subprocess
import textwrap
from typing import NamedTuple

import pytest

import jaxtrain

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("jaxtrain", "configs", "launch", "tests")
CONFTEST = "tests/conftest.py"
# Tests about the repository itself quote code: only their imports count, not their strings.
ABOUT_REPOSITORY = ("tests/build_test.py", "tests/layout_test.py")
COMMANDS = tuple(f"jaxtrain/{name}.py" for name in ("pools", "predict", "search", "serve", "sweep"))  # beside main
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


class Target(NamedTuple):
  """A rule of BUILD: its kind, line, and the attributes that are lists of strings or a string."""
  kind: str
  line: int
  srcs: list[str]
  deps: list[str]
  data: list[str]
  args: list[str]
  main: str


def read_build(text: str) -> dict[str, Target]:
  """Targets by name. Raises ValueError for what is no plain list of rules, or a name used twice."""
  targets = {}
  for node in ast.parse(text).body:
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Constant):
      continue
    if not isinstance(call, ast.Call):
      raise ValueError(f"BUILD:{node.lineno}: a rule is expected")
    kind = ast.unparse(call.func)
    if kind not in ("py_library", "py_binary", "py_test"):
      continue
    values = {"srcs": [], "deps": [], "data": [], "args": [], "main": ""}
    values |= {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    if values["name"] in targets:
      raise ValueError(f"BUILD:{node.lineno}: a second target {values['name']}")
    targets[values["name"]] = Target(kind, node.lineno, *(values[field] for field in Target._fields[2:]))
  return targets


def repository() -> dict[str, str]:
  """Text by path of all Python files of the repository."""
  paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
  return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def names_in_code(path: str, tree: ast.AST) -> set[str]:
  """Dotted names that code imports; `from a import b` gives `a.b`."""
  package, names = path.split("/")[:-1], set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = package[:len(package) + 1 - node.level] if node.level else []
      base += [node.module] if node.module else []
      names |= {".".join([*base, alias.name]) for alias in node.names}
  return names


def names_in_strings(tree: ast.AST) -> set[str]:
  """Dotted names of modules that strings mention: experiments of a config, commands and code that a test starts."""
  names, documents = set(), (ast.Module, ast.ClassDef, ast.FunctionDef)
  docstrings = {id(node.body[0].value) for node in ast.walk(tree)
                if isinstance(node, documents) and ast.get_docstring(node) is not None}
  for node in ast.walk(tree):
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)) or id(node) in docstrings:
      continue
    names |= set(re.findall(r"\bjaxtrain(?:\.\w+)+", node.value))
    names |= {name.replace("/", ".").removesuffix(".py") for name in re.findall(r"\bconfigs/\w+(?:\.py)?", node.value)}
    if "configs" in node.value.split("/"):
      names.add("configs")
    if "import " in node.value:
      try:
        names |= names_in_code("", ast.parse(textwrap.dedent(node.value)))
      except SyntaxError:
        continue
  return names


def needed_files(path: str, sources: dict[str, str]) -> set[str]:
  """Files of the repository that a file imports, with the `__init__.py` that an import runs on its way."""
  tree = ast.parse(sources[path])
  names = names_in_code(path, tree)
  if not path.startswith("jaxtrain/") and path not in ABOUT_REPOSITORY:
    names |= names_in_strings(tree)
  by_name = {other.removesuffix(".py").removesuffix("/__init__").replace("/", "."): other for other in sources}
  by_name["configs"] = next((other for other in sources if other.startswith("configs/")), "")
  if path.startswith("tests/"):  # pyproject.toml puts tests/ on the path of its helpers
    by_name |= {name.removeprefix("tests."): other for name, other in by_name.items() if name.startswith("tests.")}
  needed = set()
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


def true_deps(target: Target, targets: dict[str, Target], sources: dict[str, str]) -> set[str]:
  """Labels of the targets whose files a target's files import."""
  of_file = owners(targets)
  needed = set().union(*(needed_files(path, sources) for path in target.srcs if path in sources)) - set(target.srcs)
  return {f":{of_file[path][0]}" for path in needed if path in of_file}


def wanted_test(path: str, deps: set[str]) -> str:
  """The py_test of a test file, as it stands in BUILD."""
  lines = [f'"{dep}",' for dep in sorted(deps)]
  several = "\n".join(["[", *(f"        {line}" for line in lines), "    ]"])
  listed = f"[{lines[0][:-1]}]" if len(lines) == 1 else several
  name = path.removesuffix(".py")
  data = '[\n        "pyproject.toml",\n        ":tree",\n    ]' if path in ABOUT_REPOSITORY else '["pyproject.toml"]'
  srcs = "".join(f'        "{src}",\n' for src in sorted((CONFTEST, path)))
  return (f'py_test(\n    name = "{name}",\n    srcs = [\n{srcs}    ],\n    args = ["{path}"],\n'
          f'    data = {data},\n    main = "{CONFTEST}",\n' + (f"    deps = {listed},\n" if lines else "") + ")\n")


def wrong_files(targets: dict[str, Target], sources: dict[str, str]) -> list[str]:
  """Files in no target or in several, targets with files that are not there, tests without their py_test."""
  found, of_file = [], owners(targets)
  for path in sources:
    if path.endswith("_test.py"):
      name, srcs = path.removesuffix(".py"), sorted([CONFTEST, path])
      deps = true_deps(Target("py_test", 0, [path], [], [], [], ""), targets, sources)
      if name not in targets:
        found.append(f"BUILD: add\n\n{wanted_test(path, deps)}")
        continue
      test = targets[name]
      if (test.kind, sorted(test.srcs), test.args, test.main) != ("py_test", srcs, [path], CONFTEST):
        found.append(f"BUILD:{test.line}: not the test of {path}; make it\n\n{wanted_test(path, deps)}")
    elif path != CONFTEST and path not in of_file:
      folder = path.rpartition("/")[0]
      near = sorted({name for other, names in of_file.items() if other.rpartition("/")[0] == folder for name in names})
      where = f"to srcs of {' or '.join(near)}" if near else "to srcs of a new py_library"
      found.append(f'BUILD: add "{path}", {where}')
    elif len(of_file.get(path, [])) > 1:
      found.append(f'BUILD: "{path}" is in {" and ".join(of_file[path])}; remove it from all but one')
  for name, target in targets.items():
    for path in target.srcs:
      if path not in sources:
        found.append(f'BUILD:{target.line}: {target.kind} "{name}": remove "{path}", from srcs; there is no such file')
    if target.kind == "py_test" and f"{name}.py" not in sources:
      found.append(f'BUILD:{target.line}: remove py_test "{name}"; there is no {name}.py')
  return found


def wrong_deps(targets: dict[str, Target], sources: dict[str, str]) -> list[str]:
  """Differences between deps and the imports."""
  found = []
  for name, target in targets.items():
    want = true_deps(target, targets, sources)
    where = f'BUILD:{target.line}: {target.kind} "{name}"'
    found += [f'{where}: add "{dep}", to deps' for dep in sorted(want - set(target.deps))]
    found += [f'{where}: remove "{dep}", from deps; nothing imports it' for dep in sorted(set(target.deps) - want)]
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
          found.append(f"BUILD:{targets[start].line}: cycle {' -> '.join((*chain, name))}")
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


def lost_files(targets: dict[str, Target], sources: dict[str, str]) -> list[str]:
  """Modules that the command `main` needs and its target does not reach; experiments come through the configs."""
  have = reached_files("main", targets)
  want = {path for path in sources if path.startswith("jaxtrain/") and path not in COMMANDS}
  of_file = owners(targets)
  lost = sorted({of_file[path][0] for path in want - have if path in of_file})
  return [f'BUILD:{targets["main"].line}: py_binary "main": nothing leads to ":{name}"; a config that names its '
          f'experiment does, through data = [":configs"]' for name in lost]


def problems(text: str, sources: dict[str, str]) -> list[str]:
  """All that is wrong with a BUILD."""
  targets = read_build(text)
  return (wrong_files(targets, sources) + wrong_deps(targets, sources) + cycles(targets)
          + lost_files(targets, sources))


def test_build_agrees_with_the_source():
  found = problems((ROOT / "BUILD").read_text(encoding="utf-8"), repository())
  assert not found, "\n" + "\n".join(found)


def test_module_has_the_version_of_the_package():
  assert f'version = "{jaxtrain.__version__}"' in (ROOT / "MODULE.bazel").read_text(encoding="utf-8")


SOURCES = {"jaxtrain/__init__.py": "", "jaxtrain/types.py": "", "jaxtrain/step.py": "from jaxtrain.types import Batch",
           "jaxtrain/main.py": "def main():\n  from jaxtrain import step", "jaxtrain/exp/__init__.py": "",
           "jaxtrain/exp/vae.py": "from jaxtrain import step", "configs/vae.py": "x = 'jaxtrain.exp.vae'",
           CONFTEST: "", "tests/a_test.py": "'''On jaxtrain.main.'''\nimport jaxtrain.types\nrun('configs/vae.py')"}
BUILD = """
load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")
py_library(name = "core", srcs = ["jaxtrain/__init__.py", "jaxtrain/types.py"])
py_library(name = "maths", srcs = ["jaxtrain/step.py"], deps = [":core"])
py_library(name = "exp", srcs = ["jaxtrain/exp/__init__.py", "jaxtrain/exp/vae.py"], deps = [":core", ":maths"])
py_library(name = "configs", srcs = ["configs/vae.py"], deps = [":core", ":exp"])
py_binary(name = "main", srcs = ["jaxtrain/main.py"], data = [":configs"], deps = [":core", ":maths"])
""" + wanted_test("tests/a_test.py", {":configs", ":core"})


def test_good_build_passes():
  assert problems(BUILD, SOURCES) == []


@pytest.mark.parametrize(("old", "new", "says"), [
    ('["jaxtrain/step.py"], deps = [":core"]', '["jaxtrain/step.py"]', '"maths": add ":core", to deps'),
    ('data = [":configs"], deps = [', 'data = [":configs"], deps = [":exp", ', '"main": remove ":exp", from deps'),
    ('[":configs"], deps = [":core", ":maths"]', '[":configs"], deps = [":core"]', '"main": add ":maths", to deps'),
    ('data = [":configs"]', "data = []", 'nothing leads to ":exp"'),
    ('deps = [":core", ":exp"]', 'deps = [":core"]', '"configs": add ":exp", to deps'),
    ('"jaxtrain/exp/vae.py"]', "]", 'add "jaxtrain/exp/vae.py", to srcs of exp'),
    ('"jaxtrain/exp/vae.py"]', '"jaxtrain/exp/vae.py", "jaxtrain/step.py"]', "remove it from all but one"),
    ('["jaxtrain/step.py"]', '["jaxtrain/step.py", "jaxtrain/old.py"]', 'remove "jaxtrain/old.py", from srcs'),
    ('name = "core",', 'name = "core", data = [":maths"],', "cycle core -> maths -> core"),
    ('name = "tests/a_test"', 'name = "tests/b_test"', 'name = "tests/a_test",'),
    ('name = "tests/a_test"', 'name = "tests/b_test"', 'remove py_test "tests/b_test"'),
    ('main = "tests/conftest.py"', 'main = "tests/a_test.py"', "not the test of tests/a_test.py"),
    ('args = ["tests/a_test.py"]', "args = []", "not the test of tests/a_test.py"),
    ('        ":configs",\n', "", '"tests/a_test": add ":configs", to deps'),
])
def test_bad_build_is_found(old, new, says):
  assert BUILD.count(old) == 1
  found = problems(BUILD.replace(old, new), SOURCES)
  assert any(says in line for line in found), found


def test_strings_name_what_a_test_starts():
  code = """
import child

def test_a():
  '''Not jaxtrain.exp.vae, this is a docstring.'''
  run("-m", "jaxtrain.main")
  run("-c", "from jaxtrain import step")
  read(root / "configs")
"""
  needed = needed_files("tests/a_test.py", SOURCES | {"tests/a_test.py": code, "tests/child.py": ""})
  modules = {f"jaxtrain/{name}.py" for name in ("__init__", "main", "step")}
  assert needed == modules | {"configs/vae.py", "tests/child.py"}


def test_second_target_of_a_name_is_refused():
  with pytest.raises(ValueError, match="second target core"):
    read_build(BUILD + 'py_library(name = "core")\n')


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
    targets = read_build((ROOT / "BUILD").read_text(encoding="utf-8"))
    assert {f"//:{path}" for path in reached_files("main", targets)} <= query("deps(//:main)")
    tests = {f"//:{name}" for name, target in targets.items() if target.kind == "py_test"}
    assert tests <= query("deps(//:all)")
  finally:
    subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=False)  # Bazel leaves read-only files behind
