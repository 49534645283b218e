"""Sweeps of the semantic codec for semantic_compression.py: rates beside theory, Gaussian sources, published findings.

Each `measure_` function takes a folder, in which sweeps are kept and go on, and the flags of the command. It prints a
table in Markdown and returns numbers: [mean, half width of the 95 % interval over seeds].
"""

import glob
import json
import os

import numpy as np

import bench
from jaxtrain import config as config_lib
from jaxtrain.experiments.semantic_compression import behaviour, layout, preservation, schema as schema_lib

CONFIG = "configs/semantic_compression.py"
STATES = {"data.num_states": 12000, "data.split.fractions": (0.6666667, 0.1666667, 0.1666666)}
SHARED = ("--config.data.seed=-1", "--config.log.progress=False")
KINDS, SEEDS, LEVELS = ("entropy", "lattice"), 3, (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
SHOWN = ("bits_per_state", "rmse_percent", "rmse_percent_max", "wrong/role", "wrong/is_defending", "excess_bits")
LINES = {"scalar_line": "excess_bits", "shannon_line": "shannon_gap"}
OTHERS = ("baseline_scalar_bits", "baseline_pca_bits")
GAUSSIAN_LEVELS, DIMS = (1.0, 2.5, 6.0), 16
NETWORKS = {"linear": ("--config.model.hidden_dims=()",), "network": ()}
# A codec has far to turn from one slot a column to the axes of the covariance: at 1e-3 and level 1 it has not after 60
# epochs, whatever its maps.
GAUSSIAN_RATE = "--config.optim.learning_rate=0.01"
FINDING_LEVELS, GROUPED_LEVELS, FINDING_EPOCHS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0), (0.5, 1.0, 2.0), 30
LIGHT_LEVELS = (1.0, 5.0, 20.0)
LIGHT = ("--config.loss.weights.binary=1", "--config.loss.weights.categorical=1")
KEPT = 0.001  # share of wrong values up to which a column is called robust
PUBLISHED_ORDER = ("spatial", "resource", "performance", "status", "role")
SCHEMA = schema_lib.AGENT15


def as_flags(values: dict) -> tuple[str, ...]:
  """Values of config fields as flags."""
  text = lambda value: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
  return tuple(f"--config.{key}={text(value)}" for key, value in values.items())


def read_config():
  """The default config with 8,000 training states."""
  return config_lib.with_values(config_lib.read_file(os.path.join(bench.ROOT, CONFIG)), STATES)


def sweep(folder: str, name: str, levels: tuple[float, ...], given, epochs: int, flags: tuple[str, ...] = (),
          variant: str = "") -> dict[float, list[dict]]:
  """Scalars of the test states of each member by level, in the order of seeds; all as one program."""
  path = os.path.join(folder, name)
  seeds = given.seeds or SEEDS
  found = bench.sweep(path, CONFIG + variant, (
      f"--sweep=seed=0..{seeds - 1}", f"--sweep=model.compressor.level={','.join(map(str, levels))}", *SHARED,
      *as_flags(STATES | {"train.num_epochs": given.train_epochs or epochs}), *flags))
  levels_of = {}
  for config, scalars in found:
    levels_of.setdefault(config["model"]["compressor"]["level"], []).append(scalars)
  return levels_of


def shown(value: list[float], digits: int = 2) -> str:
  """A mean and its half width."""
  return f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"


def say_table(head: tuple[str, ...], rows: list[list[str]]) -> None:
  """Prints a table in Markdown."""
  for cells in (head, ["---"] * len(head), *rows):
    print(f"| {' | '.join(cells)} |")
  print(flush=True)


def intervals(members: list[dict], names: tuple[str, ...]) -> dict[str, list[float]]:
  """Means and half widths of scalars over members."""
  return {name: bench.interval([scalars[name] for scalars in members]) for name in names}


def measure_rates(folder: str, given) -> dict:
  """Rates and errors of both kinds by level, beside theory's lines and other methods at the same errors."""
  found, result, rows = {}, {}, []
  for kind in KINDS:
    found[kind] = sweep(folder, f"rates-{kind}", LEVELS, given, 100, (f"--config.model.compressor.kind={kind}",))
    result[kind] = {}
    for level, members in found[kind].items():
      one = intervals(members, SHOWN)
      one |= {line: bench.interval([scalars["bits_per_state"] - scalars[gap] for scalars in members])
              for line, gap in LINES.items()}
      one |= {f"{name}_excess": bench.interval([scalars[name] - scalars["bits_per_state"] + scalars["excess_bits"]
                                                for scalars in members]) for name in OTHERS}
      one |= intervals(members, (*OTHERS, "baseline_mean_rmse_percent"))
      result[kind][level] = one
      rows.append([kind, f"{level:g}", *(shown(one[name], 5 if "wrong" in name else 3) for name in (*SHOWN, *LINES))])
  say_table(("kind", "level", "bits", "RMSE %", "largest RMSE %", "wrong roles", "wrong is_defending", "excess bits",
             "scalar line", "Shannon's bound"), rows)
  result["lattice_less_entropy_excess"] = paired = {
      level: bench.interval([a["excess_bits"] - b["excess_bits"] for a, b in zip(members, found["entropy"][level])])
      for level, members in found["lattice"].items()}
  say_table(("level", "lattice less entropy, excess bits, paired by seed"),
            [[f"{level:g}", shown(value, 3)] for level, value in paired.items()])
  say_table(("other methods at the errors of kind entropy, level", "scalar + entropy coder, bits", "its excess",
             "PCA + quantiser, bits", "its excess"),
            [[f"{level:g}", *(shown(one[f"{name}{part}"]) for name in OTHERS for part in ("", "_excess"))]
             for level, one in result["entropy"].items()])
  mean = result["entropy"][LEVELS[0]]["baseline_mean_rmse_percent"]
  print(f"The mean of the training states costs no bits and errs by {shown(mean)} % of the range.\n", flush=True)
  return result


