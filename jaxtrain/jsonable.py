"""Values that JSON can hold: dotted keys, digests, numbers that are not finite, files. Standard library alone."""

import hashlib
import json
import math
from typing import Any, Iterator, Mapping


def clean(value: Any) -> Any:
  """JSON-able copy; NaN and infinities become their names, because JSON has no such numbers."""
  if isinstance(value, dict):
    return {str(k): clean(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [clean(v) for v in value]
  if hasattr(value, "item"):
    value = value.item()
  return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def number(value: Any) -> float | None:
  """A number of a JSON file, where NaN and infinities are names; None for anything else."""
  try:
    return None if isinstance(value, bool) else float(value)
  except (TypeError, ValueError):
    return None


def is_count(text: str) -> bool:
  """Whether text is a whole number from 0 up as Python writes it; `²` and `007` are digits too, and none."""
  return text.isascii() and text.isdigit() and len(text) < 19 and str(int(text)) == text


def exact(value: Any) -> str:
  """A value as it is typed in a config, where the lists of JSON are tuples."""
  return f"({', '.join(map(exact, value))}{',' * (len(value) == 1)})" if isinstance(value, list) else repr(value)


def flatten(record: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """(dotted key, value) of every field of nested mappings, in their order; an empty one has none."""
  for key, value in record.items():
    if isinstance(value, Mapping) or hasattr(value, "items"):  # a ConfigDict is no Mapping
      yield from flatten(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


def digest_json(value: Any) -> str:
  """SHA-256 of a JSON-able value, hexadecimal; dicts with the same entries have the same in any order."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
