"""What fields mean: the comments that stand with them where a config file sets them, or `defaults.py` for all.

  config.model.dim = 128  # width of a token
  # heads of each attention layer
  config.model.num_heads = 8
  config.loss.weights = {
      "edge": 1.0,  # cross-entropy of the edges
  }

A field's meaning is the comment behind it, else the lines of comment right above it. Where a file sets a field several
times, the first comment counts: later ones say why a variant has another value. The file is read, not run.
"""

import ast
import functools
import io
import os
import pathlib
import tokenize
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from jaxtrain.config import defaults

OF_TABLES = {"source", "path", "encoding", "split"}  # fields of `data` of every experiment that reads tables
MOST_BYTES = 1 << 20  # of a config file that is read for its comments
SECTIONS = ("dict", "ConfigDict")  # functions whose call is a section: of a dict, or of keyword arguments


class Comment(NamedTuple):
  """A comment: the column of its `#`, its text, and whether it has a line of its own."""
  column: int
  text: str
  alone: bool


def read_comments(source: str) -> dict[int, Comment]:
  """The comment of each line that has one."""
  found = {}
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      line, column = token.start
      found[line] = Comment(column, token.string.lstrip("#").strip(), not token.line[:column].strip())
  return found


def beside(comments: Mapping[int, Comment], node: ast.AST) -> str:
  """What is said of a node: the comment behind it, with further lines below that comment, else the lines above it."""
  def run(line: int, step: int, column: int) -> list[str]:
    texts = []
    while line in comments and comments[line].alone and comments[line].column == column:
      texts.append(comments[line].text)
      line += step
    return texts[::step]
  for line in (node.end_lineno, node.lineno):
    if line in comments and not comments[line].alone:
      return " ".join([comments[line].text, *run(line + 1, 1, comments[line].column)])
  return " ".join(run(node.lineno - 1, -1, node.col_offset))


def fields_in(key: str, value: ast.AST, place: ast.AST, named: Mapping[str, ast.Dict]) -> Iterator[tuple[str, ast.AST]]:
  """(dotted key, where it is set) of the fields that a value gives: one, or those of a section.

  Args:
    key: of the value; empty for the whole config.
    place: the node that the comment of a single field stands with.
    named: dicts of the file by name, which a section may be.
  """
  value = named[value.id] if isinstance(value, ast.Name) and value.id in named else value
  if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] in SECTIONS:
    for keyword in value.keywords:
      if keyword.arg:
        yield from fields_in(f"{key}.{keyword.arg}".lstrip("."), keyword.value, keyword, named)
    value = value.args[0] if value.args else value
  if isinstance(value, ast.Dict):
    for name, entry in zip(value.keys, value.values):
      if isinstance(name, ast.Constant) and isinstance(name.value, str):
        spot = ast.copy_location(ast.Pass(), name)
        spot.end_lineno = entry.end_lineno
        yield from fields_in(f"{key}.{name.value}".lstrip("."), entry, spot, named)
  elif key:
    yield key, place


def dotted(target: ast.AST, aliases: Mapping[str, str]) -> str | None:
  """The dotted key that `config.a.b` or `config.a["b"]` names; a variable has the key it was assigned from."""
  if isinstance(target, ast.Name):
    return aliases[target.id] if target.id in aliases else ""
  if isinstance(target, ast.Attribute):
    above, name = dotted(target.value, aliases), target.attr
  elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
    above, name = dotted(target.value, aliases), target.slice.value
  else:
    return None
  return None if above is None or not isinstance(name, str) else f"{above}.{name}".lstrip(".")


def assigned(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, ast.AST]]:
  """(target, value, statement) of the assignments of a file, in the order of its lines; tuples are taken apart."""
  statements = [node for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value]
  for node in sorted(statements, key=lambda node: node.lineno):
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
      if isinstance(target, ast.Tuple):
        many = isinstance(node.value, ast.Tuple) and len(node.value.elts) == len(target.elts)
        yield from zip(target.elts, node.value.elts if many else [node.value] * len(target.elts),
                       [node] * len(target.elts))
      else:
        yield target, node.value, node