def measure_gaussian(folder: str, given) -> dict:
  """The gap to R(D) of a dimension, by network, kind and level."""
  result, rows = {}, []
  for network, flags in NETWORKS.items():
    for kind in KINDS:
      found = sweep(folder, f"gaussian-{network}-{kind}", GAUSSIAN_LEVELS, given, 100, (
          f"--config.model.compressor.kind={kind}", "--config.data.source=gaussian",
          f"--config.data.num_dims={DIMS}", GAUSSIAN_RATE, *flags))
      result[f"{network} {kind}"] = {
          level: intervals(members, ("bits_per_state", "rmse_percent", "gap_per_dimension"))
          for level, members in found.items()}
      for level, one in result[f"{network} {kind}"].items():
        rows.append([network, kind, f"{level:g}", shown([v / DIMS for v in one["bits_per_state"]], 3),
                     shown(one["rmse_percent"], 3), shown(one["gap_per_dimension"], 3)])
  say_table(("maps", "kind", "level", "bits a dimension", "RMSE %", "bits a dimension above R(D)"), rows)
  return result


def measure_findings(folder: str, given) -> dict:
  """What was published of the original, on our codec, with a verdict each."""
  epochs = FINDING_EPOCHS
  plain = sweep(folder, "findings-entropy", FINDING_LEVELS, given, epochs)
  light = sweep(folder, "findings-light", LIGHT_LEVELS, given, epochs, LIGHT)
  grouped = sweep(folder, "findings-grouped", GROUPED_LEVELS, given, epochs, (), ":grouped")
  return {"u_shape": judge_shape(plain), "importance": judge_importance(folder),
          "discrete": {"weights 20": judge_discrete(plain, "20"), "weights 1": judge_discrete(light, "1")},
          "grouped": judge_grouped(plain, grouped)}


def judge_shape(plain: dict[float, list[dict]]) -> dict:
  """Whether what is lost has its least value at level 1: it is compared at neighbouring levels, paired by seed."""
  names = ("bits_per_state", "rmse_percent", "drift", "skill", "excess_bits")
  result = {level: intervals(members, names) for level, members in plain.items()}
  levels = list(plain)
  steps = {f"{b:g} less {a:g}": bench.interval([high["drift"] - low["drift"] for low, high in zip(plain[a], plain[b])])
           for a, b in zip(levels, levels[1:])}
  rises = all(mean - half > 0 for mean, half in steps.values())
  verdict = "refuted: drift rises with every step of the level" if rises else "no monotone rise: see the steps"
  say_table(("level", "bits", "RMSE %", "drift", "skill", "excess bits"),
            [[f"{level:g}", *(shown(one[name], 4) for name in names)] for level, one in result.items()])
  print(f"Least loss of meaning at level 1.0: {verdict} ({steps})\n", flush=True)
  return {"levels": result, "steps": steps, "verdict": verdict}


def importance_of(path: str) -> dict[str, dict[str, float]]:
  """Share of each group, by ruler, of what is lost where its symbols, or values that came back, are dealt out anew.

  Preservation is weighted as published, or its features equally; actions are those of the rule policy.
  """
  slots = layout.make_layout(SCHEMA, len(SCHEMA.columns), {group: 1.0 for group in PUBLISHED_ORDER}, True)
  weight, groups = preservation.group_weights(SCHEMA), preservation.groups_of(SCHEMA)
  published = np.array([weight[one.group] / len(groups[one.group]) for one in SCHEMA.features])
  with np.load(os.path.join(path, "eval", "test-probes.npz")) as arrays:
    drop = arrays["drop"]
  with np.load(os.path.join(path, "eval", "test-rate.npz")) as arrays:
    r = arrays["sample_r"]
  own = np.array(slots.groups)
  by_group = {group: drop[own == group].sum(axis=0) for group in PUBLISHED_ORDER}
  found = {"weights as published": {group: float(lost @ published) for group, lost in by_group.items()},
           "equal weights": {group: float(lost.mean()) for group, lost in by_group.items()}, "actions": {}}
  back, order = schema_lib.decode(SCHEMA, r), np.random.RandomState(0).permutation(len(r))
  for group in PUBLISHED_ORDER:
    members = [column.name for column in SCHEMA.columns if column.group == group]
    mixed = back | {name: back[name][order] for name in members}
    found["actions"][group] = 1 - behaviour.agreement(SCHEMA, back, mixed)[0]
  return {ruler: {group: value / sum(of.values()) for group, value in of.items()} for ruler, of in found.items()}


