"""The loss of a codec against float64 NumPy that writes each term out, and against closed forms."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import codec_cases as cases
from jaxtrain import duals
from jaxtrain.devices import parallel
from jaxtrain.experiments.semantic_compression import objective, schema
from jaxtrain.experiments.semantic_compression.columns import Column, Feature, Schema

B, LN2 = 40, np.log(2)
X = schema.encode(cases.TOY, cases.toy_record(70))
ROWS = {"x": X[:B], "weight": (np.arange(B) % 7 > 0).astype(np.float32)}
UNIFORM = np.random.RandomState(3).uniform(size=(B, 4)).astype(np.float32)
NORMAL = np.random.RandomState(4).normal(size=(B, 4)).astype(np.float32)
KINDS = {"smoke": {"uniform": UNIFORM}, "none": {"normal": NORMAL}, "vq": {}, "fsq": {}}


def float64(tree):
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@functools.cache
def case(kind="smoke", **fields):
  """A codec of TOY by linear maps, whose parameters have random numbers added to them."""
  more = {"model.hidden_dims": (), "model.compressor.group_levels": ("a=0.5",), "model.compressor.level": 2.0}
  more |= {"model.compressor.levels": (4, 3, 2, 3)} if kind == "fsq" else {}
  more |= {"model.compressor.num_slots": 2} if kind == "vq" else {}
  made = cases.of_schema(cases.TOY, X, kind, **more | {key.replace("__", "."): v for key, v in fields.items()})
  random = np.random.RandomState(1)
  move = lambda leaf: np.asarray(leaf) + 0.1 * random.normal(size=leaf.shape).astype(np.float32)
  return made._replace(state=made.state.replace(params=jax.tree.map(move, made.state.params)))


def weights_of(problem, state):
  """{term: weight of the loss}, numbers."""
  return {name: float(value) for name, value in jax.jit(lambda: objective.weights(problem, state))().items()}


def chunk_of(kind):
  """A chunk with the random numbers of a step, and rows that dead codes move to."""
  return ROWS | KINDS[kind] | ({"fresh": np.eye(B, 16, dtype=np.float32)} if kind == "vq" else {})


def mixture(p, u, width, plan):
  """Probability [B, L] of a step around u, float64."""
  share = special.softmax(p["share"], axis=1)
  def between(centre, scale):
    law = stats.logistic(centre, scale)
    return law.cdf(u + width / 2) - law.cdf(u - width / 2)
  near = sum(share[:, m] * between(p["centre"][:, m], np.exp(p["log_scale"][:, m])) for m in range(share.shape[1]))
  return (1 - 1e-4) * near + 1e-4 * between((plan.low + plan.high) / 2, 4 * (plan.high - plan.low))


def rate_rows(p, plan, level):
  """Bits [B] of noisy latents, float64."""
  first = np.where(plan.continuous, 100 / 12**0.5 / (level * plan.factor), 1.0)
  s = first * np.exp(p["log_gain"])
  y = s * (ROWS["x"] @ p["matrix_in"] + p["shift_in"]) + UNIFORM - 0.5
  return -np.log2(mixture(p, y / s, 1 / s, plan)).sum(axis=1)


def distortions(x, r):
  """{term: [B]} of TOY's columns and features, written out; `a` has half the level, so four times the weight."""
  square = (r - x)**2
  bit = np.log1p(np.exp(-np.where(x[:, 0] > 0, 1, -1) * r[:, 0]))
  nats = special.logsumexp(r[:, 2:5], axis=1) - r[np.arange(len(r)), 2 + x[:, 2:5].argmax(axis=1)]
  p = special.expit(x[:, 1] / 0.02)  # length above 1, the middle of the range
  log = lambda v: special.log_expit(v / 0.02)
  long = special.xlogy(p, p) - p * log(r[:, 1]) + special.xlogy(1 - p, 1 - p) - (1 - p) * log(-r[:, 1])
  return {"recon": 4 * square[:, 1] + 4 * square[:, 5], "binary": bit / LN2, "categorical": nats / LN2,
          "semantic": 0.5 * square[:, 1] + 0.2 * long + 0.2 * bit + 0.1 * nats}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_term_is_its_formula(kind):
  made = case(kind)
  problem, state = made.problem, made.state
  bound = lambda name, *args: jax.jit(lambda p, *args: getattr(problem.model.bind({"params": p}), name)(*args))(
      state.params, *args)
  level = 2.0 if kind in ("smoke", "none") else 1.0
  y, log_var = float64(bound("analyse", ROWS["x"], level))
  want = {}
  if kind == "smoke":
    point = y + UNIFORM - 0.5
    want["rate"] = rate_rows(float64(state.params), problem.model.layout, 2.0)
  elif kind == "none":
    point = y + np.exp(log_var / 2) * NORMAL
    want["kl"] = 0.5 * (y**2 + np.exp(log_var) - 1 - log_var).sum(axis=1) / LN2
  elif kind == "vq":
    codes = np.asarray(state.model_state["codes"].codes, np.float64)
    parts = y.reshape(B, 2, 2)
    index = np.square(parts[:, :, None] - codes[None]).sum(axis=3).argmin(axis=2)
    point = np.stack([codes[s][index[:, s]] for s in range(2)], axis=1).reshape(B, 4)
    want["commitment"] = np.square(y - point).mean(axis=1)
  else:
    levels = np.array([4, 3, 2, 3])
    point = (2 * np.clip(np.floor((np.tanh(y) + 1) * levels / 2), 0, levels - 1) + 1) / levels - 1
  r = np.asarray(bound("synthesise", jnp.float32(point), level), np.float64)
  want |= distortions(ROWS["x"].astype(np.float64), r)
  found = jax.jit(lambda state, chunk: objective.loss_sums(problem, state.params, state, chunk, None))(
      state, chunk_of(kind))
  assert set(found.terms) == set(want) == set(problem.terms)
  for name, rows in want.items():
    assert float(found.terms[name]) == pytest.approx((ROWS["weight"] * rows).sum(), rel=2e-4, abs=1e-6), name
  square, total = found.metrics["square"]
  back = schema.encode(cases.TOY, schema.decode(cases.TOY, r) | {"kind": cases.toy_record(70)["kind"][:B]})
  np.testing.assert_allclose(square, ROWS["weight"] @ np.square(back - ROWS["x"])[:, [1, 5]], rtol=1e-3)
  assert float(total) == ROWS["weight"].sum()


