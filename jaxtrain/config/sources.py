"""Where configs and overrides come from: config files, their variants and sweeps, environment variables."""

import importlib.util
import os
from typing import Any, Mapping

from ml_collections import ConfigDict

from jaxtrain import spelling
from jaxtrain.config import fields
from jaxtrain.errors import UserError


def read_file(argument: str) -> ConfigDict:
  """The config of FILE or FILE:variant. A config file is code: it is run because the user named it.

  Raises:
    UserError: no such file, a file that fails or has no get_config, an unknown variant.
  """
  variant = argument.partition(":")[2]
  def get(module):
    return module.get_config(variant) if variant else module.get_config()
  config = call_file(argument, get)
  if not isinstance(config, ConfigDict):
    raise UserError(f"--config: get_config of {argument.partition(':')[0]!r} returned {type(config).__name__}, allowed "
                    "ConfigDict")
  return config


def list_variants(path: str) -> list[str]:
  """Names of the variants of a config file, which keeps them in VARIANTS; the first is its default."""
  return call_file(path, lambda module: list(module.VARIANTS) if hasattr(module, "VARIANTS") else [])


def read_sweep(argument: str, name: str) -> Any:
  """What `sweep(name)` of a config file returns. Raises UserError where there is no such function or it fails."""
  def get(module):
    if not hasattr(module, "sweep"):
      raise UserError("it has no function sweep(name), which --name asks for")
    return module.sweep(name)
  return call_file(argument, get)


def call_file(argument: str, get) -> Any:
  """`get(module)` of the config file in FILE or FILE:variant. Raises UserError for whatever fails."""
  path = argument.partition(":")[0]
  if not path:
    raise UserError("--config: required, such as --config=configs/vae.py")
  if not os.path.isfile(path):
    raise UserError(f"--config: no such file {path!r}"
                    f"{spelling.meant_file(path) or '; commands run from a clone, which holds configs/'}")
  if not path.endswith(".py"):
    raise UserError(f"--config: got {path!r}, allowed a Python file with a function get_config")
  spec = importlib.util.spec_from_file_location("jaxtrain_config_file", path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    return get(module)
  except UserError as error:
    raise UserError(f"--config={argument}: {error}") from None
  except Exception as error:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise UserError(f"--config: {path!r} is no config file: {reason[:200]}") from None


def from_environment(config: ConfigDict, environ: Mapping[str, str]) -> dict[str, Any]:
  """Overrides named by variables such as TRAIN__NUM_EPOCHS=20 or OPTIM__PLATEAU__FACTOR=0.5.

  Variables whose first part is no section of the config are ignored.

  Raises:
    UserError: a known section and an unknown field (with a suggestion), or a value of another type.
  """
  overrides = {}
  for name in sorted(environ):
    parts = name.split("__")
    if name != name.upper() or len(parts) < 2 or not all(parts):
      continue
    parts = [part.lower() for part in parts]
    if not isinstance(config.get(parts[0]), ConfigDict):
      continue
    section, path = config, []
    for part in parts:
      if not isinstance(section, ConfigDict) or part not in section:
        known = list(section.keys()) if isinstance(section, ConfigDict) else []
        hint = fields.suggestion(part, known, ".".join(path))
        if "did you mean" in hint:
          right = hint.rsplit("config.", 1)[1].rstrip("?")
          hint = f"; did you mean {right.upper().replace('.', '__')}?"
        raise UserError(f"environment variable {name}: no field config.{'.'.join(parts)}{hint}")
      section = section[part]
      path.append(part)
    if isinstance(section, ConfigDict):
      raise UserError(f"environment variable {name}: config.{'.'.join(parts)} is a section, not a field")
    overrides[".".join(parts)] = fields.parse_like(section, environ[name], f"environment variable {name}")
  return overrides


def pick_variant(variant: str, variants: Mapping[str, Any], what: str = "config variant") -> Any:
  """The named entry of a config file's variants, or of its sweeps. Raises UserError that lists them."""
  if variant not in variants:
    raise UserError(f"{what}: got {variant!r}, allowed {', '.join(variants)}{spelling.meant(variant, variants)}")
  return variants[variant]
