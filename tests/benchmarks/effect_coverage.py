"""Whether 95 % intervals of average effects hold the truth, with half of the treatments missing by covariates and
outcome: coverage and bias of every estimator over simulated tables, and of three where a nuisance is wrong.

  python tests/benchmarks/effect_coverage.py --folder=runs/coverage --json=coverage.json

A table has N rows (--rows) of x ~ N(0, I_2); P(y = 1 | x) = sigmoid(0.5 x1 - 0.3 x2); z = x1 + x2 / 2 +
(y - 1/2) (1 + x1 / 2) + N(0, 1); y is recorded with probability sigmoid(0.2 x1 + 0.3 z). The average effect is 1. A
right nuisance sees (x1, x2), and the outcome where it is that of recording. A wrong one lacks x1, and that of recording
z too. Which are wrong is a setting: none, each of three, each pair. All settings have the same tables, table k from
seed k, so differences between them are not of chance.

--tables tables (2,000) of a setting are estimated as one vmapped program, in float64, in blocks of BLOCK tables, each
kept as a file of --folder: a run that was stopped goes on. A share of tables is compared with the exact binomial band
that holds 99 % of shares where the true one is 95 %.
"""

import itertools
import json
import os
import sys
from typing import Callable

import bench
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from jaxtrain.experiments.causal_consistency import estimators
from jaxtrain.workdir import atomic

TRUTH, BLOCK, TOGETHER = 1.0, 100, 4
NUISANCES = ("outcome", "treatment", "recording")
SETTINGS = {" and ".join(wrong) or "none": wrong
            for size in range(3) for wrong in itertools.combinations(NUISANCES, size)}
CONFIDENCE = 0.99
QUANTILE = float(special.ndtri(0.975))
SPEC = estimators.Spec(num_classes=2)
FEW = SPEC._replace(names=("ipo", "mi_outcome", "triply_robust"), num_folds=1)  # where something is wrong


def draw(key: jax.Array, rows: int) -> tuple[jax.Array, ...]:
  """x [N, 2], y [N], z [N] and recorded [N] of a table."""
  keys = jax.random.split(key, 4)
  x = jax.random.normal(keys[0], (rows, 2))
  y = jax.random.logistic(keys[1], (rows,)) < 0.5 * x[:, 0] - 0.3 * x[:, 1]
  z = x[:, 0] + 0.5 * x[:, 1] + (y - 0.5) * (1 + 0.5 * x[:, 0]) + jax.random.normal(keys[2], (rows,))
  return x, y.astype(jnp.int32), z, jax.random.logistic(keys[3], (rows,)) < 0.2 * x[:, 0] + 0.3 * z


def table(key: jax.Array, right: jax.Array, rows: int) -> estimators.Data:
  """A table whose nuisances see what they should where `right` [3], in the order of NUISANCES, is 1."""
  x, y, z, recorded = draw(key, rows)
  ones, at = jnp.ones((rows, 1)), jnp.arange(rows)
  seen = lambda k: jnp.concatenate([ones, x * jnp.stack([right[k], 1.0])[None]], axis=1)
  with_outcome = jnp.concatenate([seen(2), (z * right[2] / 2)[:, None]], axis=1)
  return estimators.Data(jnp.where(recorded, y, -1), z, with_outcome, seen(1), seen(0), jnp.ones(rows), at,
                         at % SPEC.num_folds)


def make_block(rows: int, spec: estimators.Spec) -> Callable:
  """Compiled `(seeds [BLOCK], right [3]) -> ({estimator: [BLOCK, 3]}, [BLOCK])`: value, stacked and plain standard
  error, and the share of treatments that is missing.
  """
  def one(seed, right):
    data = table(jax.random.key(seed), right, rows)
    found = estimators.estimate(data, spec)
    return {name: jnp.concatenate(part) for name, part in found.items()}, jnp.mean(data.y < 0)
  return jax.jit(lambda seeds, right: jax.lax.map(lambda seed: one(seed, right), seeds, batch_size=TOGETHER))


