"""JSON files: written whole or not at all, read with a complaint in one line."""

import json
from typing import Any

from jaxtrain.errors import UserError
from jaxtrain.workdir import atomic


def write_json(path: str, value: Any) -> None:
  """Writes JSON atomically: a reader sees the old file or the new one."""
  with atomic.replacing(path) as fresh, open(fresh, "w", encoding="utf-8") as file:
    json.dump(value, file, indent=1)
    file.write("\n")


def read_json(path: str) -> Any:
  """Reads JSON; None where the file is missing. Raises UserError for a damaged one."""
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise UserError(f"{path}: no JSON: {error}") from None
