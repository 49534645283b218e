"""Scores of reconstructions: the original's formulas in independent code, by hand, and by their own properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from jaxtrain.experiments.semantic_compression import generators, preservation, schema
from jaxtrain.experiments.semantic_compression.schema import AGENT15, LEGACY10

RECORD = generators.draw("independent", 400, 0)


def noisy(record, size, seed=1, of=AGENT15):
  """A record with noise on numbers, a share of the range, and a share of bits and classes drawn anew."""
  random, found = np.random.default_rng(seed), {}
  for column in of.columns:
    values = np.array(record[column.name])
    if column.kind in ("continuous", "integer"):
      values = values + size * (column.high - column.low) * random.normal(size=len(values))
      found[column.name] = np.rint(values).astype(int) if column.kind == "integer" else values
    else:
      other = random.integers(0, 2 if column.kind == "binary" else len(column.classes), len(values))
      found[column.name] = np.where(random.random(len(values)) < size, other, values)
  return found


def legacy_states(seed):
  """[N, 10] vectors in the layout that the original's formulas read: x, y, health, has_target, energy, five of role."""
  random = np.random.default_rng(seed)
  x = np.concatenate([random.normal(size=(60, 2)), random.uniform(0, 1, (60, 1)), random.integers(0, 2, (60, 1)),
                      random.uniform(0, 1, (60, 1)), np.eye(5)[random.integers(0, 5, 60)]], axis=1)
  return x


def legacy_record(x):
  """The same states by name."""
  return {"position_x": x[:, 0], "position_y": x[:, 1], "health": x[:, 2], "has_target": x[:, 3], "energy": x[:, 4],
          "role": x[:, 5:].argmax(axis=1)}


def legacy_features(x):
  """The seven features of the original, from places of the vector."""
  return {"position": x[:, :2], "health": x[:, 2], "energy": x[:, 4], "role": x[:, 5:].argmax(axis=1) / 5,
          "has_target": x[:, 3], "is_alive": np.float64(x[:, 2] > 0.1),
          "threatened": np.float64((x[:, 3] == 1) & (x[:, 2] < 0.3))}


def test_scores_by_the_original_formulas():
  """Cross-entropy of hard bits with logarithms clamped at -100, mean squares of the rest, in the ten-column layout."""
  x, y = legacy_states(0), legacy_states(1)
  y[:40, 3:] = x[:40, 3:]
  y[:, :2] = x[:, :2] + 0.1 * y[:, :2]
  a, b, similarity, fidelity = legacy_features(x), legacy_features(y), {}, {}
  with np.errstate(divide="ignore"):
    for name in a:
      if name in ("has_target", "is_alive", "threatened"):
        log = lambda v: np.maximum(np.log(v), -100)
        loss = np.mean(-(a[name] * log(b[name]) + (1 - a[name]) * log(1 - b[name])))
      else:
        loss = np.mean((a[name] - b[name]) ** 2)
      similarity[name] = 1 / (1 + loss ** 0.5)
      fidelity[name] = (np.exp(-np.mean((a[name] - b[name]) ** 2) ** 0.5) if name in ("position", "health", "energy")
                        else np.mean(a[name] == b[name]))
  groups = {"spatial": (["position"], 0.554), "resources": (["health", "energy"], 0.251),
            "performance": (["is_alive", "has_target", "threatened"], 0.105), "role": (["role"], 0.050)}
  preserved = {group: np.mean([similarity[name] for name in names]) for group, (names, _) in groups.items()}
  overall = sum(weight * preserved[group] for group, (_, weight) in groups.items()) / 0.96
  equivalence = sum(weight * similarity[name] for name, weight in {
      "position": .55, "health": .15, "energy": .15, "is_alive": .05, "role": .05, "has_target": .03,
      "threatened": .02}.items())
  found = preservation.scores(LEGACY10, legacy_record(x), legacy_record(y), wrong_bit=100.0)
  for got, want in ((found.similarity, similarity), (found.preservation, preserved), (found.fidelity, fidelity)):
    assert set(got) == set(want)
    np.testing.assert_allclose([got[name] for name in want], list(want.values()), rtol=1e-12)
  assert found.overall == pytest.approx(overall, rel=1e-12)
  assert found.equivalence == pytest.approx(equivalence, rel=1e-12)
  assert found.overall_fidelity == pytest.approx(np.mean(list(fidelity.values())), rel=1e-12)
  assert found.group_fidelity["resources"] == pytest.approx((fidelity["health"] + fidelity["energy"]) / 2)


