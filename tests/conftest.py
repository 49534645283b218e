"""Set-up of all tests: CPU, errors on silent broadcasting, one compile cache for the run and its child processes.

Also the main file of the py_test targets in BUILD: `python tests/conftest.py tests/NAME_test.py` runs pytest on a file.
"""

import os
import sys

import pytest

# Before jax is imported. An explicit choice of platform stands, so that tests for a GPU can be run by name.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
if "JAX_COMPILATION_CACHE_DIR" in os.environ:
  for name, value in CACHE_ALL.items():
    os.environ.setdefault(name, value)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory):
  """Folder of compiled programs that child processes share, by the environment they inherit.

  Where JAX_COMPILATION_CACHE_DIR is set (.ci/run does) this process uses it too; else it is a temporary folder for the
  children alone, as jax has read its environment already.
  """
  with pytest.MonkeyPatch.context() as patch:
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
      patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compile_cache")))
    for name, value in CACHE_ALL.items():
      if name not in os.environ:
        patch.setenv(name, value)
    yield os.environ["JAX_COMPILATION_CACHE_DIR"]


if __name__ == "__main__":
  sys.exit(pytest.main(sys.argv[1:]))
