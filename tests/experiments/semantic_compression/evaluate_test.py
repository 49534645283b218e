"""The assessment of a codec against files, formulas and the metrics of training."""

import functools

import jax
import numpy as np
import pytest
from scipy import optimize, special, stats

import codec_cases as cases
from jaxtrain import rng
from jaxtrain.data import files
from jaxtrain.devices import parallel
from jaxtrain.experiments.semantic_compression import (apply, coding, container, evaluate, freeze, objective, oracle,
                                                       predict, preservation, schema)


@functools.cache
def case(variant="smoke", **fields):
  """A codec at its start."""
  return cases.made(variant, **{key.replace("__", "."): value for key, value in fields.items()})


@functools.cache
def assessed(variant="smoke", part="val", **fields):
  """(scalars, arrays) of a part of the assessment."""
  made = case(variant, **fields)
  return made.experiment.assess[part](made.state, made.splits, cases.KEY)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["smoke", "lattice", "vq"])
def test_real_bits_are_those_of_the_blocks_of_a_file(variant, tmp_path):
  made = case(variant)
  scalars, arrays = assessed(variant)
  symbols = apply.to_symbols(made.coder, made.state, made.x("val"))
  predict.write_file(made.coder, made.splits.meta, False, str(tmp_path / "a.jtc"), made.state, None,
                     predict.code_columns(made.coder, symbols))
  assert scalars["rows"] == len(symbols) == 40
  payload = int(container.read(tmp_path / "a.jtc").index["length"].sum())
  assert scalars["bits_per_state"] * 40 == pytest.approx(8 * payload)
  bits = coding.bits(freeze.freeze(made.problem, made.state), symbols, 1024)
  assert scalars["modelled_bits"] == pytest.approx(bits.sum(axis=1).mean())
  own = [name for name in scalars if name.startswith("bits/")]
  assert sum(scalars[name] for name in own) == pytest.approx(scalars["modelled_bits"])
  np.testing.assert_allclose(arrays["bits_of_slot"], bits.mean(axis=0))


def test_lossless_bits_are_those_of_the_blocks_of_a_lossless_file(tmp_path):
  made = case("lossless")
  scalars, _ = assessed("lossless")
  assert "lossless_bits" not in assessed()[0]
  record = schema.decode(schema.AGENT15, made.x("val"))
  given = files.Columns("in.csv", record | {"is_defending": record["is_defending"].astype(int)}, {})
  path = tmp_path / "a.jtc"
  symbols = apply.to_symbols(made.coder, made.state, made.x("val"))
  predict.write_file(made.coder, made.splits.meta, True, str(path), made.state, given,
                     predict.code_columns(made.coder, symbols))
  written = container.read(str(path))
  payload = int(written.index["length"].sum())
  assert scalars["lossless_bits"] * 40 == pytest.approx(8 * payload)
  assert scalars["lossless_bits"] > scalars["bits_per_state"] + 9
  assert scalars["lossless_file_bits"] * 40 / 8 == pytest.approx(payload + len(written.code))
  assert payload + len(written.code) < path.stat().st_size


def test_excess_bits_are_those_above_the_scalar_line():
  """By hand: of uniform columns log2(range / (rmse sqrt 12)), of an age as well, of the rest entropies."""
  made = case()
  scalars, _ = assessed()
  known = made.splits.meta["entropies"]
  back = apply.to_record(made.coder, made.state, apply.to_symbols(made.coder, made.state, made.x("val")))
  given = schema.decode(schema.AGENT15, made.x("val"))
  line = sum(known["discrete"].values())  # nothing of them is wrong
  for name, entropy in known["continuous"].items():
    rmse = np.sqrt(np.mean(np.square(given[name] - back[name])))
    assert scalars[f"rmse_percent/{name}"] == pytest.approx(
        100 * rmse / (schema.AGENT15.column[name].high - schema.AGENT15.column[name].low))
    line += entropy - np.log2(rmse * 12**0.5)
  assert known["continuous"]["position_x"] == pytest.approx(np.log2(200))
  assert scalars["wrong/role"] == scalars["wrong/is_defending"] == 0
  assert scalars["excess_bits"] == pytest.approx(scalars["bits_per_state"] - line, abs=1e-6)
  shannon = 9 * (0.5 * np.log2(2 * np.pi * np.e) - 0.5 * np.log2(12))
  assert scalars["shannon_gap"] - scalars["excess_bits"] == pytest.approx(shannon, abs=1e-6)
  errors = [scalars[f"rmse_percent/{name}"] for name in schema.AGENT15.numeric_names]
  assert scalars["rmse_percent"] == pytest.approx(np.mean(errors)) and scalars["rmse_percent_max"] == max(errors)


