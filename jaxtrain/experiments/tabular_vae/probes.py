"""Part `probes`: what simple classifiers read from the embedding, beside the same ones, and a random forest, on the raw
scaled features.

Probes are fitted on training rows and scored on held-out ones, as is the model's own classifier. A gain is the
difference of two scores on the same rows; its interval resamples whole groups for both at once.

**Source:** Alain & Bengio 2017 (Understanding intermediate layers using linear classifier probes).
"""

import warnings
from typing import NamedTuple

import numpy as np

from jaxtrain import statistics
from jaxtrain.experiments.tabular_vae import grouped, held_out
from jaxtrain.experiments.tabular_vae.grouped import CLASS_SCORES
from jaxtrain.experiments.tabular_vae.held_out import HeldOut
from jaxtrain.types import Metric

SVM_ROWS, SVM_SCORED = 10_000, 5_000  # it is slow with many
NEIGHBOURS, TREES, LEAF_ROWS, ITERATIONS = 25, 100, 5, 100
SEED = 0
PROBES = ("svm", "knn", "logistic")
HEAD, RAW, EMBEDDING = "classifier", "raw", "embedding"
METRICS = {
    "probe_accuracy": Metric("", "share of held-out rows that a classifier gets right", "higher", limits=(0, 1)),
    "probe_balanced_accuracy": Metric("", "the same, mean over classes", "higher", limits=(0, 1)),
    "probe_f1_macro": Metric("", "F1 of each class, mean over classes", "higher", limits=(0, 1)),
    "gain_*": Metric("", "how much more the first of two classifiers scores than the second on the same rows", "higher",
                     0.0),
    "probe_rows": Metric("rows", "training rows that probes were fitted on"),
    "probe_reason": Metric("", "why there are no probes"),
}


class Answer(NamedTuple):
  """Classes [N] that a classifier gives the rows [N] of the scored ones."""
  rows: np.ndarray
  predicted: np.ndarray


def make(kind: str):
  """A classifier that is not fitted yet."""
  from sklearn import ensemble, linear_model, neighbors, svm  # slow to import, and no need of training
  return {"svm": lambda: svm.SVC(cache_size=500), "knn": lambda: neighbors.KNeighborsClassifier(NEIGHBOURS),
          "logistic": lambda: linear_model.LogisticRegression(max_iter=ITERATIONS),
          "forest": lambda: ensemble.RandomForestClassifier(TREES, min_samples_leaf=LEAF_ROWS, random_state=SEED)
          }[kind]()


def answer(kind: str, train: np.ndarray, label: np.ndarray, x: np.ndarray) -> Answer:
  """What a classifier that was fitted on training rows says of rows x [N, F], or of some of them."""
  fit = held_out.some(len(train), SVM_ROWS if kind == "svm" else len(train), held_out.FIT_SEED)
  rows = held_out.some(len(x), SVM_SCORED if kind == "svm" else len(x), held_out.SCORE_SEED)
  classes = np.unique(label[fit])
  if len(classes) < 2 or kind == "knn" and len(fit) < NEIGHBOURS:
    return Answer(rows, np.full(len(rows), np.bincount(label[fit]).argmax()))
  from sklearn import exceptions
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # a probe is small on purpose, and stops early
    return Answer(rows, make(kind).fit(train[fit], label[fit]).predict(x[rows]))


def answers(held: HeldOut) -> dict[str, Answer]:
  """What every classifier says, by name: the model's own, then each probe on the embedding and on the raw features."""
  found = {}
  if held.log_prob is not None:
    found[HEAD] = Answer(np.arange(len(held.scored.x)), held.log_prob.argmax(axis=1))
  given = {EMBEDDING: (held.train.mean, held.scored.mean), RAW: (held.train.x, held.scored.x)}
  for name, (train, x) in given.items():
    for kind in PROBES + ("forest",) * (name == RAW):
      found[f"{name}_{kind}"] = answer(kind, train, held.train.label, x)
  return found


def resampled(held: HeldOut, one: Answer, rows: np.ndarray) -> np.ndarray:
  """CLASS_SCORES of some of an answer's rows, of all and of resamples [1 + R, 3]."""
  predicted = one.predicted[np.searchsorted(one.rows, rows)]
  groups = held.groups if len(rows) == len(held.groups.code) else held.groups.take(rows)
  totals = grouped.class_totals(groups, predicted, held.scored.label[rows], len(held.class_names))
  return grouped.resampled(groups, totals, grouped.of_classes)


def pairs(names: list[str]) -> list[tuple[str, str]]:
  """Which are compared: the model's own classifier with each on the raw features, and each probe with itself."""
  raw = [name for name in names if name.startswith(RAW)]
  own = [(HEAD, name) for name in raw] if HEAD in names else []
  return own + [(f"{EMBEDDING}_{kind}", f"{RAW}_{kind}") for kind in PROBES]


def hardest(compared: list[tuple[str, str]], gains: np.ndarray) -> dict[str, float]:
  """The gain of the model's own classifier over the classifier on the raw features that has the best accuracy, with the
  ends of its interval, from gains [3, pairs, scores]; {} without a classifier.
  """
  own = [k for k, (one, _) in enumerate(compared) if one == HEAD]
  if not own:
    return {}
  k = min(own, key=lambda k: gains[0, k, 0])
  return {f"gain_accuracy{end}": float(value) for end, value in zip(("", "_low", "_high"), gains[:, k, 0])
          if np.isfinite(value)}


def assess(held: HeldOut) -> tuple[dict, dict]:
  """(scalars, arrays): `probe_<score>/<input>_<classifier>` with intervals, and `gain_<score>/<one>-<other>` with the
  ends of theirs, `gain_<score>_low`, `gain_<score>_high`.
  """
  held = held.labelled()
  if not len(held.train.x) or not len(held.scored.x):
    return {"probe_reason": "Left out: probes, for no training row or no held-out row has a label."}, {}
  found = answers(held)
  names, scalars = list(found), {"probe_rows": len(held.train.x)}
  score, half = np.zeros((2, len(names), len(CLASS_SCORES)))
  for k, (name, one) in enumerate(found.items()):
    values = resampled(held, one, one.rows)
    score[k], half[k] = values[0], grouped.half_widths(values)
    scalars |= {f"probe_{what}/{name}": float(value) for what, value in zip(CLASS_SCORES, score[k])}
    scalars |= {f"probe_{what}_ci95/{name}": float(value) for what, value in zip(CLASS_SCORES, half[k])
                if np.isfinite(value)}
  gains = np.full((3, len(compared := pairs(names)), len(CLASS_SCORES)), np.nan)
  for k, (one, other) in enumerate(compared):
    rows = np.intersect1d(found[one].rows, found[other].rows)
    difference = resampled(held, found[one], rows) - resampled(held, found[other], rows)
    gains[0, k] = difference[0]
    if len(difference) > 1:
      gains[1:, k] = statistics.percentile_interval(difference[1:])
    for end, values in zip(("", "_low", "_high"), gains[:, k]):
      scalars |= {f"gain_{what}{end}/{one}-{other}": float(value) for what, value in zip(CLASS_SCORES, values)
                  if np.isfinite(value)}
  return scalars | hardest(compared, gains), {"probe_names": np.array(names), "probe_scores": score, "probe_half": half,
                   "gain_pairs": np.array(compared), "gain_values": gains}
