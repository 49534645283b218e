"""Made-up packages with files of the layout that the benchmarks of causal inference have: a few rows of random numbers.

Importing one of the packages is an error, because only their files are wanted.
"""

import pathlib

import numpy as np
import pandas as pd

IHDP = ("treat", "bw", "b.head", "preterm", "birth.o", "nnhealth", "momage", "sex", "twin", "b.marr", "mom.lths",
        "mom.hs", "mom.scoll", "cig", "first", "booze", "drugs", "work.dur", "prenatal", "site1", "site2", "site3",
        "site4", "site5", "site6", "site7", "site8", "momwhite", "momblack", "momhisp")
JOBS = ("treat", "age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75", "re78")


def frame(random: np.random.Generator, names: tuple[str, ...], num_rows: int, binary: tuple[str, ...]) -> pd.DataFrame:
  """Columns of numbers, some of them 0 or 1."""
  return pd.DataFrame({name: random.integers(0, 2, num_rows) if name in binary else random.normal(1, 1, num_rows)
                       for name in names})


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes all three packages below a folder, which is to come first on the path; returns it."""
  random = np.random.default_rng(0)
  for package, inside in (("econml", "data/ihdp"), ("causallib", "datasets/data/acic_challenge_2016"),
                          ("causaldata", "nsw_mixtape"), ("causaldata", "cps_mixtape")):
    (folder / package / inside).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(f"raise AssertionError('{package} was imported')\n")
  frame(random, IHDP, 120, ("treat", "momwhite")).to_csv(folder / "econml/data/ihdp/sim.csv", index=False)
  births = folder / "causallib/datasets/data/acic_challenge_2016"
  words = {name: random.permutation(np.resize(letters, 90))
           for name, letters in (("x_2", list("CAB")), ("x_21", list("JK")), ("x_24", list("EDBC")))}
  x = frame(random, tuple(f"x_{k}" for k in range(1, 59)), 90, ())
  x.assign(**words).to_csv(births / "x.csv", index=False)
  for k in (1, 2):
    made = frame(random, ("z", "y0", "y1", "mu0", "mu1"), 90, ("z",))
    made.to_csv(births / f"zymu_{k}.csv", index=False)
  for name, treated in (("nsw_mixtape", None), ("cps_mixtape", 0)):
    jobs = frame(random, JOBS, 80, ("treat", "black", "hisp", "marr", "nodegree")).astype("float32")
    jobs = jobs if treated is None else jobs.assign(treat=np.float32(treated))
    jobs.insert(0, "data_id", "made up")
    jobs.to_stata(folder / "causaldata" / name / f"{name}.dta", write_index=False, version=118)
  return folder
