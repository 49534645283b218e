"""Errors that end a command and their exit codes; optional libraries. Needs the standard library alone."""

import importlib

DONE, FAILED, USAGE, NONFINITE, WATCHDOG, REQUEUE = 0, 1, 2, 3, 4, 85


class Stopped(Exception):
  """The run was asked to stop and is saved; its text says by what."""


class NonFinite(Exception):
  """Training met a value that is not finite and halts."""


class UserError(ValueError):
  """A mistake in a flag, config, file or workdir: shown as one to four lines without a traceback; exit code 2."""


def need(module: str, extra: str):
  """An optional library. Raises UserError that names the extra to install."""
  try:
    return importlib.import_module(module)
  except ImportError:
    raise UserError(f"{module} is not installed; pip install 'jaxtrain[{extra}]'") from None
