"""What of a config does not fit: fields that a kind of compressor does not read, and codes that cannot be made."""

from typing import Any

from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import integer_net, layout, quantise
from jaxtrain.experiments.semantic_compression.columns import NUMERIC, Schema
from jaxtrain.nn import lattice

CODED = tuple(kind for kind in quantise.KINDS if kind != "none")
# Fields of model.compressor that some kinds alone read: field -> (kinds, value that stands elsewhere).
DIALS = {"level": (quantise.WITH_LEVEL, 1.0), "lossless": (CODED, False), "lattice": (("lattice",), "e8"),
         "num_side": (("hyperprior",), 4), "prior_dims": (quantise.CONDITIONED, (64,)), "num_codes": (("vq",), 512),
         "num_slots": (("vq",), 1), "residual": (("vq",), False), "levels": (("fsq",), ()),
         "decay": (("vq", "fsq"), 0.99), "revive_below": (("vq",), 0.1)}


def group_levels(given: tuple[str, ...], schema: Schema) -> dict[str, float]:
  """Factors of the level by group of columns, from texts such as `spatial=0.5`; 1 for the others. Raises UserError."""
  found = {layout.group_of(column): 1.0 for column in schema.columns}
  for text in given:
    name, _, value = text.partition("=")
    try:
      factor = float(value)
    except ValueError:
      factor = 0.0
    if name not in found or not 1e-3 <= factor <= 1e3:
      raise UserError(f"config.model.compressor.group_levels: got {text!r}, allowed GROUP=FACTOR with a factor of "
                      f"0.001 to 1000 and a group of {', '.join(found)}")
    found[name] = factor
  return found


def check_dials(settings: Any) -> None:
  """Raises UserError for a field of `config.model.compressor` that is set and that its kind does not read."""
  for field, (kinds, unset) in DIALS.items():
    value = settings[field]
    if settings.kind not in kinds and (tuple(value) if isinstance(unset, tuple) else value) != unset:
      raise UserError(f"config.model.compressor.{field}: got {value!r}, allowed {unset!r} with "
                      f"config.model.compressor.kind={settings.kind}; it is for {' | '.join(kinds)}")


def check(config: Any, schema: Schema, latent: int) -> None:
  """Raises UserError for settings that do not go together; `latent` are the latent dimensions."""
  settings, kind = config.model.compressor, config.model.compressor.kind
  check_dials(settings)
  group_levels(settings.group_levels, schema)
  if kind == "fsq" and config.model.latent_dim:
    raise UserError(f"config.model.latent_dim: got {config.model.latent_dim}, allowed 0 with "
                    "config.model.compressor.kind=fsq, whose levels say how many there are")
  if kind == "vq" and not settings.residual and latent % settings.num_slots:
    raise UserError(f"config.model.compressor.num_slots: got {settings.num_slots}, allowed a divisor of the "
                    f"{latent} latent dimensions, or residual=True")
  numeric = sum(column.kind in NUMERIC for column in schema.columns)
  numbers = numeric if latent >= len(schema.columns) else latent
  if kind == "lattice" and numbers < lattice.DIMENSIONS[settings.lattice]:
    raise UserError(f"config.model.compressor.lattice: got {settings.lattice}, allowed with "
                    f"{lattice.DIMENSIONS[settings.lattice]} slots of numbers or more; there are {numbers}")
  if kind == "previous" and config.data.split.kind == "random":
    raise UserError("config.data.split.kind: got 'random', allowed group | none with "
                    "config.model.compressor.kind=previous, for which the row before a row stays before it")
  widest = 2 * latent + 1 + max(settings.prior_dims, default=0)
  if kind in quantise.CONDITIONED and widest > integer_net.MOST_WIDTH:
    raise UserError(f"config.model.compressor.kind: got {kind} with {latent} latent dimensions, allowed so many that "
                    f"twice their number and the widest of prior_dims are below {integer_net.MOST_WIDTH}")
  if config.loss.target_bits and kind not in quantise.WITH_DENSITY:
    raise UserError(f"config.loss.target_bits: got {config.loss.target_bits:g}, allowed 0 with "
                    f"config.model.compressor.kind={kind}, whose rate has no level")
