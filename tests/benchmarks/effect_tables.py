"""Effects that are known: the joint model beside other methods on IHDP, ACIC 2016 and NSW, and with hidden treatments.

  python tests/benchmarks/effect_tables.py --folder=runs/effects --json=effects.json
  python tests/benchmarks/effect_tables.py --hidden --folder=runs/effects --json=hidden.json

  --tables  errors of the average effect, |estimate - truth|, and of the effects of rows, the root of their mean squared
            error (sqrt PEHE), on ihdp_a and ihdp_b (--draws of them), acic2016 (ten simulations), and nsw_cps (the
            effect on the treated, whose estimate by the trial itself is known)
  --hidden  half of the treatments of ihdp_a and ihdp_b hidden, by covariates alone (x) and by covariates and outcome
            (xz): which share of what deletion loses the model wins back,
            (sum of deletion's sqrt PEHE - sum of the model's) / (sum of deletion's - sum of the oracle's)

Rows: 90 % are fitted (own), 10 % are held out (held); a method that gives an average alone is held to the held-out
average too. All methods without a network fit the same rows (effect_baselines.py). Deletion is the same network, and
the same steps, on rows with a recorded treatment; the oracle sees all treatments.

The model's setting is chosen for each draw by a rule that needs no counterfactual: of SETTINGS, that with the least
root mean squared error of the factual outcomes of validation rows, which is the likelihood of a Normal with one
deviation; 63 % of the rows are fitted and 27 % validate. What is quoted is the ensemble of --members models of that
setting, fitted to 90 % of the rows, as it stands (plug-in) and after one targeted step (see effect_models.py).
--hidden takes the setting of the least mean log error over all draws, and nsw_cps the variant's own.

All draws of a block are one program. Results are kept by block in --folder: the same command goes on, and a block that
was begun is done again. A folder that keeps results of other settings is refused.
"""

import functools
import math
import warnings
from typing import Callable

import numpy as np
from scipy import optimize, special

import bench
import effect_baselines
import effect_models
from jaxtrain import config as config_lib, jsonable
from jaxtrain.experiments.causal_consistency import effects

SETTINGS = {  # what may be chosen; fields beside those of the variant
    "default": {},
    "dropout 0.1": {"model.dropout_rate": 0.1, "model.min_sd": 0.02},
}
DRAWS = {"ihdp_a": 100, "ihdp_b": 100, "acic2016": 10}
BLOCKS = {"ihdp_a": 10, "ihdp_b": 10, "acic2016": 5}  # draws in one program
CHOOSING, FITTING = {"data.split.fractions": (0.63, 0.27, 0.1)}, {"data.split.fractions": (0.9, 0.0, 0.1)}
COLUMNS = ("ate", "ate_held", "pehe", "pehe_held")
FOLDS = 5  # of nsw_cps
SHARE_HIDDEN, RESAMPLES = 0.5, 2000
# Recorded rows alone first; then hidden treatments are summed out: dropout may blur the head of the free energy.
PARTLY_HIDDEN = {"loss.warmup_epochs": 100, "loss.objective": "marginal"}
MECHANISMS = ("x", "xz")
ARMS = ("model", "deletion", "oracle")
ROWS = ("all", "recorded", "hidden", "held")


def change(name: str, draw: int) -> dict:
  """The field that says which draw of a data set is meant; simulations of acic2016 count from 1."""
  return {"data.simulation": draw + 1} if name == "acic2016" else {"data.seed": draw}


