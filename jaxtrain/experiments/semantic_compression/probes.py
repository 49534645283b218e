"""What can be read from the symbols of a state alone, and which slot carries it.

A probe is a small model from symbols to a feature, fitted on training states and judged on held-out ones: how much
meaning is in the code, apart from what the decoder makes of it. Of a codebook a code is one of K, else a number.

**Source:** Alain & Bengio 2017 (Understanding intermediate layers using linear classifier probes).
"""

import warnings
from typing import Any

import numpy as np

from jaxtrain.experiments.semantic_compression import (apply, behaviour, coding, freeze, preservation,
                                                       schema as schema_lib)
from jaxtrain.types import Metric

METRICS = {
    "probe_linear": Metric("", "share right (R2 of numbers) of a linear model that reads a feature from the symbols",
                           "higher"),
    "probe_mlp": Metric("", "the same of a network of 64 units", "higher"),
    "meaning_per_bit": Metric("1 / bit", "mean over features of the better probe, over the modelled bits of a "
                              "state", "higher"),
    "drop": Metric("", "preservation that is lost where a slot's symbol is that of another state"),
}
MOST_ROWS = 4000  # training states of a probe


def inputs(p: Any, symbols: np.ndarray, fitted_on: np.ndarray) -> np.ndarray:
  """What probes read [N, .]: one of K for a codebook, else the numbers in deviations of the training symbols."""
  if p.plan.kind == "vq":
    return np.concatenate([np.eye(p.plan.num_codes, dtype=np.float32)[column] for column in symbols.T], axis=1)
  return (symbols - fitted_on.mean(axis=0)) / np.maximum(fitted_on.std(axis=0), 1e-6)


def targets(schema: schema_lib.Schema, x: np.ndarray) -> dict[str, np.ndarray]:
  """What is read, [N] or [N, n] by name: the features of states x [N, D], and the action of the rule policy."""
  record = schema_lib.decode(schema, x)
  found = {feature.name: preservation.feature_values(schema, feature, record) for feature in schema.features}
  found = {name: value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value for name, value in found.items()}
  if behaviour.applies(schema):
    found["action"] = behaviour.actions(schema, record)
  return found


def fit(kind: str, numeric: bool):
  """A probe that is not fitted yet."""
  from sklearn import linear_model, neural_network, pipeline, preprocessing  # slow to import, and no need of training
  if kind == "linear":
    return linear_model.Ridge() if numeric else linear_model.LogisticRegression(max_iter=200)
  network = neural_network.MLPRegressor if numeric else neural_network.MLPClassifier
  return pipeline.make_pipeline(preprocessing.StandardScaler(),
                                network(hidden_layer_sizes=(64,), max_iter=30, random_state=0))


def score(kind: str, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
  """R2 of numbers, or the share that is right, of held-out (inputs, targets); where the
  training states have one class alone, the share of it.
  """
  numeric = train[1].dtype.kind == "f"
  if not numeric and len(np.unique(train[1])) < 2:
    return float(np.mean(test[1] == train[1][0]))
  from sklearn import exceptions
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # a probe is small on purpose, and stops early
    model = fit(kind, numeric).fit(*train)
  return float(model.score(*test))


def assess(coder: apply.Coder, state: Any, train: np.ndarray, x: np.ndarray) -> tuple[dict, dict]:
  """(scalars, arrays) of the probes of each feature, and of what is lost without each slot, for states x [N, D]."""
  p, train = coder.problem, train[:MOST_ROWS]
  fitted_on, symbols = apply.to_symbols(coder, state, train), apply.to_symbols(coder, state, x)
  a, b = inputs(p, fitted_on, fitted_on), inputs(p, symbols, fitted_on)
  known, asked = targets(p.schema, train), targets(p.schema, x)
  scalars = {}
  for kind in ("linear", "mlp"):
    for name in known:
      scalars[f"probe_{kind}/{name}"] = score(kind, (a, known[name]), (b, asked[name]))
  best = [max(0.0, *(scalars[f"probe_{kind}/{name}"] for kind in ("linear", "mlp"))) for name in known]
  bits = coding.bits(freeze.freeze(p, state), symbols, apply.BLOCK_SIZE).sum(axis=1).mean()
  scalars["meaning_per_bit"] = float(np.mean(best) / max(bits, 1e-6))
  lost = drop(coder, state, symbols, x)
  names = [name for name, _ in apply.slots(p)]
  return scalars | {f"drop/{name}": value for name, value in zip(names, lost.mean(axis=1))}, {"drop": lost}


def drop(coder: apply.Coder, state: Any, symbols: np.ndarray, x: np.ndarray) -> np.ndarray:
  """[S, F]: similarity of each feature that is lost where the symbols of a slot are dealt out anew among the states."""
  p, random = coder.problem, np.random.RandomState(0)
  given = schema_lib.decode(p.schema, x)
  alike = lambda s: np.array(list(preservation.scores(p.schema, given, apply.to_record(coder, state, s)
                                                      ).similarity.values()))
  whole, found = alike(symbols), []
  for s in range(symbols.shape[1]):
    mixed = symbols.copy()
    mixed[:, s] = random.permutation(mixed[:, s])
    found.append(whole - alike(mixed))
  return np.stack(found)