def test_the_gradient_of_the_rate_is_that_of_finite_differences():
  """Of all parameters that it depends on, in float64 NumPy."""
  made = case()
  plan, start = made.problem.model.layout, float64(made.state.params)
  rate = lambda params: objective.loss_sums(made.problem, params, made.state, chunk_of("smoke"), None).terms["rate"]
  found = jax.jit(jax.grad(rate))(made.state.params)
  total = lambda p: ROWS["weight"] @ rate_rows(p, plan, 2.0)
  for name in ("share", "centre", "log_scale", "matrix_in", "shift_in", "log_gain"):
    for at in itertools.islice(np.ndindex(start[name].shape), 0, None, 3):
      moved = []
      for sign in (1, -1):
        leaf = start[name].copy()
        leaf[at] += sign * 1e-5
        moved.append(total(start | {name: leaf}))
      assert float(found[name][at]) == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=2e-3, abs=0.01), (name, at)
  assert np.abs(found["matrix_out"]).max() == 0


@pytest.mark.parametrize("level", [0.5, 2.0])
def test_an_error_at_the_level_pays_for_one_more_bit(level):
  """lambda = 1 / (2 ln 2 (c / 100)^2) is how fast the bits h - log2(e) fall with the squared error there."""
  made = case()
  problem = made.problem._replace(level=level)
  weight = weights_of(problem, made.state)
  error = level / 100
  slope = (np.log2(error * 1.0001) - np.log2(error * 0.9999)) / ((error * 1.0001)**2 - (error * 0.9999)**2)
  assert float(weight["recon"]) == pytest.approx(slope, rel=1e-4)
  assert {name: weight[name] for name in ("rate", "binary", "categorical", "semantic")} == {
      "rate": 1.0, "binary": 20.0, "categorical": 20.0, "semantic": 0.5}
  assert weights_of(case("vq").problem, case("vq").state)["recon"] == 12.0


def test_feature_weights_go_from_equal_ones_to_those_of_the_schema():
  problem = case(loss__feature_epochs=4).problem
  last = np.array([0.5, 0.2, 0.2, 0.1])
  weights = jax.jit(functools.partial(objective.feature_weights, problem))
  for step, share in ((0, 0.0), (4, 0.0), (5, 0.25), (12, 0.5), (19, 0.75), (20, 1.0), (99, 1.0)):
    np.testing.assert_allclose(weights(np.int32(step)), 0.25 + share * (last - 0.25),
                               rtol=1e-6)
  np.testing.assert_allclose(objective.feature_weights(case().problem, jnp.int32(0)), last, rtol=1e-6)


def evaluated(level, made):
  """Totals of an evaluation of 70 rows at a level."""
  problem = made.problem._replace(level=level)
  totals = objective.evaluate(problem, made.state, {"x": X, "weight": jnp.ones(70)}, cases.KEY, parallel.over_whole)
  return {name: a / b for name, (a, b) in totals.items()} | objective.summarise(problem, totals)


def test_more_level_is_fewer_bits_and_larger_errors():
  made = cases.of_schema(cases.TOY, X)
  program = jax.jit(lambda level: evaluated(level, made))
  rates, errors = zip(*((float(found["rate"]), float(found["rmse_percent"])) for found in map(program, (
      0.5, 1.0, 2.0, 5.0))))
  assert (np.diff(rates) < -1).all() and (np.diff(errors) > 0.3).all()