def factual_errors(setting: str, name: str, given, draws: list[int]) -> list[float]:
  """Log root mean squared error of the factual outcomes of the validation rows of each draw."""
  config = effect_models.read_config(name, CHOOSING | SETTINGS[setting] | length(given))
  tables = effect_models.load(config, [change(name, draw) for draw in draws])
  fitted = [effect_models.part(table, "train") for table in tables]
  params = effect_models.fit(config, tables, [rows.y for rows in fitted], {}, 1)
  say, found = effect_models.make_say(config, tables[0].meta), []
  for k, table in enumerate(tables):
    rows = effect_models.part(table, "val")
    mean = say(effect_models.of_table(params, k), table.meta, rows.columns).mean
    found.append(0.5 * math.log(np.square(rows.z - mean[np.arange(len(rows.y)), rows.y]).mean()))
  return found


def length(given) -> dict:
  """The field that shortens trainings, where the command asks for it."""
  return {"train.num_epochs": given.train_epochs} if given.train_epochs else {}


def check_settings(folder: str) -> None:
  """Ends the program where a folder keeps results of other settings, of the script's or of the variants'."""
  variants = {name: jsonable.digest_json(config_lib.to_record(effect_models.read_config(name, {})))
              for name in (*DRAWS, "nsw_cps")}
  bench.check_given(folder, {"settings": SETTINGS, "hidden": PARTLY_HIDDEN, "variants": variants})


def by_block(folder: str, what: str, name: str, given, make: Callable[[list[int]], list]) -> list:
  """What `make(draws)` returns for each draw of a data set, block by block; blocks that the folder keeps are read."""
  found = []
  for draws in blocks(name, given):
    end = f"-{given.train_epochs}_epochs" if given.train_epochs else ""
    found += bench.kept(folder, f"{what}-{name}-{draws[0]}-{len(draws)}{end}", lambda draws=draws: make(draws))
  return found


def choose(folder: str, name: str, given) -> dict[str, list[float]]:
  """Log errors of the factual outcomes of validation rows of each draw, by setting."""
  return {setting: by_block(folder, f"choice-{setting}", name, given, functools.partial(factual_errors, setting, name,
                                                                                       given)) for setting in SETTINGS}


def errors(ate: float, own: np.ndarray, other: np.ndarray, true_own: np.ndarray, true_other: np.ndarray) -> dict:
  """Errors of one method on one draw, by the names of COLUMNS; those of averages keep their sign."""
  root = lambda a, b: float(np.sqrt(np.square(a - b).mean()))
  return {"ate": float(ate - true_own.mean()), "ate_held": float(other.mean() - true_other.mean()),
          "pehe": root(own, true_own), "pehe_held": root(other, true_other)}


def model_errors(said: list[effect_models.Said], parts: list[effect_models.Part]) -> dict[str, dict]:
  """Errors of the ensemble on a draw, as it stands and after the targeted step; fitted and held-out rows."""
  own, other = (one.mean[:, 1] - one.mean[:, 0] for one in said)
  shift = effect_models.targeted_shift(said[0], parts[0])
  moved = shift[1] - shift[0]
  truth = (parts[0].effect, parts[1].effect)
  return {"model, plug-in": errors(own.mean(), own, other, *truth),
          "model, targeted": errors(own.mean() + moved, own + moved, other + moved, *truth)}


def model_block(setting: str, name: str, given, draws: list[int]) -> list[dict]:
  """Errors of the model on each of some draws, all trained as one program."""
  config = effect_models.read_config(name, FITTING | SETTINGS[setting] | length(given))
  tables = effect_models.load(config, [change(name, draw) for draw in draws])
  parts = [[effect_models.part(table, which) for which in ("train", "test")] for table in tables]
  params = effect_models.fit(config, tables, [own.y for own, _ in parts], {}, given.members)
  say = effect_models.make_say(config, tables[0].meta)
  return [model_errors([say(effect_models.of_table(params, k), table.meta, rows.columns) for rows in both], both)
          for k, (table, both) in enumerate(zip(tables, parts))]


