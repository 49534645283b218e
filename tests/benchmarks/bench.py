"""What all benchmarks have alike: their first flags, and what they do with their results."""

import argparse
import json


def make_parser(doc: str) -> argparse.ArgumentParser:
  """A parser with the flags that all benchmarks have."""
  parser = argparse.ArgumentParser(description=doc.splitlines()[0])
  parser.add_argument("--json", default="", help="file to write the results to")
  parser.add_argument("--rounds", type=int, default=3)
  return parser


def tell(results: dict, path: str) -> None:
  """Prints results as JSON, and writes them to a file where a path is given."""
  print(json.dumps(results, indent=1), flush=True)
  if path:
    with open(path, "w", encoding="utf-8") as file:
      json.dump(results, file, indent=1)
