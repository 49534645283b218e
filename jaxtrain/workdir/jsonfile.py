"""JSON files: written whole or not at all, read with a complaint in one line."""

import contextlib
import json
import os
from typing import Any

from jaxtrain.errors import UserError
from jaxtrain.workdir import atomic, lines, schema


def write_json(path: str, value: Any) -> None:
  """Writes JSON atomically: a reader sees the old file or the new one. A file that holds just this stays as it is, with
  its time.
  """
  text = json.dumps(value, indent=1) + "\n"
  with contextlib.suppress(OSError, ValueError):
    if not os.path.islink(path) and os.path.getsize(path) == len(text) and lines.read_file(path) == text.encode():
      return
  with atomic.replacing(path) as fresh, open(fresh, "w", encoding="utf-8") as file:
    file.write(text)


def read_object(path: str, fields: schema.Fields) -> dict[str, Any] | None:
  """Reads a JSON object; None where the file is missing.

  Args:
    path: of the file.
    fields: those that it must have, unless they are optional, and their kinds; others are left alone.

  Raises:
    UserError: the file holds no object of these fields.
  """
  try:
    found = lines.parse_object(lines.read_file(path).decode())
    return schema.check_known(found, fields, "it")
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise UserError(f"{path} is damaged ({error}); restore it, or choose another workdir") from None
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from None