def baseline_block(method: str, name: str, draws: list[int]) -> list[dict]:
  """Errors of a method without a network on each of some draws."""
  found = []
  for table in effect_models.load(effect_models.read_config(name, FITTING), [change(name, draw) for draw in draws]):
    own, other = effect_models.part(table, "train"), effect_models.part(table, "test")
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # of packages about each other
      guess = effect_baselines.METHODS[method](own.x, own.y, own.z, other.x)
    found.append({method: errors(guess.ate.value, guess.own, guess.other, own.effect, other.effect)})
  return found


def blocks(name: str, given) -> list[list[int]]:
  """The draws of a data set by block."""
  count, size = min(DRAWS[name], given.draws), BLOCKS[name]
  return [list(range(first, min(first + size, count))) for first in range(0, count, size)]


def summarise(draws: list[dict]) -> dict[str, dict]:
  """Mean and median over draws of the absolute value of each error, by method."""
  found = {}
  for method in draws[0]:
    columns = {column: np.abs([draw[method][column] for draw in draws]) for column in COLUMNS}
    found[method] = {column: {"mean": float(values.mean()), "median": float(np.median(values)),
                              "interval": bench.interval(values.tolist())[1]} for column, values in columns.items()}
  return found


def noise_floor(rows: effect_models.Part) -> dict[str, float]:
  """Expected |error| of the average effect of fitted rows by the outcome's noise alone, of deviation 1.

  `constant`: both surfaces are known but for a constant, and each constant is the mean of the residuals of an arm.
  `linear`: both surfaces are known to be linear, and are fitted by least squares.
  """
  columns = np.concatenate([np.ones((len(rows.x), 1)), rows.x], axis=1)
  arms, mean = [columns[rows.y == k] for k in (0, 1)], columns.mean(axis=0)
  variance = {"constant": sum(1 / len(arm) for arm in arms),
              "linear": sum(mean @ np.linalg.pinv(arm.T @ arm) @ mean for arm in arms)}
  return {name: float(np.sqrt(2 / np.pi * value)) for name, value in variance.items()}


def measure_set(folder: str, name: str, given) -> dict:
  """Errors of all methods on a data set, by method."""
  tried = choose(folder, name, given)
  by_setting = {setting: by_block(folder, f"model-{given.members}-{setting}", name, given, functools.partial(
      model_block, setting, name, given)) for setting in SETTINGS}
  chosen = [min(SETTINGS, key=lambda setting: tried[setting][k]) for k in range(len(tried[next(iter(SETTINGS))]))]
  found = summarise([by_setting[setting][k] for k, setting in enumerate(chosen)])
  for setting in SETTINGS:
    found |= {f"{method}, {setting}": row for method, row in summarise(by_setting[setting]).items()}
  for method in given.methods.split(","):
    make = functools.partial(baseline_block, method, name)
    found |= summarise(by_block(folder, f"other-{method}", name, given, make))
  counts = {setting: chosen.count(setting) for setting in SETTINGS}
  print(f"\n{name}, {len(chosen)} draws; chosen: {counts}\n")
  bench.say_row("method", *(f"{column}, {of}" for column in COLUMNS for of in ("mean", "median")))
  bench.say_row(*["---"] * 9)
  for method, row in found.items():
    bench.say_row(method, *(cell for column in COLUMNS for cell in ([row[column]["mean"], row[column]["interval"]],
                                                                   f"{row[column]['median']:.3g}")))
  result = {"draws": len(chosen), "chosen": counts, "tried": tried, "methods": found}
  if name.startswith("ihdp"):
    table, = effect_models.load(effect_models.read_config(name, FITTING), [change(name, 0)])
    result["noise_floor"] = noise_floor(effect_models.part(table, "train"))
    print(f"\nexpected |error| of the average effect by noise alone: {result['noise_floor']}")
  return result