def run_setting(folder: str, name: str, tables: int, rows: int, block: Callable) -> dict[str, np.ndarray]:
  """Estimates [tables, 3] by each estimator, and `missing` [tables]; blocks that are in the folder are read."""
  right, parts = jnp.asarray([1.0 - (one in SETTINGS[name]) for one in NUISANCES]), []
  for start in range(0, tables, BLOCK):
    path = os.path.join(folder, f"{name.replace(' ', '-')}-{rows}-{start:05d}.npz")
    if not os.path.exists(path):
      found, missing = block(jnp.arange(start, start + BLOCK), right)
      with atomic.replacing(path) as fresh, open(fresh, "wb") as file:
        np.savez(file, missing=missing, **found)
    with np.load(path) as file:
      parts.append(dict(file))
  return {key: np.concatenate([part[key] for part in parts])[:tables] for key in parts[0]}


def band(tables: int) -> tuple[float, float]:
  """Ends of the exact binomial band of the share of so many tables, where the true share is 95 %."""
  ends = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
  return tuple(float(stats.binom.ppf(end, tables, 0.95)) / tables for end in ends)


def summarise(found: np.ndarray) -> dict:
  """Bias with its Monte-Carlo error, spread, and shares of stacked and plain intervals that hold the truth."""
  value, low_high = found[:, 0], band(len(found))
  holds = {kind: float(np.mean(np.abs(value - TRUTH) <= QUANTILE * found[:, at]))  # NaN holds nothing
           for at, kind in ((1, "stacked"), (2, "plain"))}
  return {"bias": float(value.mean() - TRUTH), "bias_error": float(value.std(ddof=1) / np.sqrt(len(value))),
          "sd": float(value.std(ddof=1)), "mean_se": float(found[:, 1].mean()), **holds,
          "stacked_inside": low_high[0] <= holds["stacked"] <= low_high[1]}


def markdown(results: dict) -> str:
  """The table of the results: bias and coverage of each estimator (rows) in each setting (columns), and coverage of the
  plain interval where nothing is wrong.
  """
  settings = results["settings"]
  lines = ["| estimator | " + " | ".join(settings) + " | none, plain |", "|---" * (len(settings) + 2) + "|"]
  for estimator in estimators.ESTIMATORS:
    found = [of.get(estimator) for of in settings.values()]
    cells = [f"{one['bias']:+.3f}, {100 * one['stacked']:.1f}" if one else "" for one in found]
    lines.append(f"| `{estimator}` | " + " | ".join(cells) + f" | {100 * found[0]['plain']:.1f} |")
  return "\n".join(lines)


def main() -> None:
  """Runs the study, prints its results and the table of the guide."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--folder", required=True, help="where blocks are kept")
  parser.add_argument("--tables", type=int, default=2000)
  parser.add_argument("--rows", type=int, default=4000)
  given = parser.parse_args()
  if given.tables % BLOCK:
    sys.exit(f"--tables: got {given.tables}, allowed multiples of {BLOCK}")
  os.makedirs(given.folder, exist_ok=True)
  with jax.enable_x64(True):
    whole, few = (make_block(given.rows, spec) for spec in (SPEC, FEW))
    settings, missing = {}, 0.0
    for name, wrong in SETTINGS.items():
      found = run_setting(given.folder, name, given.tables, given.rows, few if wrong else whole)
      missing = float(found.pop("missing").mean())
      settings[name] = {key: summarise(value) for key, value in found.items()}
      print(name, json.dumps(settings[name]["triply_robust"]), flush=True)
  results = {"tables": given.tables, "rows": given.rows, "missing": missing, "band": band(given.tables),
             "settings": settings}
  bench.tell(results, given.json)
  print(markdown(results))


if __name__ == "__main__":
  main()