def test_scores_of_agents():
  """By hand: one role of 400 wrong, x off by 2 m of 200, one agent dead that was alive and not threatened."""
  other = {name: np.array(values) for name, values in RECORD.items()}
  k = int(np.argmax(RECORD["current_health"]))
  other["role"][0] = (other["role"][0] + 1) % 5
  other["position_x"] = other["position_x"] + 2.0
  other["current_health"][k] = 0.0
  found = preservation.scores(AGENT15, RECORD, other, similarity="exp")
  assert found.similarity["position"] == pytest.approx(np.exp(-1e-4 / 3))
  assert found.similarity["role"] == found.similarity["is_alive"] == pytest.approx(np.exp(-1 / 400))
  assert found.similarity["threatened"] == 1 and found.fidelity["role"] == 1 - 1 / 400
  assert found.fidelity["position"] == pytest.approx(np.exp(-0.01 / 3 ** 0.5))
  assert preservation.group_weights(AGENT15) == pytest.approx(
      {"spatial": 0.554, "resource": 0.251, "status": 0.04, "performance": 0.105, "role": 0.05})
  rmse, wrong = preservation.errors(AGENT15, RECORD, other)
  assert rmse["position_x"] == pytest.approx(2) and rmse["age"] == 0 and wrong == {"is_defending": 0, "role": 1 / 400}
  with pytest.raises(ValueError, match="similarity: got 'cosine', allowed root, exp"):
    preservation.scores(AGENT15, RECORD, other, similarity="cosine")
  few = {name: values[:1] for name, values in RECORD.items()}
  with pytest.raises(ValueError, match="got 400 originals and 1 reconstructions"):
    preservation.scores(AGENT15, RECORD, few)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(11)), st.floats(0, 1), st.integers(0, 2**31))
def test_columns_in_any_order_have_the_same_scores(order, size, seed):
  """From vectors in either order: whatever reads a place and not a name would differ."""
  permuted = schema.checked(AGENT15._replace(columns=tuple(AGENT15.columns[k] for k in order)))
  other = noisy(RECORD, size, seed)
  found = []
  for of in (AGENT15, permuted):
    pair = [schema.decode(of, schema.encode(of, record)) for record in (RECORD, other)]
    found.append((preservation.scores(of, *pair), preservation.details(of, *pair), preservation.errors(of, *pair)))
  assert found[0][0] == found[1][0] and found[0][2] == found[1][2]
  assert found[0][1] == found[1][1]


def test_a_perfect_and_a_worse_reconstruction():
  """All scores of the original itself are 1; more noise, less preservation."""
  perfect = preservation.scores(AGENT15, RECORD, RECORD)
  for name, score in preservation.flat(perfect).items():
    assert score == pytest.approx(1), name
  less, more = (preservation.scores(AGENT15, RECORD, noisy(RECORD, size)) for size in (0.02, 0.2))
  assert perfect.overall > less.overall > more.overall and less.equivalence > more.equivalence


def test_the_mean_predictor_and_skill():
  """A collapsed model, which says the mean and the majority, has the skill 0; a perfect one 1."""
  mean = preservation.mean_prediction(AGENT15, RECORD, 400)
  assert mean["health"] == pytest.approx(np.full(400, RECORD["health"].mean())) and not mean["is_defending"].any()
  assert mean["role"][0] == schema.ROLES[np.bincount(RECORD["role"]).argmax()] and mean["age"].dtype == np.int64
  collapsed = preservation.scores(AGENT15, RECORD, mean)
  middle = preservation.scores(AGENT15, RECORD, noisy(RECORD, 0.05))
  found = preservation.skill(middle.overall, collapsed.overall)
  assert found == pytest.approx((middle.overall - collapsed.overall) / (1 - collapsed.overall)) and 0 < found < 1
  assert preservation.skill(collapsed.overall, collapsed.overall) == 0
  assert np.isnan(preservation.skill(1.0, 1.0)) and preservation.skill(1.0, 0.5) == 1
  flat = preservation.flat(middle)
  assert flat["preservation"] == middle.overall and flat["similarity_role"] == middle.similarity["role"]
  assert flat["fidelity_role"] == middle.group_fidelity["role"]


def test_details_against_scikit_learn():
  other = noisy(RECORD, 0.3)
  found = preservation.details(AGENT15, RECORD, other)
  a, b = (np.asarray(record["is_defending"], int) for record in (RECORD, other))
  want = {"accuracy": metrics.accuracy_score(a, b), "precision": metrics.precision_score(a, b),
          "recall": metrics.recall_score(a, b), "f1": metrics.f1_score(a, b)}
  assert {name: found["has_target"][name] for name in want} == pytest.approx(want)
  assert found["has_target"]["confusion"] == metrics.confusion_matrix(a, b).tolist()
  assert found["role"]["confusion"] == metrics.confusion_matrix(RECORD["role"], other["role"]).tolist()
  for name in ("position_x", "age", "health"):
    a, b = RECORD[name], other[name]
    assert found[name]["mae"] == pytest.approx(metrics.mean_absolute_error(a, b))
    assert found[name]["rmse"] == pytest.approx(metrics.root_mean_squared_error(a, b))
  assert found["health"]["mape"] == pytest.approx(metrics.mean_absolute_percentage_error(RECORD["health"],
                                                                                         other["health"]))
  none = {name: values[:1] for name, values in RECORD.items()} | {"is_defending": np.array([False])}
  nothing = preservation.details(AGENT15, none, none)["has_target"]
  assert (nothing["precision"], nothing["recall"], nothing["f1"]) == (1, 1, 1)
