"""Names that somebody has mistyped, of columns, files, flags and verbs: which one was meant, and which ones there are.

Standard library alone.
"""

import difflib
import os
from typing import Iterable, Sequence

NEAR = 0.6  # share of letters that two names have in common, from which one is taken for the other
SHORTEST = 3  # letters of a name that counts as found within another
MOST = 12  # names in a list
IN_TUPLE, IN_LIST = "\"('{}',)\"", "'\"{}\"'"  # one name with commas, for a field of names and for a flag of them


def near(name: str, known: Iterable[str]) -> str:
  """The name among those there are that another stands for: one with nearly its letters, in either case, or one that it
  is a part of; empty where there is none.
  """
  by_small = {one.casefold(): one for one in reversed(list(known))}
  small = name.casefold()
  if small in by_small:
    return by_small[small]
  if turned := [one for one in by_small if sorted(one) == sorted(small)]:  # letters that changed places
    return by_small[turned[-1]]
  if close := difflib.get_close_matches(small, by_small, n=1, cutoff=NEAR):
    return by_small[close[0]]
  within = [one for one in by_small if min(len(one), len(small)) >= SHORTEST and (small in one or one in small)]
  return by_small[within[-1]] if within else ""


def meant(name: str, known: Iterable[str]) -> str:
  """Words that suggest the nearest name, to stand behind a complaint; empty where there is none."""
  found = near(name, known)
  return f"; did you mean {found!r}?" if found else ""


def meant_file(path: str) -> str:
  """The same for a path that names no file: the nearest name in its folder, or in the nearest folder."""
  folder, name = os.path.split(path)
  if folder and not os.path.isdir(folder):
    above, last = os.path.split(folder)
    found = near(last, names_in(above))
    return f"; did you mean {os.path.join(above, found)!r}?" if found else ""
  found = near(name, [one for one in names_in(folder) if os.path.splitext(one)[1] == os.path.splitext(name)[1]])
  found = found or near(name, names_in(folder))
  return f"; did you mean {os.path.join(folder, found)!r}?" if found else ""


def names_in(folder: str) -> list[str]:
  """Names in a folder, sorted; none where it cannot be read."""
  try:
    return sorted(os.listdir(folder or "."))
  except OSError:
    return []


def no_run(folder: str) -> str:
  """The complaint that a folder holds no run, or is none; then which one was meant."""
  if os.path.exists(folder):
    return f"{folder!r} holds no run (no config.json)"
  return f"{folder!r} holds no run: there is no such folder{meant_file(folder)}"


def no_column(source: str, name: str, known: Sequence[str], form: str = "") -> str:
  """The complaint that a table has no column of a name: which one was meant, and those that there are.

  `form`: how a name with commas is written where several names are given, which commas separate; empty where one is.
  """
  whole = next((one for one in known if form and "," in one and name in map(str.strip, one.split(","))), "")
  hint = meant(name, known)
  if whole:
    hint = f"; {whole!r} is one column, and is written within quotes: {form.format(whole)}"
  return then(f"{source} has no column {name!r}{hint}", f"it has {listed(known)}")


def then(complaint: str, more: str) -> str:
  """A complaint, which may end in a question, and more words, as one text."""
  return f"{complaint} {more[0].upper()}{more[1:]}" if complaint.endswith("?") else f"{complaint}; {more}"


def quoted(name: str) -> str:
  """A name as it stands in a list: in quotes where it has a comma, or begins or ends with a space."""
  return repr(name) if "," in name or name != name.strip() or not name else name


def listed(names: Sequence[str], most: int = MOST) -> str:
  """Names in a list that stays readable."""
  return ", ".join(map(quoted, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
