"""Where tables come from: simulated, shipped with Python packages, or the user's own; and their columns by role.

A table's features stand in the order outcomes, instruments, covariates; its label is the treatment, -1 where that is
not recorded. Outcomes keep their scale up to a shift and a factor, because effects are differences of their means.
"""

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxtrain import config as config_lib
from jaxtrain.config.defaults import TABLES
from jaxtrain.data import tables, tabular
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_consistency import benchmarks, generators
from jaxtrain.types import Batch, Splits

ROLES = ("outcomes", "instruments", "covariates")
AFFINE = ("identity", "standardise", "min_max")
KNOWN = (*generators.GENERATORS, *benchmarks.READERS)  # sources whose columns and hidden treatments are known
# What simulates and hides: field -> (sources that read it, values that stand where it is not read).
DIALS = {"num_classes": (("multiclass", "iv"), (2,)), "instrument_dim": (("iv",), (1,)),
         "instrument_strength": (("iv",), (1.0,)), "hidden_confounding": (("iv",), (1.0,)),
         "simulation": (("acic2016",), (1,)), "num_samples": (generators.GENERATORS, (1000,)),
         "noise_std": (generators.GENERATORS, (0.1,)), "confounding": (generators.GENERATORS, (1.0,)),
         "missing_mechanism": (KNOWN, ("mcar",)), "missing_rate": (KNOWN, (0.0, 0.5)), "mnar_strength": (KNOWN, (0.5,)),
         "seed": (KNOWN, (0,))}
FEW = 20  # classes that any treatment may have; a longer table may have as many as a tenth of its recorded rows


def make_rows(config) -> tuple[generators.Draw, dict[str, tuple[str, ...]], dict]:
  """(rows, names of columns by role with `treatment`, facts) of a source of `KNOWN`. Raises UserError.

  A simulated table has `data.num_samples` rows that train beside those of the other parts.
  """
  data = config.data
  check_dials(data)
  seed = data.seed if data.seed >= 0 else config.seed
  if data.source in benchmarks.READERS:
    made, named, facts = benchmarks.read(data, seed)
    return made, named, {"source": data.source} | facts
  share = data.split.fractions[0] if data.split.kind == "random" else 1.0
  made = generators.draw(data, round(data.num_samples / max(share, 1e-6)), seed)
  return made, generators.names(data), {"source": f"simulated, {data.source}"}


def read_known(config) -> tables.Table:
  """The table of a source of `KNOWN`, with what is true of its rows. Raises UserError."""
  made, named, facts = make_rows(config)
  num_classes = config.data.num_classes
  label = np.where(made.observed, made.y, -1).astype(np.int32)
  facts = facts | {"rows": len(label), "rows_unlabelled": int((label < 0).sum()),
                   "class_rows": np.bincount(label[label >= 0], minlength=num_classes).tolist(),
                   "columns": {role: list(named[role]) for role in ROLES} | {"treatment": named["treatment"][0]}}
  return tables.Table(np.concatenate([made.z, made.w, made.x], axis=1), sum((named[role] for role in ROLES), ()), label,
                      tuple(map(str, range(num_classes))), None, facts,
                      truth={"true_label": made.y} | ({} if made.mean is None else {"true_mean": made.mean}))


def check_dials(data) -> None:
  """Raises UserError for a dial that is set and that the source does not read: it would do nothing."""
  for field, (sources, unset) in DIALS.items():
    if data.source not in sources and data[field] not in unset:
      raise UserError(f"config.data.{field}: got {data[field]!r}, allowed {unset[0]!r} with config.data.source="
                      f"{data.source}; it is a dial of {' | '.join(sources)}")


