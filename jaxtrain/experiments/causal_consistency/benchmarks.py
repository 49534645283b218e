"""Tables that methods of causal inference are compared on, read as files from the Python packages that ship them.

  ihdp_a, ihdp_b  747 infants of a trial, whose treated ones with non-white mothers are dropped, so that it is one no
                  longer; outcomes are drawn on the real covariates X (six standardised, `first` as 1 or 2, and a 1):
                  A: E[z | do(0)] = X b, E[z | do(1)] = X b + 4
                  B: E[z | do(0)] = exp((X + W) b), E[z | do(1)] = X b - omega, W = 0.5 but for the 1,
                     omega such that the mean effect on the treated is 4;
                  coefficients b by `data.seed`, the noise has deviation 1
  acic2016        4,802 births with treatments and outcomes simulated in ten ways, of which `data.simulation` is one
  nsw_cps         185 people trained in a trial, and 15,992 of a survey in place of its controls: outcomes are real and
                  the effect of each is not known; the trial's own estimate stands in the table's facts

Treatments are hidden as in a simulated table; `mar` goes by the first covariate and `mar_z` by the outcome, both
standardised. The packages are never imported.

**Source:** Hill 2011 (Bayesian nonparametric modeling for causal inference), section 4.1, as in econml; Dorie et al.
2019 (Automated versus do-it-yourself methods for causal inference), in causallib; LaLonde 1986 and Dehejia & Wahba
1999, in causaldata.
"""

import importlib.util
import os
from typing import Any, Callable, NamedTuple

import numpy as np

from jaxtrain.data import files, tables
from jaxtrain.errors import UserError, need
from jaxtrain.experiments.causal_consistency import generators

FIELD = "config.data.source"
INSTALL = {"econml": "--no-deps econml", "causallib": "-e '.[effects]'", "causaldata": "-e '.[effects]'"}
IHDP_COVARIATES = ("bw", "b.head", "preterm", "birth.o", "nnhealth", "momage", "sex", "twin", "b.marr", "mom.lths",
                   "mom.hs", "mom.scoll", "cig", "first", "booze", "drugs", "work.dur", "prenatal", "site1", "site2",
                   "site3", "site4", "site5", "site6", "site7")
IHDP_STANDARDISED = 6  # of them, the first
EFFECT = 4.0  # of surface A on all, of surface B on the treated in the mean
ACIC_WORDS = ("x_2", "x_21", "x_24")  # covariates that are words
NSW_COVARIATES = ("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75")


class Benchmark(NamedTuple):
  """A table before treatments are hidden.

  Attributes:
    x: covariates name -> [N] float64.
    treatment, outcome: names of the columns.
    y: [N] int32, 0 or 1.
    z: [N] float64.
    mean: [N, 2] E[z | x, do(y)]; None where it is not known.
    facts: what is known of the table, JSON-able.
  """
  x: dict[str, np.ndarray]
  treatment: str
  outcome: str
  y: np.ndarray
  z: np.ndarray
  mean: np.ndarray | None
  facts: dict[str, Any]


def locate(package: str, *parts: str) -> str:
  """Path of a file of an installed package, which is not imported. Raises UserError that says how it is installed."""
  spec = importlib.util.find_spec(package)
  folders = list(spec.submodule_search_locations or ()) if spec else []
  if not folders:
    raise UserError(f"{FIELD}: its file comes with {package}, which is not installed; pip install {INSTALL[package]}")
  return os.path.join(folders[0], *parts)


def read_csv(path: str) -> files.Columns:
  """The columns of a CSV file of a package."""
  return files.read("csv", path, field=FIELD)


def read_stata(path: str) -> dict[str, np.ndarray]:
  """The columns of a Stata file. Raises UserError where it cannot be read."""
  files.check_path("Stata", path, FIELD)
  pandas = need("pandas", "effects")
  try:
    frame = pandas.read_stata(path)
  except Exception as error:  # pandas raises many types
    raise UserError(f"{FIELD}: cannot read {path!r}: {files.first_line(error)}") from error
  return {name: frame[name].to_numpy() for name in frame.columns}


