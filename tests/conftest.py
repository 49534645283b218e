"""Set-up of all tests: CPU, errors on silent broadcasting, one compile cache, runs made once, samples of slow tests.

Also the main file of the py_test targets in BUILD: `python tests/conftest.py tests/NAME_test.py` runs pytest on a file.
"""

import atexit
import gc
import os
import pathlib
import shutil
import sys
import tempfile
import zlib
from importlib.metadata import version

import pytest

# Before jax is imported. An explicit choice of platform stands, so that tests for a GPU can be run by name.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# These take longest, and are handed to the workers first: one that came last would leave the others idle.
LONGEST = ("configs_test", "main_test", "loop_test", "kill_test", "command_test", "game_test", "readme_test",
           "figures_test", "diffusion_ae_test", "predict_test", "run_page_test", "objectives_test")
CACHE_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
# one folder for the workers and all child processes, gone with the run
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxtrain-tests-")
  atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
for name, value in CACHE_ALL.items():
  os.environ.setdefault(name, value)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every child process would compile the package again

# Most of the fast tests' time is XLA's. What this leaves out of its work makes programs slower and the tests faster.
# The slow ones compile as a user's commands do, and so do tests of several devices. Workers and children inherit it.
# Newer versions of XLA do not know the first flag.
is_first = "PYTEST_XDIST_WORKER" not in os.environ
if is_first and "slow" not in sys.argv and "XLA_FLAGS" not in os.environ and version("jaxlib") < "0.11":
  os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
  os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"

# Python looks for unreachable cycles after each 700 new objects; a worker holds millions, and makes few of them.
gc.set_threshold(100_000)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser: pytest.Parser) -> None:
  """--sample=K/N: part K of the slow tests, of N parts."""
  parser.addoption("--sample", type=parse_sample, metavar="K/N",
                   help="of the slow tests those whose CRC-32 of the name is K modulo N; all others as they are")


def parse_sample(text: str) -> tuple[int, int]:
  """(K, N) of K/N. Raises ValueError for what is no such part."""
  part, num_parts = map(int, text.split("/"))
  if not 0 <= part < num_parts:
    raise ValueError(f"got {text}, allowed K/N with 0 <= K < N")
  return part, num_parts


def in_sample(name: str, part: int, num_parts: int) -> bool:
  """Whether a test of this name belongs to a part; each belongs to one."""
  return zlib.crc32(name.encode()) % num_parts == part


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
  """Puts the files that take longest first, and leaves out the slow tests of other parts than --sample names."""
  stem = lambda item: pathlib.PurePath(item.nodeid.partition("::")[0]).stem
  items.sort(key=lambda item: LONGEST.index(stem(item)) if stem(item) in LONGEST else len(LONGEST))
  sample = config.getoption("--sample")
  if sample is None:
    return
  left_out = [item for item in items if item.get_closest_marker("slow") and not in_sample(item.nodeid, *sample)]
  config.hook.pytest_deselected(items=left_out)
  items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
  """Runs made once in this session, for all workers: `runs.Shared`."""
  import runs
  folder = pathlib.Path(tmp_path_factory.getbasetemp())
  return runs.Shared((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared")


if __name__ == "__main__":
  sys.exit(pytest.main(sys.argv[1:]))