def split_columns(columns: dict[str, list[str]], batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(x, w, z) of a batch's columns [B, D]: covariates, instruments, outcomes."""
  first = len(columns["outcomes"])
  second = first + len(columns["instruments"])
  return batch["x"][:, second:], batch["x"][:, first:second], batch["x"][:, :first]


def table_config(config, columns: dict[str, tuple[str, ...]], leave_out: tuple[str, ...]):
  """The config as families with one table have it: features of all roles, the treatment as label."""
  data = ConfigDict(TABLES)
  with data.ignore_type():
    data.update({name: config.data[name] for name in TABLES if name in config.data})
  data.features, data.label = sum((columns[role] for role in ROLES), ()), config.data.treatment
  data.leave_out = leave_out
  whole = ConfigDict({"data": data, "train": config.train, "eval": config.eval})
  return whole.lock()


def load(config) -> Splits:
  """Sources of each part; `meta` has the names of columns by role, and `treatment`. Raises UserError."""
  data = config.data
  if data.source in KNOWN:
    for field in ("treatment", "outcomes", "instruments"):
      if data[field]:
        raise UserError(f"config.data.{field}: got {data[field]!r}, allowed nothing with config.data.source="
                        f"{data.source}, whose columns are known")
    table = choose_covariates(read_known(config), tuple(data.features), tuple(data.leave_out))
    none = {role: () for role in ROLES}  # are named: all that the table has
    found, table = tabular.load(table_config(config, none, ()), {data.source: lambda _: table})
    columns = table.facts["columns"]
  else:
    check_dials(data)
    wanted = {"outcomes": tuple(data.outcomes), "instruments": tuple(data.instruments),
              "covariates": tuple(data.features)}
    for field, value in (("treatment", data.treatment), ("outcomes", data.outcomes), ("features", data.features)):
      if not value:
        raise UserError(f"config.data.{field}: got {value!r}, allowed the name of a column, such as "
                        f"--config.data.{field}={'treated' if field == 'treatment' else 'a,b'}")
    read = {data.source: lambda _: read_function(config, wanted)} if "." in data.source else {}
    found, table = tabular.load(table_config(config, wanted, tuple(data.leave_out)), read)
    columns = by_role(table.feature_names, wanted) | {"treatment": data.treatment}
    check_treatment(table, data.treatment)
  check_outcomes(found.meta["scaler"], columns["outcomes"])
  check_classes(found.train, table.class_names)
  facts = found.meta["table"] | {"unlabelled": "with a hidden treatment"}  # as messages call such rows
  return found._replace(meta=found.meta | {name: columns[name] for name in (*ROLES, "treatment")} | {"table": facts})


def choose_covariates(table: tables.Table, names: tuple[str, ...], leave_out: tuple[str, ...]) -> tables.Table:
  """A table of known columns with the named covariates alone, but for those left out."""
  if not names and not leave_out:
    return table
  columns = table.facts["columns"]
  fixed = (*columns["outcomes"], *columns["instruments"])
  chosen = tables.match(columns["covariates"], names or tuple(columns["covariates"]), (), table.facts["source"],
                        "features")
  dropped = tables.match(list(chosen), leave_out, (), table.facts["source"], "leave_out")
  chosen = tuple(name for name in chosen if name not in dropped)
  if not chosen:
    raise UserError(f"config.data.leave_out: got {leave_out}, which leaves no covariates of {table.facts['source']}")
  table = tables.select_features(table, (*fixed, *chosen), ())
  return table._replace(facts=table.facts | {"columns": columns | {"covariates": list(chosen)}})


def read_function(config, wanted: dict[str, tuple[str, ...]]) -> tables.Table:
  """The table of a function of the user's, its columns by role; its labels are the treatment."""
  source = config.data.source
  table = tabular.check_made(source, config_lib.load_function("data.source", source)(config))
  if table.label is None:
    raise UserError(f"config.data.source: {source}(config) returned a table without labels, which are the treatment")
  return tables.select_features(table, sum((wanted[role] for role in ROLES), ()), tuple(config.data.leave_out))


def by_role(names: tuple[str, ...], wanted: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
  """Names of a table's features by role. Patterns are of covariates alone; raises UserError for another."""
  outcomes, instruments = len(wanted["outcomes"]), len(wanted["instruments"])
  found = {"outcomes": list(names[:outcomes]), "instruments": list(names[outcomes:outcomes + instruments]),
           "covariates": list(names[outcomes + instruments:])}
  for role in ("outcomes", "instruments"):
    if tuple(found[role]) != wanted[role]:
      raise UserError(f"config.data.{role}: got {wanted[role]}, allowed the names of columns, no patterns")
  if not found["covariates"]:
    raise UserError(f"config.data.features: got {wanted['covariates']}, which leaves no covariates")
  return found


def check_outcomes(scaler: dict, outcomes: list[str]) -> None:
  """Raises UserError for an outcome that is not scaled by a shift and a factor."""
  for name, transform in zip(outcomes, scaler["transforms"]):
    if transform not in AFFINE:
      raise UserError(f"config.data.transforms: got {transform!r} for the outcome {name!r}, allowed "
                      f"{' | '.join(AFFINE)}: effects are differences of its mean; write the other scale into a column")


def check_treatment(table: tables.Table, name: str) -> None:
  """Raises UserError for a treatment of so many different values that they are no classes, such as a dose."""
  rows = int((table.label >= 0).sum())
  most = max(FEW, rows // 10)
  if len(table.class_names) > most:
    raise UserError(f"config.data.treatment: column {name!r} has {len(table.class_names):,} different values in "
                    f"{rows:,} recorded rows, allowed up to {most:,} classes: cut it into a few")


def check_classes(train, class_names: tuple[str, ...]) -> None:
  """Raises UserError where the training rows have no recorded treatment of a class: nothing would say which it is."""
  label = train.rows(np.arange(train.num_rows))["label"]
  rows = np.bincount(label[label >= 0], minlength=len(class_names))
  empty = [name for name, count in zip(class_names, rows) if not count]
  if empty:
    raise UserError(f"data: no training row has the recorded treatment {empty[0]!r}; without one nothing says which "
                    f"class it is ({int(rows.sum())} of {len(label)} training rows have a recorded treatment)")
