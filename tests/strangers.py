"""A workdir as a stranger may have left it: records with values that name code, or that are of another shape.

`mutated` changes a record at a few places that follow from a number, `damage` a file of a run or of a sweep.
"""

import copy
import json
import os
import pathlib
import random
from typing import Any

from jaxtrain.workdir import records

MARK = "a stranger's code was run"
NAMES = ("evil", "evil.run", "evil.Loader", "runs.x.evil", "runs.x.evil.run", "os.system", "subprocess.call",
         "builtins.exec", "builtins.eval", "pickle.loads", "antigravity.fly", "this.s", "jaxtrain.experiments.evil",
         "jaxtrain.experiments.tabular_vae.evil", "jaxtrain.experiments.tabular_vae", "jaxtrain.experiments..evil",
         "jaxtrain.experiments.../evil", "jaxtrain.experiments.tabular_vae.vae:evil", "jaxtrain.sweep.slurm.queued",
         "jaxtrain.experiments.tabular_vae.vae.evil", "jaxtrain.experiments.tabular_vae.nets", "jaxtrain.predict",
         ".evil", "evil.", "..", "../runs/x/evil", "__import__('evil')", "evil\n", "evil\0.run")
SHAPES = (None, True, 0, -1, 1, 2 ** 70, -2 ** 63, 0.5, 1e308, float("nan"), float("inf"), "", "²", "x" * 300, [], {},
          [[]], [None], [{}], {"": {}}, {"a.b": 1}, {"items": 1}, {"experiment": "evil.run"}, [{"experiment": "evil"}])
OVERRIDES = ({"experiment": "evil.run"}, {"data": {"source": "evil.Loader"}}, {"data.source": "evil.Loader"},
             {"loss": {"extra": ["evil.run"]}}, {"eval": {"metrics": ["evil.run"]}},
             {"stages": [{"experiment": "evil"}]},
             {"experiment": "jaxtrain.experiments.tabular_vae.evil"}, {"train": {"num_epochs": 1}})
CODE = (("experiment",), ("data", "source"), ("loss", "extra"), ("eval", "metrics"), ("stages",), ("log", "families"))


def places(value: Any, path: tuple = ()) -> list[tuple]:
  """Paths of all entries of a record."""
  items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
  return [place for key, entry in items for place in [(*path, key), *places(entry, (*path, key))]]


def hostile(draw: random.Random) -> Any:
  """A value that names code or is of some other shape."""
  one = lambda: copy.deepcopy(draw.choice((*NAMES, *SHAPES)))
  return draw.choice((one, lambda: draw.choice(NAMES), lambda: [draw.choice(NAMES)],
                      lambda: [copy.deepcopy(draw.choice(OVERRIDES)) for _ in range(draw.randint(1, 3))],
                      lambda: {"a": one()}))()


def has(record: Any, key: Any) -> bool:
  """Whether a key leads on from a record."""
  return key in record if isinstance(record, dict) else \
      isinstance(record, list) and isinstance(key, int) and key < len(record)


def put(record: dict, path: tuple, value: Any) -> None:
  """Sets the entry at a path, if what is above it is there."""
  for key in path[:-1]:
    if not has(record, key):
      return
    record = record[key]
  if isinstance(record, dict) or has(record, path[-1]):
    record[path[-1]] = value


def mutated(record: dict, seed: int) -> dict:
  """The record with one to three changes that follow from a number; half of them are at fields that name code."""
  draw, record = random.Random(seed), copy.deepcopy(record)
  for _ in range(draw.randint(1, 3)):
    known = places(record)
    path = draw.choice(CODE) if draw.random() < 0.5 or not known else draw.choice(known)
    if draw.random() < 0.1 and len(path) == 1:
      record.pop(path[0], None)
    elif draw.random() < 0.1:
      put(record, (*path[:-1], draw.choice(("new", "items", "a.b", "²"))), hostile(draw))
    else:
      put(record, path, hostile(draw))
  return record


def damage(folder: str, seed: int) -> str:
  """Changes a file of a run or sweep as follows from a number; returns its name."""
  draw = random.Random(seed)
  root = pathlib.Path(folder)
  found = sorted(path for kind in ("*.json", "*.jsonl", "*.csv", "metadata") for path in root.rglob(kind)
                 if "state" not in path.parts and not any(parent.is_symlink() for parent in path.parents))
  first = [path for path in found if path.name in ("config.json", "sweep.json", "journal.jsonl")]
  path = draw.choice(first if draw.random() < 0.6 else found)
  text, kind = path.read_text(encoding="utf-8"), draw.random()
  if kind < 0.15:
    path.write_bytes(draw.choice((b"", b"[]", b"5", b"null", b'"x"', b"{", b"\xff\xfe\0", text.encode()[:-9],
                                  b"[" * 100_000)))
  elif path.suffix == ".csv":
    path.write_text(draw.choice((text.replace(",", ";"), text.replace("epoch", "evil", 1), "a,b\n1,2\n", text + "x\n")))
  elif path.suffix == ".jsonl":
    lines = text.splitlines()
    k = draw.randrange(len(lines))
    lines[k] = json.dumps(mutated(json.loads(lines[k]), seed))
    path.write_text("\n".join(lines) + "\n")
  else:
    record = mutated(json.loads(text), seed)
    if path.name == "metadata" and "record_digest" in record:  # a stranger can count too
      record["record_digest"] = records.digest_record(record)
    path.write_text(json.dumps(record))
  return os.path.relpath(path, folder)


def plant(folder: pathlib.Path) -> None:
  """Puts code into a folder that leaves a mark when it is imported: `evil` and `runs.x.evil`."""
  (folder / "runs" / "x").mkdir(parents=True)
  for path in (folder / "evil.py", folder / "runs" / "x" / "evil.py"):
    path.write_text(f"open({str(folder / 'mark')!r}, 'w').write({MARK!r})\nrun = Loader = print\n")
