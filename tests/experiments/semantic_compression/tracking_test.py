"""What is followed from epoch to epoch against the scores of whole records in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import codec_cases as cases
from jaxtrain.experiments.semantic_compression import generators, preservation, schema, tracking

N = 300
LEGACY = {**{name: np.random.RandomState(k).normal(0.2, 0.3, N) for k, name in enumerate(
    ("position_x", "position_y", "health", "energy"))}, "has_target": np.arange(N) % 2, "role": np.arange(N) % 5}
RECORDS = {"toy": (cases.TOY, cases.toy_record(N)), "agent15": (schema.AGENT15, generators.draw("independent", N, 0)),
           "blocks": (schema.with_blocks(schema.AGENT15, ("inventory", "goals")),
                      generators.draw("independent", N, 1, ("inventory", "goals"))),
           "legacy10": (schema.LEGACY10, LEGACY)}


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("name", RECORDS)
def test_scores_are_those_of_the_decoded_states(name, noise):
  """In two halves whose sums are added, one with rows of padding that say nothing."""
  states, record = RECORDS[name]
  x = schema.encode(states, record)
  random = np.random.RandomState(5)
  r = (x + noise * random.normal(size=x.shape)).astype(np.float32)
  for column in states.columns:
    if column.kind == "categorical":  # logits, the right one the largest but for noise
      r[:, states.slices[column.name]] *= 4
  lost = jax.jit(lambda x, r, weight: tracking.lost(states, x, tracking.rounded(states, r), weight))
  pad = np.concatenate([x[200:], np.ones_like(x[:100])]), np.concatenate([r[200:], 9 * np.ones_like(r[:100])])
  weight = np.concatenate([np.ones(N - 200), np.zeros(100)]).astype(np.float32)
  total = lost(x[:200], r[:200], jnp.ones(200)) + lost(*pad, weight)
  found = tracking.scores(states, total / N)
  want = preservation.scores(states, schema.decode(states, x), schema.decode(states, r))
  assert float(found["preservation"]) == pytest.approx(want.overall, abs=2e-4)
  assert float(found["fidelity"]) == pytest.approx(want.overall_fidelity, abs=2e-4)
  assert float(found["drift"]) == pytest.approx(1 - want.overall, abs=2e-4)
  for group, score in want.preservation.items():
    assert float(found[f"drift/{group}"]) == pytest.approx(1 - score, abs=2e-4)
  assert (want.overall > 0.999) == (noise == 0)


def test_integers_are_rounded_as_decoding_does():
  r = np.random.RandomState(0).normal(0, 0.4, (50, 6)).astype(np.float32)
  back = np.asarray(tracking.rounded(cases.TOY, jnp.asarray(r)), np.float64)
  np.testing.assert_allclose(back[:, 5] * 40 + 20, schema.decode(cases.TOY, r)["count"], atol=1e-4)
  np.testing.assert_array_equal(back[:, :5], r[:, :5])
