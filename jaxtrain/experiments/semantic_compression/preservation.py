"""How much meaning a reconstruction keeps: scores, skill, and detailed errors, in float64 NumPy.

Records are what `schema.decode` gives; columns and features are found by name. The loss of a feature over N states:

  numeric      mean squared error, shares of ranges squared, over the feature's columns
  binary       share of wrong bits, times `wrong_bit`: 1, or 100 for the original's cross-entropy of hard bits, whose
               logarithms are clamped at -100
  categorical  share of wrong classes; with the rule "index" the mean squared difference of class index over number

Its similarity is 1 / (1 + sqrt(loss)), or exp(-loss). Preservation of a group is the mean similarity of its features;
overall it is the mean over groups, weighted with the sum of their features' weights. Fidelity of a feature is its
accuracy, or exp(-RMSE) of a numeric one; of a group and overall the plain mean over features. Equivalence is the mean
similarity with the weights EQUIVALENCE.

**Source:** formulas, weights and bounds are those of the original system.
**Departs:** its scores read other columns than its states had; its drift had no baseline and was 0.
"""

from typing import Mapping, NamedTuple

import numpy as np

from jaxtrain.experiments.semantic_compression.columns import NUMERIC, Feature, Schema
from jaxtrain.experiments.semantic_compression.schema import Record, checked_values, num_rows

SIMILARITIES = ("root", "exp")
EQUIVALENCE = {"position": 0.55, "health": 0.15, "energy": 0.15, "is_alive": 0.05, "role": 0.05, "has_target": 0.03,
               "threatened": 0.02}
LEAST_SIZE = 1e-6  # of an original value that an error is divided by


class Scores(NamedTuple):
  """Scores of a reconstruction, all between 0 and 1; groups and features by name.

  Attributes:
    similarity: of features; preservation: of groups; overall: preservation of the state.
    fidelity: of features; group_fidelity: of groups; overall_fidelity: of the state.
    equivalence: of the state.
  """
  similarity: dict[str, float]
  preservation: dict[str, float]
  overall: float
  fidelity: dict[str, float]
  group_fidelity: dict[str, float]
  overall_fidelity: float
  equivalence: float


def feature_values(schema: Schema, feature: Feature, record: Mapping[str, np.ndarray]) -> np.ndarray:
  """A numeric feature [N, n] as shares of ranges, a binary one [N] bool, the codes [N] int64 of a categorical one."""
  known = schema.column
  columns = [checked_values(known[name], record[name]) for name in feature.columns]
  if feature.kind == "numeric":
    return np.stack([values / (known[name].high - known[name].low) for name, values in zip(feature.columns, columns)],
                    axis=1)
  if not feature.rule or feature.rule == "index":
    return columns[0]
  v, threshold = columns[0], feature.thresholds
  hard = {"above": lambda: v > threshold[0], "below": lambda: v < threshold[0],
          "between": lambda: (v > threshold[0]) & (v < threshold[1])}[feature.rule]()
  return np.logical_and.reduce([hard, *columns[1:]])


def checked_pair(schema: Schema, original: Record, reconstruction: Record) -> None:
  """Raises ValueError where two records have different numbers of rows, or none."""
  rows = num_rows(schema, original), num_rows(schema, reconstruction)
  if rows[0] != rows[1] or not rows[0]:
    raise ValueError(f"states of schema {schema.name!r}: got {rows[0]} originals and {rows[1]} reconstructions, "
                     "allowed as many, and one at least")


def feature_loss(schema: Schema, feature: Feature, original: Record, reconstruction: Record, wrong_bit: float) -> float:
  """The loss of a feature over all states."""
  a, b = (feature_values(schema, feature, record) for record in (original, reconstruction))
  if feature.kind == "numeric":
    return float(np.mean((a - b) ** 2))
  if feature.rule == "index":
    return float(np.mean(((a - b) / len(schema.column[feature.columns[0]].classes)) ** 2))
  return float(np.mean(a != b)) * (wrong_bit if feature.kind == "binary" else 1.0)


def similarity_of(loss: float, formula: str) -> float:
  """1 / (1 + sqrt(loss)) for `root`, exp(-loss) for `exp`. Raises ValueError for another formula."""
  if formula not in SIMILARITIES:
    raise ValueError(f"similarity: got {formula!r}, allowed {', '.join(SIMILARITIES)}")
  return float(1 / (1 + np.sqrt(loss)) if formula == "root" else np.exp(-loss))


def fidelity_of(schema: Schema, feature: Feature, original: Record, reconstruction: Record) -> float:
  """Accuracy of a binary or categorical feature, exp(-RMSE) of a numeric one."""
  a, b = (feature_values(schema, feature, record) for record in (original, reconstruction))
  return float(np.exp(-np.sqrt(np.mean((a - b) ** 2))) if feature.kind == "numeric" else np.mean(a == b))


def groups_of(schema: Schema) -> dict[str, tuple[Feature, ...]]:
  """The features of each group, groups in the order of their first feature."""
  return {group: tuple(feature for feature in schema.features if feature.group == group)
          for group in dict.fromkeys(feature.group for feature in schema.features)}


def group_weights(schema: Schema) -> dict[str, float]:
  """The weight of each group, the sum of its features', of sum 1."""
  raw = {group: sum(feature.weight for feature in members) for group, members in groups_of(schema).items()}
  return {group: weight / sum(raw.values()) for group, weight in raw.items()}


