"""Estimates of effects without a network, for effect_tables.py: each fits rows and says what the treatment does.

  unadjusted      difference of the group means
  OLS             one line of treatment and covariates: the effect is the same for all rows
  T-learner       a ridge regression for each treatment
  boosted T-learner  boosted trees for each treatment
  IPW             group means weighted with the inverse of a logistic regression's propensity, normalised (Hajek)
  AIPW            cross-fitted and doubly robust, `jaxtrain.experiments.causal_consistency.effects.aipw`
  causal forest   econml's, cross-fitted, where that package is installed

All compute in float64 from covariates x [N, D], a treatment y [N] that is 0 or 1, and one outcome z [N].
"""

import importlib.util
from typing import Callable, NamedTuple

import numpy as np
from sklearn import ensemble, linear_model, pipeline, preprocessing

from jaxtrain.experiments.causal_consistency import effects
from jaxtrain.experiments.causal_consistency.effects import Estimate

TREES = 200  # of the forest


class Guess(NamedTuple):
  """What a method says.

  Attributes:
    ate, att: average effects on all rows that it was fitted on and on the treated; the ends of the interval are NaN
      where the method has none.
    own, other: effect of each fitted row [N] and of each further row [M]; the average where the method knows no more.
  """
  ate: Estimate
  att: Estimate
  own: np.ndarray
  other: np.ndarray


def point(value: float) -> Estimate:
  """An estimate without an interval."""
  return Estimate(float(value), float("nan"), float("nan"))


def constant(ate: Estimate, att: Estimate, x: np.ndarray, at: np.ndarray) -> Guess:
  """The same effect for all rows."""
  return Guess(ate, att, np.full(len(x), ate.value), np.full(len(at), ate.value))


def by_row(own: np.ndarray, other: np.ndarray, att: float) -> Guess:
  """An effect for each row, the mean of which is the average effect."""
  return Guess(point(own.mean()), point(att), own, other)


def unadjusted(x: np.ndarray, y: np.ndarray, z: np.ndarray, at: np.ndarray) -> Guess:
  """Difference of the group means, with Welch's interval."""
  found, = effects.unadjusted(y, z, 2)
  return constant(found, found, x, at)


def ols(x: np.ndarray, y: np.ndarray, z: np.ndarray, at: np.ndarray) -> Guess:
  """Coefficient of the treatment in one linear regression."""
  columns = np.concatenate([y[:, None], np.ones((len(x), 1)), effects.standardised(x)], axis=1)
  slope = np.linalg.lstsq(columns, z, rcond=None)[0][0]
  return constant(point(slope), point(slope), x, at)


def t_learner(make: Callable, x: np.ndarray, y: np.ndarray, z: np.ndarray, at: np.ndarray) -> Guess:
  """Two regressions of `make()`, each of the rows of one treatment; the effect is their difference."""
  arms = [make().fit(x[y == k], z[y == k]) for k in (0, 1)]
  own, other = (arms[1].predict(rows) - arms[0].predict(rows) for rows in (x, at))
  return by_row(own, other, (z - arms[0].predict(x))[y == 1].mean())


def ridge():
  """A ridge regression on standardised covariates, its penalty chosen by leave-one-out."""
  return pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.RidgeCV(effects.PENALTIES))


def trees():
  """Boosted regression trees."""
  return ensemble.GradientBoostingRegressor(random_state=0)


def ipw(x: np.ndarray, y: np.ndarray, z: np.ndarray, at: np.ndarray) -> Guess:
  """Normalised inverse-propensity weighting; small propensities count as `effects.least_propensity`."""
  features = effects.standardised(x)
  prior = effects.class_probabilities(features, y, np.ones(len(y)), features, 2)
  prior = np.maximum(prior, effects.least_propensity(len(y)))
  mean = lambda weight: (weight * z).sum() / weight.sum()
  ate = mean((y == 1) / prior[:, 1]) - mean((y == 0) / prior[:, 0])
  att = z[y == 1].mean() - mean((y == 0) * prior[:, 1] / prior[:, 0])
  return constant(point(ate), point(att), x, at)


def aipw(x: np.ndarray, y: np.ndarray, z: np.ndarray, at: np.ndarray) -> Guess:
  """Doubly robust with cross-fitting: ridge regressions and a logistic regression."""
  found = effects.aipw(x, y, z, 2).effects
  return constant(found.ate[0], found.att[0], x, at)


def forest(x: np.ndarray, y: np.ndarray, z: np.ndarray, at: np.ndarray) -> Guess:
  """econml's causal forest with forests as nuisances."""
  from econml.dml import CausalForestDML  # an optional package, slow to import
  leaf = {"n_estimators": TREES, "min_samples_leaf": 5, "random_state": 0}
  model = CausalForestDML(model_y=ensemble.RandomForestRegressor(**leaf),
                          model_t=ensemble.RandomForestClassifier(**leaf), discrete_treatment=True,
                          n_estimators=TREES, random_state=0, n_jobs=1)
  model.fit(z, y, X=x)
  own, other = model.effect(x), model.effect(at)
  att, half = float(model.att_(T=1)[0]), 1.96 * float(model.att_stderr_(T=1)[0])
  ate, ate_half = float(model.ate_[0]), 1.96 * float(model.ate_stderr_[0])
  return Guess(effects.around(ate, ate_half), effects.around(att, half), own, other)


METHODS: dict[str, Callable[..., Guess]] = {
    "unadjusted": unadjusted, "OLS": ols, "T-learner": lambda *rows: t_learner(ridge, *rows),
    "boosted T-learner": lambda *rows: t_learner(trees, *rows), "IPW": ipw, "AIPW": aipw}
if importlib.util.find_spec("econml") is not None and importlib.util.find_spec("sparse") is not None:
  METHODS["causal forest"] = forest
