"""The bias dial: how far each estimator of an average effect is off as treatments go missing.

  python tests/benchmarks/effect_dial.py --folder=runs/dial --json=dial.json
  python tests/benchmarks/effect_dial.py --folder=runs/dial --draw=jaxtrain/experiments/causal_consistency/dial.png

Simulated tables of NUM_ROWS rows with x ~ N(0, 1), P(y = 1 | x) = sigmoid(x), z = x + y + e, e ~ N(0, 1): the effect is
1. Whether y is recorded depends on x, z and, by the strength s, on y itself:

  P(hidden | x, z, y) = sigmoid(a + (x + z - 1/2) / 2 + s (2 y - 1)),

with a such that a stated share is hidden. Two dials are turned: the share from 0 to 98 % at s = 0 (missing at random
given x and z), and s from 0 to 2 with half of the treatments hidden (not at random). For each setting --tables tables
are drawn. Quoted is the mean error of the effect, and the share of 95 % intervals that hold it, for

  every name of `jaxtrain.experiments.causal_consistency.estimators`, with the intervals that know of the estimated
  nuisances, all tables in one vmapped program, in float64;
  `model`, the effect by the networks of the default config, trained on --trained of the tables of every setting as one
  program of `make_train`, with the width that its own influence function gives, which leaves out the networks' error.

Results are kept by block in --folder, and the same command goes on.
"""

import functools

import jax
import numpy as np
from scipy import optimize, special

import bench
import effect_models
from jaxtrain.experiments.causal_consistency import effects, estimators
from jaxtrain.report import figures

EFFECT, NUM_ROWS, NUM_FOLDS, POPULATION = 1.0, 1000, 5, 200_000
SHARES, STRENGTHS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.98), (0.0, 0.25, 0.5, 1.0, 2.0)
DIALS = {"share": [(share, 0.0) for share in SHARES], "strength": [(0.5, strength) for strength in STRENGTHS]}
QUANTILE = special.ndtri(0.975)
BLOCK = 50  # tables of a setting in one program of the estimators
MODEL = {"data.noise_std": 1.0, "data.num_samples": NUM_ROWS, "data.missing_rate": 0.0, "data.split.kind": "none",
         "train.num_epochs": 60, "train.batch_size": 200, "loss.warmup_epochs": 15}
SHOWN = ("deletion", "mi_propensity", "ipw_hajek", "mi_outcome", "triply_robust", "model")  # in the figure


