"""Our W1M, W1P, FPD, KPD and energy flow polynomials beside those of the package `jetnet`, on the same events.

  python3.11 -m venv peer
  peer/bin/pip install jetnet==0.2.5 'numpy<2' 'pandas<2.3' 'pyarrow<19' 'coffea<2025' 'awkward<2.8' 'scipy<1.14' \\
    'numba<0.61' 'tables<3.10.2'
  python tests/benchmarks/jetnet_agreement.py --peer=peer/bin/python --json=out.json       # about 3 minutes

`jetnet` needs older packages than ours, so it has an environment of its own, and both read the same arrays. There are
two pairs of sets: clouds of 30 particles like JetNet's jets, of two widths; and simulated events of 18 slots, of which
those compared have 20 % noise in pT. Numbers of samples are the defaults of `jetnet`, and random numbers are the same
on both sides. Each result stands beside ours; `apart` is the largest difference over the largest number. Energy flow
polynomials are compared for the clouds. Those of events are ours on both sides, because the package does not take
differences of azimuths around the circle.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

import bench
from jaxtrain.experiments.autoencoder import distances, generated, generator

PEER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from jetnet import utils
from jetnet.evaluation import gen_metrics as g
parts, found = np.load(sys.argv[1]), {}
for name in ("clouds", "events"):
  real, made = parts[name + "_real"], parts[name + "_made"]
  g.rng = np.random.default_rng(11)
  w1m = g.w1m(real, made)
  g.rng = np.random.default_rng(12)
  w1p = g.w1p(real, made)
  features = parts[name + "_real_features"], parts[name + "_made_features"]
  found[name] = {"w1m": w1m, "w1p": [list(part) for part in w1p], "fpd": g.fpd(*features), "kpd": g.kpd(*features)}
found["polynomials"] = utils.efps(parts["clouds_real"], efpset_args=[("d<=", 4)], efp_jobs=1).tolist()
json.dump(found, open(sys.argv[2], "w"), default=float)
"""
NUM_REAL, NUM_MADE, PARTICLES = 5000, 3000, 30


def clouds(seed: int, num: int, spread: float) -> np.ndarray:
  """Jets [N, 30, 3]: relative eta, phi and pT of particles around an axis; a fifth of the places is empty."""
  random = np.random.RandomState(seed)
  there = random.uniform(size=(num, PARTICLES, 1)) < 0.8
  pt = random.exponential(size=(num, PARTICLES))
  places = np.clip(spread * random.normal(size=(num, PARTICLES, 2)), -0.8, 0.8)
  return np.concatenate([places, (pt / pt.sum(axis=1, keepdims=True))[..., None]], axis=2) * there


def sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """(real, made) [N, T, 3] by name."""
  events = generator.generate(NUM_REAL + NUM_MADE, 0)
  real, made = events.take(slice(NUM_REAL)), events.take(slice(NUM_REAL, None))
  made.momenta[..., 1] *= np.exp(0.2 * np.random.RandomState(1).normal(size=made.ids.shape))
  return {"clouds": (clouds(0, NUM_REAL, 0.1), clouds(1, NUM_MADE, 0.12)),
          "events": (generated.relative(real), generated.relative(made))}


def ours(real: np.ndarray, made: np.ndarray, features: list[np.ndarray]) -> dict:
  """The distances that `jetnet` is asked for."""
  w1m = distances.w1m(real, made, np.random.default_rng(11))
  w1p = distances.w1p(real, made, np.random.default_rng(12))
  return {"w1m": w1m, "w1p": w1p, "fpd": distances.fpd(*features), "kpd": distances.kpd(*features)}


def beside(our, their) -> dict:
  """Both, and how far apart relative to the largest number."""
  our, their = np.asarray(our, float), np.asarray(their, float)
  return {"ours": our.tolist(), "jetnet": their.tolist(),
          "apart": float(np.abs(our - their).max() / max(np.abs(their).max(), 1e-300))}


def main() -> None:
  """Runs both sides and tells how far they are apart."""
  parser = bench.make_parser(__doc__)
  parser.add_argument("--peer", required=True, help="interpreter of an environment with jetnet")
  flags = parser.parse_args()
  found = sets()
  features = {name: [distances.polynomials(part) for part in both] for name, both in found.items()}
  with tempfile.TemporaryDirectory() as folder:
    path, out = os.path.join(folder, "sets.npz"), os.path.join(folder, "out.json")
    np.savez(path, **{f"{name}_{side}{kind}": part for name in found for kind, both in (
        ("", found[name]), ("_features", features[name])) for side, part in zip(("real", "made"), both)})
    done = subprocess.run([flags.peer, "-c", PEER, path, out], capture_output=True, text=True)
    if done.returncode:
      sys.exit(done.stderr[-2000:])
    with open(out, encoding="utf-8") as file:
      theirs = json.load(file)
  results = {name: {what: beside(value, theirs[name][what]) for what, value in ours(*both, features[name]).items()}
             for name, both in found.items()}
  # The package's order of graphs is another: columns are compared by their sizes.
  our, their = (part[:, np.argsort(part.mean(axis=0))] for part in (features["clouds"][0],
                                                                    np.array(theirs["polynomials"])))
  results["polynomials"] = {"columns": our.shape[1], "apart": float((np.abs(our - their) / their.max(axis=0)).max())}
  bench.tell(results, flags.json)


if __name__ == "__main__":
  main()
