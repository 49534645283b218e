"""What all benchmarks have alike: their first flags, and what they do with their results."""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Callable

import numpy as np

MATRIX, PRODUCTS = 1536, 8
PRODUCT = f"""
import json, sys, time, jax
x = jax.random.normal(jax.random.key(0), ({MATRIX}, {MATRIX}))
product = jax.jit(lambda v: v @ v)
product(x).block_until_ready()
seconds = []
for _ in range({PRODUCTS}):
  began = time.perf_counter()
  product(x).block_until_ready()
  seconds.append(time.perf_counter() - began)
json.dump(2 * {MATRIX} ** 3 / min(seconds), open(sys.argv[1], "w"))
"""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)  # what imports this module imports the jaxtrain of this clone


def make_parser(doc: str) -> argparse.ArgumentParser:
  """A parser with the flags that all benchmarks have."""
  parser = argparse.ArgumentParser(description=doc.splitlines()[0])
  parser.add_argument("--json", default="", help="file to write the results to")
  parser.add_argument("--rounds", type=int, default=3)
  return parser


def peer_parser(doc: str, loops: tuple[str, ...]) -> argparse.ArgumentParser:
  """A parser of a script with the loops of peers: the table, the loop, epochs, and the file for its seconds."""
  parser = argparse.ArgumentParser(description=doc.splitlines()[0])
  parser.add_argument("--table", required=True)
  parser.add_argument("--loop", choices=loops, required=True)
  parser.add_argument("--epochs", type=int, default=5)
  parser.add_argument("--out", required=True)
  return parser


def peer_flags(doc: str, loops: tuple[str, ...]) -> argparse.Namespace:
  """The flags of `peer_parser`, for a script that has no others."""
  return peer_parser(doc, loops).parse_args()


def tell(results: dict, path: str) -> None:
  """Prints results as JSON, and writes them to a file where a path is given."""
  print(json.dumps(results, indent=1), flush=True)
  if path:
    with open(path, "w", encoding="utf-8") as file:
      json.dump(results, file, indent=1)


def pinned(command: list[str], core: int, environ: dict[str, str] | None = None) -> subprocess.Popen:
  """Starts a command on one core."""
  return subprocess.Popen(command, cwd=ROOT, env=os.environ | (environ or {}), stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core}))


def finish(process: subprocess.Popen) -> None:
  """Waits for a process; an error ends the benchmark with what it printed."""
  _, err = process.communicate()
  if process.returncode:
    sys.exit(f"{process.args}: exit {process.returncode}\n{err[-2000:]}")


def run_pinned(command: list[str], core: int) -> None:
  """Runs a command on one core to its end."""
  finish(pinned(command, core))


def rate_of_products(folder: str, core: int) -> float:
  """Operations per second of one large matrix product on a core, in this minute."""
  out = os.path.join(folder, "product.json")
  run_pinned([sys.executable, "-c", PRODUCT, out], core)
  with open(out, encoding="utf-8") as file:
    return json.load(file)


def kept(folder: str, name: str, make: Callable[[], list | dict]) -> list | dict:
  """What `make()` returns, JSON-able, kept in a file of the folder: one that is there is read and nothing is made.

  The file appears whole, so that what was begun and not ended is made again.
  """
  path = os.path.join(folder, f"{name.replace(' ', '_')}.json")
  if not os.path.exists(path):
    result = make()
    with open(f"{path}.part", "w", encoding="utf-8") as file:
      json.dump(result, file)
    os.replace(f"{path}.part", path)
  with open(path, encoding="utf-8") as file:
    return json.load(file)


def check_given(folder: str, given: dict) -> None:
  """Writes what the answers of a folder are about, or ends the program where they are about something else."""
  begun = os.path.isdir(folder) and os.listdir(folder)
  if begun and not os.path.exists(os.path.join(folder, "given.json")):
    sys.exit(f"--folder: {folder!r} holds answers and no given.json that says what about; choose another folder")
  os.makedirs(folder, exist_ok=True)
  found = kept(folder, "given", lambda: given)
  if wrong := [name for name in given if name not in found or found[name] != given[name]]:
    sys.exit(f"--folder: {folder!r} holds answers with another {', '.join(wrong)}; choose another folder")


def spread(values: list[float]) -> dict:
  """Median and range."""
  return {"median": statistics.median(values), "range": [min(values), max(values)]}


def member_folders(folder: str) -> list[tuple[dict, str]]:
  """(config, folder) of each member of a sweep that is assessed, by seed."""
  found = []
  for path in sorted(glob.glob(os.path.join(glob.escape(folder), "runs", "*", "eval", "test.json"))):
    own = os.path.dirname(os.path.dirname(path))
    with open(os.path.join(own, "config.json"), encoding="utf-8") as file:
      found.append((json.load(file), own))
  return sorted(found, key=lambda member: member[0]["seed"])


def members(folder: str) -> list[tuple[dict, dict]]:
  """(config, scalars of the test rows) of each member of a sweep, by seed."""
  found = []
  for config, own in member_folders(folder):
    with open(os.path.join(own, "eval", "test.json"), encoding="utf-8") as file:
      found.append((config, json.load(file)["scalars"]))
  return found


def sweep(folder: str, config: str, flags: tuple[str, ...]) -> list[tuple[dict, dict]]:
  """The members of a sweep, trained where they are not yet."""
  command = [sys.executable, "-m", "jaxtrain.sweep", f"--config={config}", f"--workdir={folder}",
             "--config.log.figures=none", *flags]
  finish(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
  return members(folder)


def interval(values: list[float]) -> list[float]:
  """[mean, half width of its 95 % interval by Student's t]."""
  from jaxtrain import statistics as of_seeds
  return [float(np.mean(values)), of_seeds.t_half_width(np.asarray(values))]


def say_row(*cells) -> None:
  """Prints a row of a table in Markdown; [mean, half width] becomes one cell."""
  text = lambda cell: f"{cell[0]:.4g} ± {cell[1]:.2g}" if isinstance(cell, list) else str(cell)
  print(f"| {' | '.join(map(text, cells))} |", flush=True)


def run_parts(parser: argparse.ArgumentParser, parts: dict[str, Callable]) -> None:
  """Measures the parts that flags of their names choose, or the first, and tells the results.

  Args:
    parser: with the flags of the benchmark's own.
    parts: name -> `(folder, flags) -> results`.
  """
  for name in parts:
    parser.add_argument(f"--{name}", action="store_true")
  parser.add_argument("--core", type=int, default=0)
  parser.add_argument("--folder", default="", help="keeps what is trained")
  parser.add_argument("--torch_python", default=sys.executable, help="a Python with torch")
  given = parser.parse_args()
  chosen = [name for name in parts if getattr(given, name)] or [next(iter(parts))]
  with tempfile.TemporaryDirectory() as folder:
    if given.folder:
      folder = os.path.abspath(given.folder)
      os.makedirs(folder, exist_ok=True)
    tell({name: parts[name](folder, given) for name in chosen}, given.json)