def draw(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(x, y, z) of rows of any shape."""
  x = random.normal(size=shape)
  y = (random.random(shape) < special.expit(x)).astype(np.int32)
  return x, y, x + EFFECT * y + random.normal(size=shape)


def logit(x: np.ndarray, y: np.ndarray, z: np.ndarray, strength: float) -> np.ndarray:
  """The logit of being hidden, but for its constant."""
  return 0.5 * (x + z - 0.5) + strength * (2 * y - 1)


def constant(share: float, strength: float) -> float:
  """The constant of the logit with which so many treatments of the population are hidden."""
  if share == 0:
    return -np.inf
  rows = logit(*draw(np.random.default_rng(0), (POPULATION,)), strength)
  return optimize.brentq(lambda a: special.expit(a + rows).mean() - share, -30, 30)


def tables(setting: tuple[float, float], first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(x, y, z) [count, NUM_ROWS] of tables number `first` and on of a setting; y is -1 where it is hidden.

  A table's rows depend on its number alone, so that settings are compared on the same rows.
  """
  share, strength = setting
  at, found = constant(share, strength), []
  for number in range(first, first + count):
    random = np.random.default_rng((1, number))
    x, y, z = draw(random, (NUM_ROWS,))
    hidden = random.random(NUM_ROWS) < special.expit(at + logit(x, y, z, strength))
    found.append((x, np.where(hidden, -1, y), z))
  return tuple(np.stack(column) for column in zip(*found))


def estimator_data(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> estimators.Data:
  """Tables [T, N] as the estimators take them, all their models right: recording by x, z and x z, the others by x."""
  standard = lambda column: (column - column.mean(axis=1, keepdims=True)) / column.std(axis=1, keepdims=True)
  one = np.ones_like(x)
  by_x = np.stack([one, standard(x)], axis=2)
  by_both = np.stack([one, standard(x), standard(z), standard(standard(x) * standard(z))], axis=2)
  fold = np.stack([effects.stratified_folds(row, effects.FOLD_SEED) for row in y]).astype(np.int32)
  group = np.tile(np.arange(x.shape[1], dtype=np.int32), (len(x), 1))
  return estimators.Data(y.astype(np.int32), z, by_both, by_x, by_x, one, group, fold)


@functools.cache
def make_program():
  """`(Data with a leading axis of tables) -> {name: Estimated}`, made once."""
  spec = estimators.Spec(2, num_folds=NUM_FOLDS)
  return jax.jit(jax.vmap(lambda data: estimators.estimate(data, spec)))


def estimate(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> dict[str, list]:
  """[value, low, high] of the effect of each table [T, N] by the name of the estimator; one program."""
  with jax.enable_x64(True):
    found = jax.tree.map(np.asarray, make_program()(estimator_data(x, y, z)))
  ends = (0, -QUANTILE, QUANTILE)
  return {name: np.stack([one.value[:, 0] + k * one.stacked_se[:, 0] for k in ends], axis=1).tolist()
          for name, one in found.items()}


def train(settings: list[tuple[float, float]], count: int, given) -> list[list]:
  """[value, low, high] of the model's effect for the first `count` tables of each setting; one program."""
  fields = MODEL | ({"train.num_epochs": given.train_epochs} if given.train_epochs else {})
  config = effect_models.read_config("base", fields)
  shape, = effect_models.load(config, [{}])
  made = [np.concatenate(column) for column in zip(*(tables(setting, 0, count) for setting in settings))]
  columns = np.stack([made[2], made[0]], axis=2).astype(np.float32)  # outcomes first
  replaced = [shape._replace(train=shape.train._replace(data=shape.train.data | {"x": one})) for one in columns]
  params = effect_models.fit(config, replaced, list(made[1]), {}, 1)
  say, found = effect_models.make_say(config, shape.meta), []
  for k, rows in enumerate(columns):
    said = say(effect_models.of_table(params, k), shape.meta, rows)
    q = effects.responsibilities(made[1][k], said.log_posterior)
    robust = effects.aipw_with(said.mean, said.log_prior, q, made[2][k])
    found.append(list(effects.plug_in(robust, said.mean, q).ate[0]))
  return found


def summarise(found: np.ndarray) -> dict[str, float]:
  """Mean error, its 95 % half width over tables, and the share of intervals that hold the effect, of [T, 3]; estimates
  that are not there count as intervals that do not."""
  error = found[:, 0] - EFFECT
  there = error[np.isfinite(error)]
  bias, half = bench.interval(there.tolist())
  inside = (found[:, 1] <= EFFECT) & (EFFECT <= found[:, 2])
  return {"bias": bias, "bias_half": half, "coverage": float(inside.mean()),
          "tables": len(found), "failed": int(len(found) - len(there))}


def measure(folder: str, given) -> dict:
  """Bias and coverage by dial, setting and estimator."""
  settings = sorted({setting for some in DIALS.values() for setting in some})
  trained = bench.kept(folder, f"model-{given.trained}-{given.train_epochs}",
                       lambda: train(settings, given.trained, given))
  found = {}
  for k, setting in enumerate(settings):
    merged = {}
    for first in range(0, given.tables, BLOCK):
      count = min(BLOCK, given.tables - first)
      block = bench.kept(folder, f"estimators-{setting[0]}-{setting[1]}-{first}-{count}",
                         lambda s=setting, f=first, c=count: estimate(*tables(s, f, c)))
      merged = {name: merged.get(name, []) + block[name] for name in block}
    merged["model"] = trained[k * given.trained:(k + 1) * given.trained]
    found[setting] = {name: summarise(np.array(values)) for name, values in merged.items()}
  result = {dial: {str(setting[dial == "strength"]): found[setting] for setting in some}
            for dial, some in DIALS.items()}
  tell(result)
  if given.draw:
    draw_figure(result, given.draw)
  return result


def tell(result: dict) -> None:
  """Prints a table for each dial: bias (coverage) by estimator."""
  for dial, by_value in result.items():
    print(f"\n{dial}: mean error (coverage of 95 % intervals)\n")
    bench.say_row("estimator", *by_value)
    bench.say_row(*["---"] * (1 + len(by_value)))
    for name in next(iter(by_value.values())):
      bench.say_row(name, *(f"{row[name]['bias']:+.3f} ({row[name]['coverage']:.2f})" for row in by_value.values()))


def draw_figure(result: dict, path: str) -> None:
  """Four panels: bias above, coverage below, against the share and the strength; one line an estimator."""
  labels = {"share": "share of treatments hidden, at random given x and z",
            "strength": "dependence on the treatment itself, half hidden"}
  with figures.styled():
    figure = figures.new_figure(8, 5)
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    for (dial, by_value), (above, below) in zip(result.items(), axes.T):
      values = [float(value) for value in by_value]
      for name, color in zip(SHOWN, figures.HUES):
        rows = [row[name] for row in by_value.values()]
        above.errorbar(values, [row["bias"] for row in rows], [row["bias_half"] for row in rows], label=name,
                       color=color)
        below.plot(values, [row["coverage"] for row in rows], marker="o", markersize=3, color=color)
      above.axhline(0, color=figures.INK, linewidth=0.6)
      below.axhline(0.95, color=figures.INK, linewidth=0.6)
      below.set_xlabel(labels[dial])
    axes[0, 0].set_ylabel("mean error, true effect 1")
    axes[1, 0].set_ylabel("coverage of 95 % intervals")
    axes[0, 0].legend(ncols=2, fontsize=7.5)
    figure.savefig(path, dpi=110)


def main() -> None:
  """Turns the dials."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--tables", type=int, default=500, help="of each setting, for the estimators")
  parser.add_argument("--trained", type=int, default=50, help="of these, those that the model is trained on")
  parser.add_argument("--train_epochs", type=int, default=0, help="another length of training")
  parser.add_argument("--draw", default="", help="file for the figure")
  bench.run_parts(parser, {"dial": measure})


if __name__ == "__main__":
  main()