@pytest.mark.slow
@pytest.mark.parametrize("variant,more", [("smoke", {"model__compressor__level": 8.0}), ("vq", {})])
def test_excess_bits_of_blocks_are_those_at_their_errors(variant, more):
  """At a coarse level counts come back wrong, and of a codebook all; the lines are lower by what errors leave open."""
  fields = {"data__blocks": ("inventory", "goals")} | more
  made = case(variant, **fields)
  scalars, _ = assessed(variant, **fields)
  states, known = made.problem.schema, oracle.Entropies(**made.splits.meta["entropies"])
  names = [name for name in states.numeric_names if name.startswith("inventory")]
  rmse = {name: scalars[f"rmse_percent/{name}"] / 100 * 20 for name in names}
  assert len(rmse) == 6 and min(rmse.values()) > 1
  line = sum(max(0.0, known.integer[name] - 0.5 * np.log2(2 * np.pi * np.e * rmse[name]**2)) for name in names)
  for name, K in (("is_defending", 2), ("role", 5)):
    share = min(scalars[f"wrong/{name}"], 1 - 1 / K)
    assert (share > 0) == (variant == "vq")
    line += max(0.0, known.discrete[name] - oracle.entropy_bits([share, 1 - share]) - share * np.log2(K - 1))
  wrong = np.array([scalars[f"wrong/{name}"] for name in known.parts["goals"]])
  assert (wrong > 0).all() == (variant == "vq")
  line += max(0.0, known.discrete["goals"] - sum(oracle.entropy_bits([share, 1 - share]) for share in wrong))
  for name, entropy in known.continuous.items():
    size = states.column[name].high - states.column[name].low
    line += max(0.0, entropy - np.log2(scalars[f"rmse_percent/{name}"] / 100 * size * 12**0.5))
  # The bound of integers is that of a normal number within 1e-4 bit from an error of 1 on.
  assert scalars["excess_bits"] == pytest.approx(scalars["bits_per_state"] - line, abs=1e-3)


@pytest.mark.slow
def test_a_gaussian_source_is_measured_against_reverse_water_filling():
  """Where all components are above the water, R(D) is half the sum of log2(eigenvalue / D)."""
  fields = {"data__source": "gaussian", "data__num_states": 400, "data__num_dims": 4, "data__correlation": 0.5}
  made = case("smoke", **fields)
  scalars, _ = assessed("smoke", **fields)
  index = np.arange(4)
  eigenvalues = np.linalg.eigvalsh(0.5**np.abs(index[:, None] - index[None]))
  np.testing.assert_allclose(made.splits.meta["table"]["eigenvalues"], eigenvalues)
  D = np.mean([(scalars[f"rmse_percent/x{d}"] / 100 * 8)**2 for d in range(4)])
  rate = 0.5 * np.log2(eigenvalues / D).sum()
  assert D < eigenvalues.min()
  assert scalars["gap_per_dimension"] == pytest.approx((scalars["bits_per_state"] - rate) / 4, abs=1e-6)
  assert scalars["excess_bits"] == pytest.approx(scalars["bits_per_state"] - rate - 4 * 0.2546, abs=1e-3)