def judge_importance(folder: str) -> dict:
  """The order of groups by three rulers, at level 1."""
  paths = []
  for path in sorted(glob.glob(os.path.join(glob.escape(folder), "findings-entropy", "runs", "*"))):
    with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
      if json.load(file)["model"]["compressor"]["level"] == 1.0:
        paths.append(path)
  shares = [importance_of(path) for path in paths]
  result, rows = {}, []
  for ruler in shares[0]:
    one = {group: bench.interval([100 * share[ruler][group] for share in shares]) for group in PUBLISHED_ORDER}
    order = sorted(one, key=lambda group: -one[group][0])
    holds = order[:3] == list(PUBLISHED_ORDER[:3])
    result[ruler] = {"percent": one, "order": order, "as_published": holds}
    rows.append([ruler, *(shown(one[group], 1) for group in PUBLISHED_ORDER), "yes" if holds else "no"])
  say_table(("importance in % by", *PUBLISHED_ORDER, "spatial > resource > performance > others"), rows)
  return result


def judge_discrete(levels: dict[float, list[dict]], weight: str) -> dict:
  """Shares of wrong discrete columns, and of wrong bits that follow from a number, by level."""
  wrong_bit = lambda scalars, name: (1 / scalars[f"similarity_{name}"] - 1) ** 2
  result = {level: intervals(members, ("bits_per_state", "rmse_percent", "wrong/role", "wrong/is_defending"))
            | {f"wrong/{name}": bench.interval([wrong_bit(scalars, name) for scalars in members])
               for name in ("is_alive", "threatened")} for level, members in levels.items()}
  say_table((f"level, weights of discrete columns {weight}", "bits", "RMSE %", "wrong roles", "wrong is_defending",
             "wrong is_alive", "wrong threatened"),
            [[f"{level:g}", *(shown(value, 4) for value in one.values())] for level, one in result.items()])
  verdict = {}
  for name in ("role", "is_defending", "is_alive", "threatened"):
    lost = [level for level, one in result.items() if one[f"wrong/{name}"][0] > KEPT]
    verdict[name] = f"wrong in more than {KEPT:g} from level {lost[0]:g} on" if lost else "robust at every level"
  print(f"Robust to compression: {verdict}\n", flush=True)
  return {"levels": result, "verdict": verdict}


def column_rulers() -> dict[str, np.ndarray]:
  """[C] weights of the squared error of numeric columns, of sum 1: equal, by importance, and the grouped codec's own.
  """
  names = SCHEMA.numeric_names
  importance = np.zeros(len(names))
  for one in SCHEMA.features:
    if one.kind == "numeric":
      importance[[names.index(name) for name in one.columns]] += one.weight / len(one.columns)
  factors = {"spatial": 0.5, "resource": 2.0, "performance": 3.0, "status": 5.0}
  own = np.array([factors[SCHEMA.column[name].group] ** -2 for name in names])
  return {name: weight / weight.sum() for name, weight in (
      ("equal", np.ones(len(names))), ("importance", importance), ("grouped's own", own))}


def judge_grouped(plain: dict[float, list[dict]], grouped: dict[float, list[dict]]) -> dict:
  """Error of the grouped codec over that of the plain one at the same bits, the latter's between its levels."""
  result, rows = {}, []
  for ruler, weight in column_rulers().items():
    error = lambda scalars: np.log2(sum(w * scalars[f"rmse_percent/{name}"] ** 2
                                        for w, name in zip(weight, SCHEMA.numeric_names))) / 2
    result[ruler] = {}
    for level, members in grouped.items():
      differences = []
      for seed, scalars in enumerate(members):
        line = sorted((of[seed]["bits_per_state"], error(of[seed])) for of in plain.values())
        bits = scalars["bits_per_state"]
        if not line[0][0] <= bits <= line[-1][0]:
          raise ValueError(f"grouped, level {level:g}: {bits:.1f} bits are outside of the plain codec's levels")
        differences.append(error(scalars) - float(np.interp(bits, *zip(*line))))
      one = {"bits_per_state": bench.interval([scalars["bits_per_state"] for scalars in members]),
             "log2_error_ratio": bench.interval(differences)}
      mean, half = one["log2_error_ratio"]
      one["verdict"] = "better" if mean + half < 0 else "worse" if mean - half > 0 else "undecided"
      result[ruler][level] = one
      rows.append([ruler, f"{level:g}", shown(one["bits_per_state"]),
                   f"{2 ** mean:.3f} ({2 ** (mean - half):.3f} to {2 ** (mean + half):.3f})", one["verdict"]])
  say_table(("squared errors weighted", "level of grouped", "bits", "its error over the plain codec's at equal bits",
             "grouped is"), rows)
  return result