def nsw_estimates(given) -> dict[str, list[float]]:
  """[value, low, high] of the effect on the trained by method; the model is cross-fitted, its folds one program."""
  config = effect_models.read_config("nsw_cps", {"data.split.kind": "none"} | length(given))
  table, = effect_models.load(config, [{}])
  rows = effect_models.part(table, "train")
  fold = effects.stratified_folds(rows.y, effects.FOLD_SEED)
  labels = [np.where(fold == k, -1, rows.y) for k in range(FOLDS)]  # what is not fitted counts as nothing
  hypers = {"loss.beta": [0.0] * FOLDS}
  params = effect_models.fit(config, [table] * FOLDS, labels, hypers, given.members)
  say = effect_models.make_say(config, table.meta)
  mean, log_prior = np.zeros((2, len(rows.y), 2))
  for k in range(FOLDS):
    said = say(effect_models.of_table(params, k), table.meta, rows.columns[fold == k])
    mean[fold == k], log_prior[fold == k] = said.mean, said.log_prior
  q = np.eye(2)[rows.y]
  treated = rows.y == 1
  plug_in = float((rows.z - mean[:, 0])[treated].mean())
  found = {"model, plug-in": [plug_in, math.nan, math.nan],
           "model, AIPW": list(effects.aipw_with(mean, log_prior, q, rows.z).att[0])}
  for method in given.methods.split(","):
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      found[method] = list(effect_baselines.METHODS[method](rows.x, rows.y, rows.z, rows.x).att)
  facts = table.meta["table"]
  half = 1.96 * facts["trial_att_se"]
  return found | {"the trial": [facts["trial_att"], facts["trial_att"] - half, facts["trial_att"] + half]}


def measure_nsw(folder: str, given) -> dict:
  """The effect on the trained by each method."""
  found = bench.kept(folder, f"nsw_cps-{given.members}", lambda: nsw_estimates(given))
  print("\nnsw_cps: effect on the trained, and its 95 % interval\n")
  bench.say_row("method", "att", "low", "high")
  bench.say_row(*["---"] * 4)
  for method, row in found.items():
    bench.say_row(method, *(f"{value:.0f}" for value in row))
  return found


def measure_tables(folder: str, given) -> dict:
  """All data sets that --only names."""
  check_settings(folder)
  return {name: measure_nsw(folder, given) if name == "nsw_cps" else measure_set(folder, name, given)
          for name in given.only.split(",")}


def hide(rows: effect_models.Part, mechanism: str, seed: int) -> np.ndarray:
  """Treatments of rows, -1 where hidden: half of them in the mean, with a logit that grows by one for each deviation
  of the first covariate and, for `xz`, of the outcome."""
  standard = lambda column: (column - column.mean()) / column.std()
  logit = standard(rows.x[:, 0]) + (standard(rows.z) if mechanism == "xz" else 0.0)
  start = optimize.brentq(lambda a: special.expit(a + logit).mean() - SHARE_HIDDEN, -20, 20)
  hidden = np.random.default_rng((seed, MECHANISMS.index(mechanism))).random(len(logit)) < special.expit(start + logit)
  return np.where(hidden, -1, rows.y)


def hidden_block(setting: str, name: str, given, draws: list[int]) -> list[dict]:
  """sqrt PEHE by mechanism, arm and rows of each draw; the arms of all draws are trained as one program."""
  config = effect_models.read_config(name, FITTING | PARTLY_HIDDEN | SETTINGS[setting] | length(given))
  tables = effect_models.load(config, [change(name, draw) for draw in draws])
  parts = [[effect_models.part(table, which) for which in ("train", "test")] for table in tables]
  asked = {}  # (place of the draw, mechanism, arm) -> (labels, weight of rows without a treatment)
  for k, (own, _) in enumerate(parts):
    asked[k, "", "oracle"] = own.y, 1.0
    for mechanism in MECHANISMS:
      labels = hide(own, mechanism, draws[k])
      asked |= {(k, mechanism, "model"): (labels, 1.0), (k, mechanism, "deletion"): (labels, 0.0)}
  labels, betas = zip(*asked.values())
  params = effect_models.fit(config, [tables[k] for k, *_ in asked], list(labels), {"loss.beta": list(betas)},
                             given.members)
  say, squares = effect_models.make_say(config, tables[0].meta), {}
  for t, (k, *what) in enumerate(asked):
    said = [say(effect_models.of_table(params, t), tables[k].meta, rows.columns) for rows in parts[k]]
    squares[k, *what] = [np.square(one.mean[:, 1] - one.mean[:, 0] - rows.effect) for one, rows in zip(said, parts[k])]

  def of_rows(k: int, mechanism: str, arm: str) -> dict[str, float]:
    recorded = asked[k, mechanism, "model"][0] >= 0
    own, held = squares[k, "" if arm == "oracle" else mechanism, arm]
    return {rows: float(np.sqrt(some.mean())) for rows, some in zip(ROWS, (own, own[recorded], own[~recorded], held))}
  return [{mechanism: {arm: of_rows(k, mechanism, arm) for arm in ARMS} for mechanism in MECHANISMS}
          for k in range(len(draws))]


