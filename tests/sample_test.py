"""The parts into which CI divides the slow tests: each test is in one, and fast tests are in all."""

import os
from types import SimpleNamespace

import pytest

import child


@pytest.fixture
def conftest(request):
  """The module tests/conftest.py, as pytest has imported it."""
  path, plugins = os.path.join(child.ROOT, "tests", "conftest.py"), request.config.pluginmanager.get_plugins()
  return next(plugin for plugin in plugins if getattr(plugin, "__file__", "") == path)


class Item:
  """A collected test, as far as it is looked at."""

  def __init__(self, nodeid, slow):
    self.nodeid, self.slow = nodeid, slow

  def get_closest_marker(self, name):
    return name if self.slow and name == "slow" else None


def test_each_slow_test_is_in_one_part_and_fast_tests_in_all(conftest):
  items = [Item(f"tests/a_test.py::test[{k}]", k % 3 > 0) for k in range(300)]
  seen = []
  for part in range(10):
    left_out = []
    config = SimpleNamespace(getoption=lambda name: (part, 10),
                             hook=SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items)))
    kept = list(items)
    conftest.pytest_collection_modifyitems(config, kept)
    assert len(kept) + len(left_out) == 300 and all(item.slow for item in left_out)
    assert sum(not item.slow for item in kept) == 100
    seen += [item.nodeid for item in kept if item.slow]
  assert len(seen) == len(set(seen)) == 200


def test_without_the_flag_all_tests_run(conftest):
  items = [Item("a", True), Item("b", False)]
  conftest.pytest_collection_modifyitems(SimpleNamespace(getoption=lambda name: None), items)
  assert len(items) == 2


@pytest.mark.parametrize("text", ["10/10", "-1/10", "3", "a/b", "0/0"])
def test_what_is_no_part_is_refused(text, conftest):
  assert conftest.parse_sample("9/10") == (9, 10)
  with pytest.raises(ValueError):
    conftest.parse_sample(text)