def test_components_of_a_gaussian_source_under_water_are_given_no_credit():
  """At a coarse level; the water level is a root that scipy finds."""
  fields = {"data__source": "gaussian", "data__num_states": 400, "data__num_dims": 16, "data__correlation": 0.9,
            "model__compressor__level": 5.0}
  scalars, arrays = assessed("smoke", **fields)
  eigenvalues = np.linalg.eigvalsh(0.9**np.abs(np.subtract.outer(np.arange(16), np.arange(16))))

  def lines(D):
    level = optimize.brentq(lambda t: np.minimum(t, eigenvalues).mean() - D, 1e-9, eigenvalues.max())
    wet = eigenvalues > level
    bound = 0.5 * np.log2(eigenvalues[wet] / level).sum()
    return bound, bound + wet.sum() * 0.5 * np.log2(np.pi * np.e / 6), wet.sum()
  bound, scalar, num_wet = lines(np.mean([(scalars[f"rmse_percent/x{d}"] / 100 * 8)**2 for d in range(16)]))
  assert 0 < num_wet < 12
  assert scalars["gap_per_dimension"] == pytest.approx((scalars["bits_per_state"] - bound) / 16, abs=1e-6)
  assert scalars["excess_bits"] == pytest.approx(scalars["bits_per_state"] - scalar, abs=1e-6)
  for k in (0, 20, 30):  # 0.2 %, 2 %, 6.3 % of a range of 8
    want = lines((arrays["line_rmse_percent"][k] / 100 * 8)**2)
    assert (arrays["line_shannon_bits"][k], arrays["line_scalar_bits"][k]) == pytest.approx(want[:2], abs=1e-6)
  assert arrays["line_scalar_bits"][-1] == arrays["line_shannon_bits"][-1] == 0  # 1.6 deviations: nothing is coded


def test_a_source_that_is_not_known_has_no_line():
  made = cases.of_schema(cases.TOY, schema.encode(cases.TOY, cases.toy_record(70)))
  scalars, arrays = made.experiment.assess["val"](made.state, made.splits, cases.KEY)
  assert "excess_bits" not in scalars and "line_scalar_bits" not in arrays and "action_agreement" not in scalars
  assert evaluate.line_arrays(made.splits.meta, cases.TOY) == {}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["smoke", "vq", "none"])
def test_metrics_of_training_are_those_of_the_assessment(variant):
  """Of the same states: errors and what is kept of the meaning; the rate of the density is that of the tables."""
  made = case(variant)
  scalars, arrays = assessed(variant)
  x = made.x("val")
  if variant == "none":  # an evaluation there is of samples, the assessment of means
    assert not {"bits_per_state", "excess_bits"} & set(scalars) and "bits_of_slot" not in arrays
    assert set(made.experiment.assess) == {"train", "val", "test-rate", "test-others"}
  else:
    rows = {"x": x, "weight": np.ones(len(x), np.float32)}
    totals = jax.jit(lambda: objective.evaluate(made.problem, made.state, rows, cases.KEY, parallel.over_whole))()
    found = objective.summarise(made.problem, totals)
    for name in ("rmse_percent", "preservation", "fidelity", "drift"):
      assert scalars[name] == pytest.approx(float(found[name]), rel=2e-3), name
    assert scalars["modelled_bits"] == pytest.approx(float(totals["rate"][0]) / len(x), rel=0.01)
    if variant == "vq":
      assert scalars["codes_used_share"] * 16 == pytest.approx(float(found["codes_used"]))
      assert 0 <= scalars["code_information"] <= np.log2(5)
  r = apply.straight(made.coder, made.state, x)
  given, back = (schema.decode(schema.AGENT15, v) for v in (x, r))
  kept = preservation.scores(schema.AGENT15, given, back)
  assert scalars["preservation"] == pytest.approx(kept.overall) and scalars["drift"] == pytest.approx(1 - kept.overall)
  train = schema.decode(schema.AGENT15, made.x("train"))
  mean = preservation.mean_prediction(schema.AGENT15, train, len(x))
  of_mean = preservation.scores(schema.AGENT15, given, mean).overall
  assert scalars["skill"] == pytest.approx((kept.overall - of_mean) / (1 - of_mean))
  assert 0 <= scalars["action_agreement"] <= 1 and arrays["sample_x"].shape == arrays["sample_r"].shape == x.shape