def won_back(deletion: np.ndarray, model: np.ndarray, oracle: np.ndarray) -> dict[str, float]:
  """The share of deletion's loss that the model wins back, with its 95 % interval by resampled draws [R], and the same
  of medians."""
  share = lambda total: (total(deletion) - total(model)) / (total(deletion) - total(oracle))
  pick = np.random.default_rng(0).integers(len(deletion), size=(RESAMPLES, len(deletion)))
  some = [values[pick].sum(axis=1) for values in (deletion, model, oracle)]
  low, high = np.quantile((some[0] - some[1]) / (some[0] - some[2]), (0.025, 0.975))
  return {"share": float(share(np.sum)), "low": float(low), "high": float(high), "of_medians": float(share(np.median))}


def measure_hidden(folder: str, given) -> dict:
  """What the model wins back of what deletion loses, by data set, mechanism and rows."""
  check_settings(folder)
  result = {}
  for name in (one for one in given.only.split(",") if one.startswith("ihdp")):
    tried = choose(folder, name, given)
    setting = min(SETTINGS, key=lambda setting: np.mean(tried[setting]))
    draws = by_block(folder, f"hidden-{given.members}-{setting}", name, given,
                     functools.partial(hidden_block, setting, name, given))
    print(f"\n{name}, {len(draws)} draws, setting {setting!r}: sqrt PEHE, mean (median)\n")
    bench.say_row("hidden by", "rows", *ARMS, "won back", "interval", "of medians")
    bench.say_row(*["---"] * 8)
    for mechanism in MECHANISMS:
      for rows in ROWS:
        values = {arm: np.array([draw[mechanism][arm][rows] for draw in draws]) for arm in ARMS}
        won = won_back(values["deletion"], values["model"], values["oracle"])
        result[f"{name}/{mechanism}/{rows}"] = won | {
            arm: {"mean": float(values[arm].mean()), "median": float(np.median(values[arm]))} for arm in ARMS}
        bench.say_row(mechanism, rows, *(f"{v.mean():.3f} ({np.median(v):.3f})" for v in values.values()),
                      f"{won['share']:.2f}", f"{won['low']:.2f} to {won['high']:.2f}", f"{won['of_medians']:.2f}")
  return result


def main() -> None:
  """Measures the parts that the flags name, or the tables."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--draws", type=int, default=100, help="at most so many of a data set")
  parser.add_argument("--members", type=int, default=3, help="models of an ensemble")
  parser.add_argument("--methods", default=",".join(effect_baselines.METHODS), help="without a network")
  parser.add_argument("--only", default="ihdp_a,ihdp_b,acic2016,nsw_cps", help="data sets")
  parser.add_argument("--train_epochs", type=int, default=0, help="another length of training; 0 = the variant's")
  bench.run_parts(parser, {"tables": measure_tables, "hidden": measure_hidden})


if __name__ == "__main__":
  main()
