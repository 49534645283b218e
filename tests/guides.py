"""README and the guides, found by glob, and what stands in them: fenced blocks, commands, tables."""

import pathlib
import re
import shlex

import child
from jaxtrain import commands, config as config_lib, main

ROOT = pathlib.Path(child.ROOT)
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("README.md")
               if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts))
VAE, CAUSAL, EFFECTS, CODECS, COLLIDER = (
    f"jaxtrain/experiments/{family}/README.md"
    for family in ("tabular_vae", "causal_discovery", "causal_consistency", "semantic_compression", "autoencoder"))
SWEEP = "jaxtrain/sweep/README.md"


def read(page: str) -> str:
  """The text of a page."""
  return (ROOT / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
  """The text of a page from a heading to its end."""
  return read(page).split(f"{heading}\n", 1)[1]


def blocks(text: str, language: str = "") -> list[str]:
  """Fenced blocks of a language, "" for those of commands."""
  return [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
          if kind == language]


def command_lines(page: str) -> list[str]:
  """Every command of jaxtrain in the fenced blocks of a page, continued lines joined, without comments."""
  text = "\n".join(blocks(read(page))).replace("\\\n", " ")
  found = [line.partition(" #")[0].strip() for line in text.splitlines()]
  return [line[line.index("python -m jaxtrain"):] for line in found if "python -m jaxtrain" in line]


def rows(page: str, header: str) -> list[tuple[str, str]]:
  """(left, right as code) of each row of the table whose header line begins so."""
  table = read(page).split(header)[1].split("\n\n")[0]
  return re.findall(r"^\| (.*?) \| `(.*?)` \|$", table, re.MULTILINE)


def modules(page: str) -> dict[str, str]:
  """Python blocks by the file name in their first line."""
  return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", read(page), re.DOTALL))


def config_of(flags: list[str]):
  """The checked config of flags of main."""
  return config_lib.resolve(main.read_config(commands.parse(main.make_flags(), ["main", *flags], ""))[0])


def run_lines(block: str, folder: pathlib.Path) -> None:
  """Runs the lines `python -m jaxtrain.COMMAND FLAGS` of a block in a folder."""
  for line in block.strip().splitlines():
    _, _, module, *flags = shlex.split(line)
    done = child.run(*flags, command=module.removeprefix("jaxtrain."), cwd=str(folder))
    assert done.returncode == 0, (line, done.stderr)


def write_modules(page: str, folder: pathlib.Path) -> dict[str, str]:
  """Writes a page's own modules into a folder; returns the environment that finds them."""
  for name, text in modules(page).items():
    (folder / name).write_text(text, encoding="utf-8")
  return {"PYTHONPATH": str(folder)}