def test_the_evidence_bound_in_float64():
  """Of linear maps, by scipy's densities: numbers of a group at half the level's deviation, three classes, a bit."""
  made = cases.of_schema(cases.TOY, schema.encode(cases.TOY, cases.toy_record(300)), "none", **{
      "model.hidden_dims": (), "model.compressor.level": 3.0, "model.compressor.group_levels": ("a=0.5",)})
  random, x = np.random.RandomState(0), made.x("val").astype(np.float64)
  params = {name: value + 0.1 * random.normal(size=value.shape).astype(np.float32)
            for name, value in made.state.params.items()}
  state = made.state.replace(params=params)
  scalars, _ = made.experiment.assess["val"](state, made.splits, cases.KEY)
  P = {name: np.asarray(value, np.float64) for name, value in params.items()}
  s = 12**0.5 * np.exp(P["log_gain"])
  mean, deviation = s * (x @ P["matrix_in"] + P["shift_in"]), np.exp(0.5 * P["log_var"])
  y = mean + deviation * np.asarray(rng.normal(cases.KEY, mean.shape), np.float64)
  r = y / s @ P["matrix_out"] + P["shift_out"]
  at = cases.TOY.slices
  one = stats.norm.logpdf(x[:, at["length"]], r[:, at["length"]], 0.015)[:, 0]
  one += stats.norm.logpdf(x[:, at["count"]], r[:, at["count"]], 0.015)[:, 0]
  yes = special.expit(r[:, at["bit"]][:, 0])
  one += np.log(np.where(x[:, at["bit"]][:, 0] > 0, yes, 1 - yes))
  one += (x[:, at["kind"]] * special.log_softmax(r[:, at["kind"]], axis=1)).sum(axis=1)
  one -= (0.5 * (mean**2 + deviation**2 - 1) - np.log(deviation)).sum(axis=1)
  assert scalars["elbo_bits"] == pytest.approx(one.mean() / np.log(2), rel=1e-4)


@pytest.mark.slow
def test_the_evidence_bound_is_the_evidence_where_the_posterior_is_right():
  """Normal numbers through a linear map, whose density and posterior are known; any other posterior has less. The
  sample's error is below five standard errors of the states', which chance passes once in two million draws.
  """
  fields = {"data__source": "gaussian", "data__num_states": 8000, "data__num_dims": 4, "data__correlation": 0.5,
            "model__hidden_dims": (), "model__compressor__level": 5.0}
  made = case("none", **fields)
  b, deviation, x = 0.15, 0.05, made.x("val").astype(np.float64)
  variance = 1 / (1 + (b / deviation)**2)  # of y given x = b y + deviation e
  found, eye = {}, np.eye(4, dtype=np.float32)
  for name, factor in (("right", 1.0), ("wide", 2.0)):
    state = made.state.replace(params=made.state.params | {
        "log_gain": np.full(4, -0.5 * np.log(12), np.float32),
        "matrix_in": eye * np.float32(variance * b / deviation**2),
        "matrix_out": eye * np.float32(b), "log_var": np.full(4, np.log(variance * factor), np.float32)})
    found[name], _ = made.experiment.assess["val"](state, made.splits, cases.KEY)
  want = stats.norm.logpdf(x, 0, np.hypot(b, deviation)).sum(axis=1).mean() / np.log(2)
  error = 5 * found["right"]["elbo_bits_ci95"] / 1.96
  assert error < 0.5 and found["right"]["elbo_bits"] == pytest.approx(want, abs=error)
  # Of each dimension ln of a deviation twice as wide less half of what the wider one costs more.
  less = 4 * 0.5 * (2 - 1 - np.log(2)) / np.log(2)
  assert found["right"]["elbo_bits"] - found["wide"]["elbo_bits"] == pytest.approx(less, abs=error)


def test_lines_fall_by_a_bit_for_each_number_at_twice_the_error():
  _, arrays = assessed()
  percent, bits = arrays["line_rmse_percent"], arrays["line_scalar_bits"]
  assert np.interp(2.0, percent, bits) - np.interp(1.0, percent, bits) == pytest.approx(-9, abs=0.02)
  np.testing.assert_allclose(bits[percent < 2] - arrays["line_shannon_bits"][percent < 2], 9 * 0.25461, rtol=0.2)


def test_other_methods_are_judged_at_the_errors_of_the_codec():
  made = case()
  scalars, arrays = made.experiment.assess["test-others"](made.state, made.splits, cases.KEY)
  assert arrays == {} and all(np.isfinite(value) for value in scalars.values())
  assert {name.split("_")[0] for name in scalars} == {"baseline"}
