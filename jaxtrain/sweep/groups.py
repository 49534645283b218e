"""Members of a sweep as one program: which of them belong together.

Two members are of one group where tracing one gives the program of the other: the same initialisation, step and
evaluations with the values of traceable fields as arguments, the same cadences, the same shapes of data. Data that is
one object for all is there once; other data (folds, resamples) is stacked along the members' axis.
"""

import functools
import hashlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import config as config_lib, jsonable
from jaxtrain.errors import UserError
from jaxtrain.run import packing, setup
from jaxtrain.run.setup import Parts, assemble, shapes
from jaxtrain.sweep import program as program_lib
from jaxtrain.sweep.program import Compiled, Program


class Spec(NamedTuple):
  """A member to train: its number, resolved config and folder, where the values of its config came from, and what the
  fields of its config file mean.
  """
  number: int
  config: Any
  workdir: str
  origins: dict[str, str]
  meanings: dict[str, str] = {}


class Group(NamedTuple):
  """Members of one program.

  Attributes:
    specs: the members; parts: what follows from the config of each, one object for those that share it.
    fields: dotted keys of the arguments, those traceable fields that differ anywhere in the sweep.
    shared: whether all have the same data.
  """
  specs: list[Spec]
  parts: list[Parts]
  fields: tuple[str, ...]
  shared: bool

  def compiled(self, num_places: int, num_devices: int, exact: bool) -> Compiled:
    """The functions of the group for so many members at a time."""
    return Compiled(Program(self.parts[0], self.fields), self.shared, num_places, num_devices, exact)


def group(specs: list[Spec], fields: tuple[str, ...] | None = None) -> list[Group]:
  """Groups of members, in the order of their first ones.

  Args:
    specs: the members.
    fields: of the groups, where they were decided before; None: those that differ.

  Raises:
    UserError: a member cannot be trained among others (mode, micro-batches, data that is not there at once, stages).
  """
  flat = [dict(jsonable.flatten(config_lib.to_record(spec.config))) for spec in specs]
  if fields is None:
    traceable = [key for key in flat[0] if config_lib.is_traceable(specs[0].config, key)
                 and all(key in f for f in flat)]
    fields = tuple(key for key in traceable if len({f[key] for f in flat}) > 1)
  assembled: dict[str, tuple[Parts, str] | None] = {}
  groups: dict[str, Group] = {}
  for spec, values in zip(specs, flat):
    try:
      check(spec)
      parts, signature = parts_of(spec.config, values, fields, assembled)
    except UserError as error:
      raise UserError(f"member {spec.number:03d}: {error}") from None
    found = groups.setdefault(signature, Group([], [], fields, True))
    found.specs.append(spec)
    found.parts.append(parts)
  return [found._replace(shared=is_shared(found.parts)) for found in groups.values()]


def is_shared(all_parts: list[Parts]) -> bool:
  """Whether the data of all is the same, by identity or else by content."""
  different = {id(parts): parts for parts in all_parts}.values()
  return len(different) == 1 or len({data_digest(parts) for parts in different}) == 1


def check(spec: Spec) -> None:
  """Raises UserError for a config that only a run of its own can have."""
  config = spec.config
  wrong = [(key, allowed) for key, allowed, fits in (
      ("parallel.mode", "jit", config.parallel.mode == "jit"), ("train.microbatch", "0", not config.train.microbatch),
      ("stages", "()", not config.stages), ("parallel.watchdog_seconds", "0", not config.parallel.watchdog_seconds),
      ("train.num_members", "1", config.train.num_members == 1),
      ("eval.assess_every_epochs", "0", not config.eval.assess_every_epochs),
      ("eval.assess_every_steps", "0", not config.eval.assess_every_steps),
      ("log.tensorboard", "False", not config.log.tensorboard)) if not fits]
  if wrong:
    key, allowed = wrong[0]
    raise UserError(f"config.{key}: got {config_lib.lookup(config, key)!r}, allowed {allowed} with --launcher=vmap; "
                    "--launcher=local starts each member by itself")


def parts_of(config, values: dict, fields: tuple[str, ...],
             assembled: dict[str, tuple | None]) -> tuple[Parts, str]:
  """(parts of a config, signature of its program), kept in `assembled`.

  Configs that differ in traced fields and seed alone share parts; where an experiment reads the seed in `load` or
  `make`, each has its own.
  """
  fixed = {key: value for key, value in values.items() if key not in (*fields, "seed")}
  static = json.dumps(fixed, sort_keys=True)
  for with_seed in (False, True):
    key = f"{static}/{config.seed if with_seed else ''}"
    if key not in assembled:
      try:
        parts = assemble(config if with_seed else without_seed(config), one_device=True)
      except AttributeError:
        if with_seed:
          raise
        assembled[key] = None  # the seed is read: not tried again for the next member
        continue
      setup.check_one_program(config, parts.splits, "--launcher=vmap; --launcher=local starts each member by itself")
      assembled[key] = parts, sign(parts, fields)
    if assembled[key] is not None:
      return assembled[key]
  raise AssertionError("a config with its seed has parts, or assembling them has failed")


def without_seed(config):
  """The config without its seed: reading it is an AttributeError."""
  copy = config.copy_and_resolve_references()
  with copy.unlocked():
    del copy.seed
  return copy


def sign(parts: Parts, fields: tuple[str, ...]) -> str:
  """SHA-256 of all that is traced or compiled for a member, and of its cadences."""
  hypers = {field: jax.ShapeDtypeStruct((), jnp.float32) for field in fields}
  program = Program(parts, fields)
  key, step = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)
  data = shapes(parts.splits.train.data)
  traced = [jax.make_jaxpr(program.init)(key, hypers, data)]
  traced.append(jax.make_jaxpr(functools.partial(program.repeat, exact=True))(
      parts.abstract, parts.totals, hypers, jax.ShapeDtypeStruct((), bool), data, step))
  for part in program_lib.PARTS[1:]:
    if program.source(part) is not None:
      traced.append(jax.make_jaxpr(program.evaluate(part))(parts.abstract, hypers, shapes(program.source(part).data)))
  if parts.experiment.observe is not None:
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    means = {name: scalar for name in program.observed()}
    traced.append(jax.make_jaxpr(program.observe)(parts.abstract, hypers, means, jax.ShapeDtypeStruct((), bool)))
  words = hashlib.sha256(repr(parts.plan).encode())
  for jaxpr in traced:
    words.update(str(jaxpr).encode())
    for const in consts_of(jaxpr):
      words.update(np.asarray(const).tobytes())
  return words.hexdigest()


def consts_of(jaxpr) -> list:
  """Constants of a closed jaxpr and of those inside it."""
  found = list(jaxpr.consts)
  for equation in jaxpr.jaxpr.eqns:
    for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "consts")):
      found += consts_of(value) if hasattr(value, "consts") else []
  return found


def data_digest(parts: Parts) -> str:
  """SHA-256 of the data of all parts."""
  words = hashlib.sha256()
  for path, leaf in sorted(packing.named_leaves([source.data for source in parts.splits[:3] if source]).items()):
    words.update(path.encode() + np.asarray(leaf).tobytes())
  return words.hexdigest()