def test_an_evaluation_is_of_the_latent_as_it_is_coded():
  """The loss is the weighted sum of its terms; the errors are those of the decoded states."""
  made = case()
  found = jax.jit(lambda: evaluated(2.0, made))()
  weight = weights_of(made.problem, made.state)
  want = sum(weight[name] * float(found[name]) for name in made.problem.terms)
  assert float(found["loss"]) == pytest.approx(want, rel=1e-5)
  given = {"params": made.state.params, "codes": None, "level": jnp.float32(2.0)}
  back = schema.decode(cases.TOY, jax.jit(made.coder.through)(given, X))
  errors = [np.sqrt(np.mean(np.square((back[name] - cases.toy_record(70)[name]) / width)))
            for name, width in (("length", 4), ("count", 40))]
  assert float(found["rmse_percent"]) == pytest.approx(100 * np.mean(errors), rel=1e-3)


def test_codes_in_use_are_counted():
  """Four of the first slot's, as often each, and one of the second's; both means are over slots."""
  use = np.array([[4.0] * 4 + [0.0] * 12, [9.0] + [0.0] * 15], np.float32)
  problem = case("vq").problem
  found = jax.jit(lambda use: objective.summarise(problem, {"use": (use, jnp.ones(()))}))(use)
  np.testing.assert_allclose([found["perplexity"], found["codes_used"]], [2.5, 2.5], rtol=1e-6)


def gaussian(num_dims=3):
  """States of so many numbers, whose vectors are the numbers themselves."""
  names = tuple(f"x{d}" for d in range(num_dims))
  return Schema("gaussian", tuple(Column(name, "continuous", -0.5, 0.5) for name in names),
                tuple(Feature(name, "numeric", (name,)) for name in names))


@pytest.mark.parametrize("optimal", [True, False])
def test_the_bound_of_a_variational_codec_is_that_of_a_linear_gaussian_model(optimal):
  """x = w z + b + noise of deviation .2: the bound is the log evidence with the posterior as encoder, and otherwise
  short of it by the divergence from the posterior. Normals of all signs at 1 give the mean over Normals exactly."""
  sigma, unit = 0.2, 12**0.5
  w, b = np.array([0.3, 0.7, 0.05]), np.array([0.1, -0.2, 0.0])
  x = np.random.RandomState(0).normal(0, 0.4, (64, 3)).astype(np.float32)
  made = cases.of_schema(gaussian(), x, "none", **{"model.hidden_dims": (), "model.compressor.level": 20.0})
  precision = 1 + w**2 / sigma**2
  gain, variance = w / sigma**2 / precision, 1 / precision
  if not optimal:
    gain, variance = gain * np.array([0.5, 1.2, 1.0]), variance * np.array([2.0, 0.7, 1.0])
  params = {"matrix_in": np.diag(gain) / unit, "shift_in": -gain * b / unit, "matrix_out": np.diag(w) * unit,
            "shift_out": b, "log_var": np.log(variance), "log_gain": np.zeros(3)}
  state = made.state.replace(params=jax.tree.map(jnp.float32, params))
  assert set(params) == set(made.state.params)
  weight = objective.weights(made.problem, state)

  def nats(normal):
    chunk = {"x": x, "weight": jnp.ones(64), "normal": jnp.broadcast_to(normal[None], (64, 3))}
    terms = objective.loss_sums(made.problem, state.params, state, chunk, None).terms
    return weight["kl"] * terms["kl"] + weight["recon"] * terms["recon"]
  signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=3)))
  loss = float(jnp.mean(jax.jit(jax.vmap(nats))(signs))) / 64
  bound = -loss - 3 * np.log2(sigma * np.sqrt(2 * np.pi))
  evidence = stats.norm(b, np.sqrt(w**2 + sigma**2)).logpdf(x.astype(np.float64)).sum(axis=1).mean() / LN2
  posterior_mean = (x - b) * w / sigma**2 / precision
  gap = 0.5 * (variance * precision - 1 - np.log(variance * precision)
               + precision * ((x - b) * gain - posterior_mean)**2).sum(axis=1).mean() / LN2
  assert bound == pytest.approx(evidence - gap, abs=2e-4)
  assert (gap > 0.1) != optimal and bound < evidence + 2e-4


def test_the_level_rises_while_the_rate_is_above_its_target():
  problem = case(loss__target_bits=10.0).problem
  up, down = (objective.next_level(problem, duals.init(0.0), jnp.float32(rate), jnp.int32(0)) for rate in (20.0, 5.0))
  assert float(up.weight) == pytest.approx(0.01) and float(down.weight) == pytest.approx(-0.005)
  state = case().state.replace(level=up)
  assert float(objective.current_level(problem, state)) == pytest.approx(2.0 * np.exp(0.01))
  assert float(objective.current_level(case("vq").problem, case("vq").state)) == 1.0


def test_random_numbers_are_those_that_a_kind_needs():
  assert set(objective.draw(case().problem, cases.KEY, 5)) == {"uniform"}
  assert set(objective.draw(case("none").problem, cases.KEY, 5)) == {"normal"}
  assert objective.draw(case("vq").problem, cases.KEY, 5) == {}