def dicts(tree: ast.AST) -> dict[str, ast.Dict]:
  """The dicts that a file gives names."""
  return {target.id: value for target, value, _ in assigned(tree)
          if isinstance(target, ast.Name) and isinstance(value, ast.Dict)}


def of_source(source: str) -> dict[str, str]:
  """Dotted key -> meaning, of the fields that the source of a config file sets with a comment, in their order."""
  tree, comments, found, aliases = ast.parse(source), read_comments(source), {}, {}
  named = dicts(tree)
  for target, value, statement in assigned(tree):
    if isinstance(target, ast.Name):
      key = dotted(value, aliases) if isinstance(value, (ast.Attribute, ast.Subscript)) else ""
      aliases[target.id] = key or ""
      continue
    for key, place in fields_in(dotted(target, aliases) or "", value, statement, named):
      if key not in found and (text := beside(comments, place)):
        found[key] = text
  return found


def of_file(path: str) -> dict[str, str]:
  """The same of a config file; {} for one that cannot be read, or is no source of Python."""
  try:
    if not path.endswith(".py") or not os.path.isfile(path) or os.path.getsize(path) > MOST_BYTES:
      return {}
    with tokenize.open(path) as file:
      return of_source(file.read())
  except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
    return {}


def of_config(argument: str) -> dict[str, str]:
  """The same of the config file of FILE or FILE:variant, for fields that are not shared: what a run notes."""
  found = of_file(argument.partition(":")[0])
  return {key: text for key, text in found.items() if key.startswith("data.") or shared_key(key) not in of_all()}


def of_command(argv: Sequence[str]) -> dict[str, str]:
  """The same of the config file that a command line of an older run names; {} where it names none."""
  for word, after in zip(argv, [*argv[1:], ""]):
    name, is_set, value = word.partition("=")
    if name in ("-config", "--config"):
      return of_config(value if is_set else after)
  return {}


def of_run(made: Mapping[str, Any]) -> dict[str, str]:
  """The same by what a run's run.json holds: as the run has noted it, else of the file that its command line named, by
  which runs of before are known.
  """
  if isinstance(made.get("meanings"), dict):
    return made["meanings"]
  return of_command([str(word) for word in made["argv"]]) if isinstance(made.get("argv"), list) else {}


@functools.cache
def of_all() -> Mapping[str, str]:
  """The same of the fields that all experiments share, and of those of tables."""
  source = pathlib.Path(defaults.__file__).read_text(encoding="utf-8")
  named, comments = dicts(ast.parse(source)), read_comments(source)
  return {key: beside(comments, place) for name, section in (("DEFAULTS", ""), ("TABLES", "data"))
          for key, place in fields_in(section, named[name], named[name], named)}


def shared_key(key: str) -> str:
  """The key of a field among those that all share: fields of each optimiser's section are those of `optim`."""
  parts = key.split(".")
  for depth, part in enumerate(parts[:-1]):
    if part == "optim" or part.startswith("optim_"):
      return ".".join(["optim", *parts[depth + 1:]])
  return key


def of_tables(keys: Iterable[str]) -> bool:
  """Whether the section `data` of a config with these fields is that of `tables()`, perhaps without some of them."""
  return OF_TABLES <= {key.split(".")[1] for key in keys if key.startswith("data.")}


def explain(keys: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
  """Dotted key -> meaning of the fields that have one.

  Args:
    keys: of all fields of a config.
    own: meanings of its file, for fields that are not shared; a shared field means the same everywhere.
  """
  keys = list(keys)
  has_tables = of_tables(keys)
  known = {key: text for key, text in of_all().items() if has_tables or not key.startswith("data.")}
  found = {}
  for key in keys:
    name = shared_key(key)
    text = known[name] if name in known else own[key] if key in own else ""
    if text and isinstance(text, str):  # what a run has noted is data
      found[key] = text
  return found