def equivalence_weights(schema: Schema) -> dict[str, float]:
  """The weights EQUIVALENCE of the features that a schema has, of sum 1; if it has none of these, its own weights."""
  raw = {feature.name: EQUIVALENCE[feature.name] for feature in schema.features if feature.name in EQUIVALENCE}
  raw = raw if raw else {feature.name: feature.weight for feature in schema.features}
  return {name: weight / sum(raw.values()) for name, weight in raw.items()}


def scores(schema: Schema, original: Record, reconstruction: Record, similarity: str = "root",
           wrong_bit: float = 1.0) -> Scores:
  """The scores of N reconstructed states.

  Args:
    similarity: one of SIMILARITIES.
    wrong_bit: loss of a wrong bit.
  """
  checked_pair(schema, original, reconstruction)
  alike = {feature.name: similarity_of(feature_loss(schema, feature, original, reconstruction, wrong_bit), similarity)
           for feature in schema.features}
  right = {feature.name: fidelity_of(schema, feature, original, reconstruction) for feature in schema.features}
  mean = lambda of: {group: float(np.mean([of[feature.name] for feature in members]))
                     for group, members in groups_of(schema).items()}
  preserved = mean(alike)
  overall = sum(weight * preserved[group] for group, weight in group_weights(schema).items())
  equivalence = sum(weight * alike[name] for name, weight in equivalence_weights(schema).items())
  return Scores(alike, preserved, overall, right, mean(right), float(np.mean(list(right.values()))), equivalence)


def mean_prediction(schema: Schema, train: Record, num_states: int) -> Record:
  """The mean of numeric and the most frequent value of other columns of training rows, as so many reconstructions."""
  num_rows(schema, train)
  found: Record = {}
  for column in schema.columns:
    values = checked_values(column, train[column.name])
    if column.kind in NUMERIC:
      value = values.mean() if column.kind == "continuous" else np.int64(np.rint(values.mean()))
    else:
      value = np.bincount(values.astype(np.int64)).argmax()
      value = bool(value) if column.kind == "binary" else column.classes[value]
    found[column.name] = np.full(num_states, value)
  return found


def skill(score: float, mean_score: float) -> float:
  """(P - P_mean) / (1 - P_mean): 1 is perfect, 0 as good as the mean and majority predictor, NaN where that is perfect.
  """
  return (score - mean_score) / (1 - mean_score) if mean_score < 1 else float("nan")


def flat(found: Scores) -> dict[str, float]:
  """Scores as metrics: `preservation`, `preservation_GROUP`, `similarity_FEATURE`, `fidelity`, `fidelity_GROUP`,
  `equivalence`.
  """
  return ({"preservation": found.overall, "fidelity": found.overall_fidelity, "equivalence": found.equivalence}
          | {f"preservation_{group}": score for group, score in found.preservation.items()}
          | {f"fidelity_{group}": score for group, score in found.group_fidelity.items()}
          | {f"similarity_{feature}": score for feature, score in found.similarity.items()})


def errors(schema: Schema, original: Record, reconstruction: Record) -> tuple[dict[str, float], dict[str, float]]:
  """(root mean squared error of each numeric column in physical units, share of wrong values of each other one)."""
  checked_pair(schema, original, reconstruction)
  rmse, wrong = {}, {}
  for column in schema.columns:
    a, b = (checked_values(column, record[column.name]) for record in (original, reconstruction))
    if column.kind in NUMERIC:
      rmse[column.name] = float(np.sqrt(np.mean((a - b) ** 2)))
    else:
      wrong[column.name] = float(np.mean(a != b))
  return rmse, wrong


def details(schema: Schema, original: Record, reconstruction: Record) -> dict[str, dict[str, object]]:
  """Detailed errors by name: of numeric columns `mae`, `rmse` (physical units) and `mape` (a share); of binary features
  `accuracy`, `precision`, `recall`, `f1` (1 where nothing is divided) and `confusion`; of categorical features
  `accuracy` and `confusion`. Rows of a confusion matrix [K, K] are original classes, columns reconstructed ones.
  """
  rmse, _ = errors(schema, original, reconstruction)
  found: dict[str, dict[str, object]] = {}
  for name in schema.numeric_names:
    a, b = (checked_values(schema.column[name], record[name]) for record in (original, reconstruction))
    found[name] = {"mae": float(np.mean(np.abs(a - b))), "rmse": rmse[name],
                   "mape": float(np.mean(np.abs(a - b) / np.maximum(np.abs(a), LEAST_SIZE)))}
  for feature in schema.features:
    if feature.kind == "numeric":
      continue
    a, b = (feature_values(schema, feature, record).astype(np.int64) for record in (original, reconstruction))
    K = 2 if feature.kind == "binary" else len(schema.column[feature.columns[0]].classes)
    confusion = np.bincount(K * a + b, minlength=K * K).reshape(K, K)
    found[feature.name] = {"accuracy": float(np.mean(a == b)), "confusion": confusion.tolist()}
    if feature.kind == "binary":
      found[feature.name] |= precision_recall(confusion)
  return found


def precision_recall(confusion: np.ndarray) -> dict[str, float]:
  """Precision, recall and F1 of a confusion matrix [2, 2], 1 where the denominator is 0."""
  (_, false_yes), (false_no, true_yes) = confusion
  ratio = lambda part, whole: float(part / whole) if whole else 1.0
  return {"precision": ratio(true_yes, true_yes + false_yes), "recall": ratio(true_yes, true_yes + false_no),
          "f1": ratio(2 * true_yes, 2 * true_yes + false_yes + false_no)}