def surfaces(name: str, x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """E[z | x, do(y)] [N, 2] of the surface `ihdp_a` or `ihdp_b` over covariates [N, 25] as they stand in the file."""
  scaled, k = x.copy(), IHDP_STANDARDISED
  scaled[:, :k] = (x[:, :k] - x[:, :k].mean(axis=0)) / x[:, :k].std(axis=0)
  scaled[:, IHDP_COVARIATES.index("first")] += 1
  scaled = np.concatenate([np.ones((len(x), 1)), scaled], axis=1)
  if name == "ihdp_a":
    line = scaled @ random.choice([0.0, 1.0, 2.0, 3.0, 4.0], scaled.shape[1], p=[0.5, 0.2, 0.15, 0.1, 0.05])
    return np.stack([line, line + EFFECT], axis=1)
  b = random.choice([0.0, 0.1, 0.2, 0.3, 0.4], scaled.shape[1], p=[0.6, 0.1, 0.1, 0.1, 0.1])
  line = scaled @ b
  control = np.exp(line + 0.5 * b[1:].sum())
  return np.stack([control, line - ((line - control)[y == 1].mean() - EFFECT)], axis=1)


def read_ihdp(data, random: np.random.Generator) -> Benchmark:
  """The infants, with outcomes of the surface that `data.source` names."""
  path = locate("econml", "data", "ihdp", "sim.csv")
  found = read_csv(path)
  treated, white = found.numbers("treat") == 1, found.numbers("momwhite") == 1
  keep = ~treated | white
  columns = {name: found.numbers(name)[keep] for name in IHDP_COVARIATES}
  y = treated[keep].astype(np.int32)
  mean = surfaces(data.source, np.stack(list(columns.values()), axis=1), y, random)
  z = mean[np.arange(len(y)), y] + random.normal(size=len(y))
  return Benchmark(columns, "treat", "y", y, z, mean, {"sha256": tables.file_digest(path)})


def read_acic(data, random: np.random.Generator) -> Benchmark:
  """The births of simulation `data.simulation`; a covariate that is words becomes a column for each but the first."""
  del random
  folder = ("datasets", "data", "acic_challenge_2016")
  path = locate("causallib", *folder, f"zymu_{data.simulation}.csv")
  found, made = read_csv(locate("causallib", *folder, "x.csv")), read_csv(path)
  columns = {}
  for name in found.values:
    if name in ACIC_WORDS:
      words = found.scalars(name)
      columns |= {f"{name}_{word}": (words == word).astype(float) for word in sorted(set(words.tolist()))[1:]}
    else:
      columns[name] = found.numbers(name)
  y = made.numbers("z").astype(np.int32)
  z, mean = (np.stack([made.numbers(f"{name}{k}") for k in (0, 1)], axis=1) for name in ("y", "mu"))
  facts = {"simulation": data.simulation, "sha256": tables.file_digest(path)}
  return Benchmark(columns, "z", "y", y, z[np.arange(len(y)), y], mean, facts)


def read_nsw(data, random: np.random.Generator) -> Benchmark:
  """The trained people of the trial and those of the survey; the trial's estimate, from its own controls, is a fact."""
  del data, random
  trial, survey = (read_stata(locate("causaldata", name, f"{name}.dta")) for name in ("nsw_mixtape", "cps_mixtape"))
  trained = trial["treat"] == 1
  join = lambda name: np.concatenate([trial[name][trained], survey[name]]).astype(np.float64)
  arms = [trial["re78"][trial["treat"] == k].astype(np.float64) for k in (0, 1)]
  facts = {"trial_att": float(arms[1].mean() - arms[0].mean()),
           "trial_att_se": float(np.sqrt(sum(arm.var(ddof=1) / len(arm) for arm in arms)))}
  return Benchmark({name: join(name) for name in NSW_COVARIATES}, "treat", "re78", join("treat").astype(np.int32),
                   join("re78"), None, facts)


READERS: dict[str, Callable[[Any, np.random.Generator], Benchmark]] = {
    "ihdp_a": read_ihdp, "ihdp_b": read_ihdp, "acic2016": read_acic, "nsw_cps": read_nsw}


def read(data, seed: int) -> tuple[generators.Draw, dict[str, tuple[str, ...]], dict[str, Any]]:
  """(rows, names of columns by role with `treatment`, facts) of `data.source`. Raises UserError, as where its package
  is not installed.
  """
  random = np.random.default_rng(seed)
  found = READERS[data.source](data, random)
  x = np.stack(list(found.x.values()), axis=1)
  standard = lambda column: (column - column.mean()) / column.std()
  observed = generators.hide(random, data, found.y, standard(x[:, 0]), standard(found.z))
  mean = None if found.mean is None else found.mean[:, :, None]
  made = generators.Draw(x, np.zeros((len(x), 0)), found.y, observed, found.z[:, None], mean)
  return made, {"covariates": tuple(found.x), "instruments": (), "outcomes": (found.outcome,),
                "treatment": (found.treatment,)}, found.facts
