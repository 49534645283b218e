"""Which fields of a config are read, for the test that each is: what nothing reads must not be there.

A field counts as read where its own name is asked for. What passes over all fields alike (checking limits, copying,
writing the config down) does not count.
"""

import contextlib
import functools
from typing import Any, Iterator, Mapping
from unittest import mock

from ml_collections import ConfigDict

from jaxtrain import config as config_lib, jsonable
from jaxtrain.config import fields

ALIKE = ("__init__", "__setitem__", "__eq__", "to_dict", "copy_and_resolve_references", "update")
PATH = "_path_of_section"


class Record(dict):
  """A config as JSON gives it to pages, which notes the fields that are read of it."""

  def __init__(self, record: Mapping[str, Any], read: set[str], path: str = ""):
    super().__init__({key: Record(value, read, f"{path}{key}.") if isinstance(value, Mapping) else value
                      for key, value in record.items()})
    self.read, self.path = read, path

  def __getitem__(self, key):
    self.read.add(self.path + key)
    return super().__getitem__(key)

  def get(self, key, default=None):
    return self[key] if key in self else default


@contextlib.contextmanager
def noted() -> Iterator[set[str]]:
  """Gives the set of dotted fields that are read of any config while this lasts."""
  read, passing = set(), []  # `passing` is not empty while something passes over all fields
  get = ConfigDict.__getitem__

  def get_and_note(section, key):
    value = get(section, key)
    path = (vars(section)[PATH] if PATH in vars(section) else "") + key
    if isinstance(value, ConfigDict):
      object.__setattr__(value, PATH, path + ".")
    elif not passing:
      read.add(path)
    return value

  def alike(function):
    @functools.wraps(function)
    def unnoted(*args, **kwargs):
      passing.append(function)
      try:
        return function(*args, **kwargs)
      finally:
        passing.pop()
    return unnoted

  with contextlib.ExitStack() as stack:
    stack.enter_context(mock.patch.object(ConfigDict, "__getitem__", get_and_note))
    for name in ALIKE:
      stack.enter_context(mock.patch.object(ConfigDict, name, alike(getattr(ConfigDict, name))))
    for module in (fields, config_lib):
      for name in ("assign", "optimisers"):
        stack.enter_context(mock.patch.object(module, name, alike(getattr(fields, name))))
    flatten = jsonable.flatten
    stack.enter_context(mock.patch.object(jsonable, "flatten", alike(lambda *args: list(flatten(*args)))))
    yield read
