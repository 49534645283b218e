"""Set-up of all tests: CPU, errors on silent broadcasting, one compile cache for the run and its child processes.

Also the main file of the py_test targets in BUILD: `python tests/conftest.py tests/NAME_test.py` runs pytest on a file.
"""

import atexit
import os
import shutil
import sys
import tempfile

import pytest

# Before jax is imported. An explicit choice of platform stands, so that tests for a GPU can be run by name.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
# one folder for the workers and all child processes, gone with the run
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxtrain-tests-")
  atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
for name, value in CACHE_ALL.items():
  os.environ.setdefault(name, value)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")


if __name__ == "__main__":
  sys.exit(pytest.main(sys.argv[1:]))
