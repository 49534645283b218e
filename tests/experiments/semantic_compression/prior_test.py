"""Conditioned priors: the rate that is trained is that of the integers, which decode everywhere, and what they gain."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import forked
from jaxtrain import config as config_lib, loop
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import (apply, code_bytes, codec, coding, evaluate, freeze, generators,
                                                       integer_net, objective, oracle, predict, prior,
                                                       quantise, schema as schema_lib)

CONFIG = os.path.join(forked.ROOT, "configs", "semantic_compression.py")
KINDS = ("hyperprior", "previous")


def config_of(variant: str, **values):
  """A variant with 600 states and small networks; keys have __ for dots."""
  config = config_lib.read_file(f"{CONFIG}:{variant}")
  small = {"data__num_states": 600, "model__hidden_dims": (8,), "log__progress": False, "log__figures": "none"}
  for key, value in (small | values).items():
    config_lib.assign(config, key.replace("__", "."), value)
  return config_lib.resolve(config)


@functools.cache
def begun(kind: str, **values):
  """(splits, problem, state) of a codec at its start."""
  config = config_of("trajectory", model__compressor__kind=kind, **values)
  splits = codec.load(config)
  state = jax.jit(codec.make(config, splits.meta).init)(jax.random.key(0), splits.train.rows(np.arange(64)))
  return splits, codec.make_problem(config, splits.meta), state


class Made:
  """A codec that is not trained, whose prior's parameters are moved by `noise` from where they start."""

  def __init__(self, kind: str, noise: float = 0.0, **values):
    self.splits, self.problem, self.state = begun(kind, **values)
    self.meta = self.splits.meta
    random = np.random.default_rng(0)
    draw = lambda leaf: np.float32(noise) * random.normal(size=leaf.shape).astype(np.float32)
    moved = jax.tree.map(lambda leaf: np.asarray(leaf) + draw(leaf), self.state.params["prior"])
    self.state = self.state.replace(params=self.state.params | {"prior": moved})
    self.coder = apply.make_coder(self.problem)
    self.x = self.splits.train.rows(np.arange(self.splits.train.num_rows))["x"]

  @functools.cached_property
  def symbols(self):
    """[N, S] of the training states."""
    return apply.to_symbols(self.coder, self.state, self.x)

  @functools.cached_property
  def code(self):
    """Tables and integer network."""
    return freeze.freeze(self.problem, self.state)

  def logistics(self, given):
    """(mean, index of the scale) for side numbers, or for the state before."""
    apply = lambda params, given: self.problem.model.bind({"params": params}).prior.logistics(given, self.steps)
    return jax.tree.map(np.asarray, jax.jit(apply)(self.state.params, given))

  @property
  def bound(self):
    """The network with its parameters."""
    return self.problem.model.bind({"params": self.state.params})

  @functools.cached_property
  def steps(self):
    """[L] steps of a unit of u."""
    return np.asarray(jax.jit(lambda: self.bound.steps(objective.current_level(self.problem, self.state)))())


@pytest.fixture(scope="module", params=KINDS)
def made(request):
  """Each kind, with a prior that differs from state to state."""
  return Made(request.param, 0.1)


def test_bits_of_a_logistic():
  """Against the formula in float64, and 28 bits far out, where its probability is 0 in float32."""
  y, mean = np.array([0.0, 0.3, 4.0, -9.0, 120.0]), np.array([0.0, 0.1, 2.0, -8.5, 0.0])
  index = np.array([0, 8, 11, 3, 25.5])
  s = 2 ** ((index - 8) / 3)
  sigma = lambda t: 1 / (1 + np.exp(-t))
  want = -np.log2(sigma((y + 0.5 - mean) / s) - sigma((y - 0.5 - mean) / s))
  bits = jax.jit(prior.logistic_bits)(*(part.astype(np.float32) for part in (y, mean, index)))
  np.testing.assert_allclose(bits, want, rtol=2e-5)
  far = jax.jit(jax.value_and_grad(lambda y: prior.logistic_bits(y, jnp.float32(0), jnp.float32(0))))
  value, gradient = map(float, far(np.float32(1e4)))
  assert value == pytest.approx(28) and np.isfinite(gradient)


def test_an_index_is_bounded_and_comes_back():
  """A gradient passes outside of the table where a descent leads back."""
  def passed(index, slope):
    value, back = jax.vjp(prior.bounded, index)
    return value, back(slope)[0]
  value, slope = jax.jit(passed)(*np.array([[-3, -3, 5, 40, 40], [1, -1, 1, 1, -1]], np.float32))
  assert value.tolist() == [0, 0, 5, 31, 31]
  assert slope.tolist() == [0, -1, 1, 1, 0]


def test_the_latent_sees_noise_and_the_logistic_whole_numbers():
  """Value and gradients of the rate in training."""
  y, noisy, mean, index = (np.array([value], np.float32) for value in (2.1, 2.4, 1.0, 7.0))
  rate = lambda *given: jnp.sum(prior.rate_in_training(*given))
  total, found = jax.jit(jax.value_and_grad(rate, (0, 1, 2, 3)))(y, noisy, mean, index)
  bits = jax.jit(jax.value_and_grad(lambda *given: jnp.sum(prior.logistic_bits(*given)), (0, 1, 2)))
  (_, of_noisy), (value, of_whole) = (bits(at, mean, index) for at in (noisy, np.array([2.0], np.float32)))
  assert float(total) == pytest.approx(float(value), rel=1e-6)
  want = (0.0, *(float(part[0]) for part in (of_noisy[0], *of_whole[1:])))
  np.testing.assert_allclose(np.concatenate(found), np.array(want), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [(), (16,), (16, 8)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_integer_network_is_near_the_floats(kind, dims):
  """Means within half an eighth of a step and 0.03, indices within a half and 0.03, whatever its depth: hidden units
  have 10 bits after the point, weights 16 bits, and means here go up to 200 steps.
  """
  made = Made(kind, 0.2, model__compressor__prior_dims=dims)
  n = 200
  random = np.random.default_rng(1)
  L, H = made.problem.model.layout.size, made.problem.plan.num_side
  if kind == "hyperprior":
    z = random.integers(-5, 6, (n, H))
    want = made.logistics(jnp.asarray(z, jnp.float32))
    inputs = z
  else:
    k, new, first = random.integers(-20, 21, (n, L)), np.arange(n) % 3 == 0, np.arange(n) % 7 == 1
    new = new & ~first
    before = prior.Before(jnp.asarray(k, jnp.float32), jnp.asarray(new | first, jnp.float32))
    want = made.logistics(before)
    inputs = np.concatenate([new[:, None], np.where(first[:, None], 0, k), first[:, None]], axis=1).astype(int)
  mean, index = integer_net.apply(made.code.prior.net, inputs)
  assert np.abs(mean / 8 - want[0]).max() < 1 / 16 + 0.03 and np.ptp(want[0], axis=0).min() > 0.1
  assert np.abs(index - want[1]).max() < 0.5 + 0.03 and np.ptp(want[1], axis=0).min() > 0.1


def test_the_mean_starts_as_the_number_before():
  """In floats and in integers, exactly; a state that is new has the middle of each range and a scale of a quarter."""
  made, n = Made("previous"), 50
  plan, s = made.problem.model.layout, made.steps
  k = np.random.default_rng(2).integers(-14, 15, (n, plan.size))
  mean, index = made.logistics(prior.Before(k.astype(np.float32), np.zeros(n, np.float32)))
  np.testing.assert_allclose(mean, k, atol=1e-5)
  at = lambda new, k, first: integer_net.apply(made.code.prior.net, np.array([[new, *k, first]]))
  for row in k:
    assert (at(0, row, 0)[0] == 8 * row).all()
    for one, other in zip(at(1, row, 0), at(0, 0 * row, 1)):
      np.testing.assert_array_equal(one, other)
  octaves = np.log2((plan.high - plan.low) * s)
  np.testing.assert_allclose(index, np.tile(np.clip(8 + 3 * (octaves - 4), 0, 31), (n, 1)), atol=1e-4)
  mean, index = at(1, k[0], 0)
  np.testing.assert_allclose(mean[0] / 8, s * (plan.low + plan.high) / 2, atol=1 / 16 + 1e-3)
  np.testing.assert_allclose(index[0], 8 + 3 * (octaves - 2), atol=0.51)


@pytest.mark.slow
def test_the_rate_of_training_is_that_of_the_integers(made):
  """At whole numbers, in the mean over states: of a slot within 2 %, together within 0.5 %, of about 50 bits. An index
  that is rounded costs 0.015 bit of a slot where its logistic fits, and more or less where it does not, as here.
  """
  p, rows = made.problem, jnp.asarray(apply.rows_of(made.problem, made.x))
  D = p.schema.width
  y, _ = made.bound.analyse(rows[:, :D], jnp.float32(1))
  has_before = p.plan.kind == "previous"
  before = quantise.before_of(made.bound, jnp.float32(1), rows[:, D:2 * D], rows[:, 2 * D]) if has_before else None
  found = np.asarray(quantise.coded(p.plan, made.bound, None, y, jnp.float32(1), before).bits)
  bits = coding.bits(made.code, made.symbols, apply.BLOCK_SIZE)
  there = (bits < 20).all(axis=1)
  assert there.mean() > 0.9 and found.shape == bits.shape
  np.testing.assert_allclose(found[there].mean(axis=0), bits[there].mean(axis=0), rtol=0.02)
  assert found[there].sum() == pytest.approx(bits[there].sum(), rel=0.005)


def test_symbols_come_back_and_states_are_near(made):
  """Through bytes; also the states where each parameter is one unit in the last place more when the file is read."""
  p, schema = made.problem, made.problem.schema
  blocks = coding.encode(made.code, made.symbols, 128)
  raw = code_bytes.to_bytes(made.code)
  moved = jax.tree.map(lambda leaf: np.nextafter(leaf, np.float32(np.inf)), made.state.params)
  other = made.state.replace(params=moved)
  sizes = coding.block_sizes(len(made.x), 128)
  found = coding.decode(code_bytes.from_bytes(raw), blocks, sizes)
  assert (found == made.symbols).all()
  a, b = (apply.to_output(made.coder, state, found) for state in (made.state, other))
  np.testing.assert_allclose(a, b, atol=1e-4)
  direct = apply.straight(made.coder, made.state, made.x)
  np.testing.assert_allclose(a, direct, atol=1e-5)
  assert list(schema_lib.decode(schema, a)) == [column.name for column in schema.columns]
  assert found.shape[1] == p.plan.num_side + p.model.layout.size == len(apply.slots(p))


DECODE = """
import sys
import numpy as np
from jaxtrain.experiments.semantic_compression import code_bytes, coding
folder = sys.argv[1]
code = code_bytes.from_bytes(open(f"{folder}/code", "rb").read())
blocks, want = [bytes(one) for one in np.load(f"{folder}/blocks.npz").values()], np.load(f"{folder}/symbols.npy")
assert (coding.decode(code, blocks, coding.block_sizes(len(want), 128)) == want).all()
assert "jax" not in sys.modules
"""


def test_another_process_decodes_the_same(made, tmp_path):
  """Without jax and without some instructions of the processor."""
  (tmp_path / "code").write_bytes(code_bytes.to_bytes(made.code))
  np.savez(tmp_path / "blocks.npz", *[np.frombuffer(one, np.uint8)
                                      for one in coding.encode(made.code, made.symbols, 128)])
  np.save(tmp_path / "symbols.npy", made.symbols)
  done = subprocess.run([sys.executable, "-c", DECODE, str(tmp_path)], cwd=forked.ROOT, capture_output=True, text=True,
                        env=os.environ | {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}, timeout=120)
  assert done.returncode == 0, done.stderr


def test_a_file_holds_the_side_symbols(made, tmp_path):
  """What `compress` gives, as columns and as a file; the rows of the input are the order of the states."""
  columns = predict.code_columns(made.coder, made.symbols)
  path = str(tmp_path / "states.jtc")
  predict.write_file(made.coder, made.meta, False, path, made.state, None, columns)
  codes = predict.read_file(made.coder, made.meta, path, made.state)
  assert codes.whole.all() and (codes.symbols == made.symbols).all()
  names = list(columns)
  if made.problem.plan.kind == "previous":
    assert names[0] == "code_anew" and set(columns["code_anew"]) <= {0, 1} and columns["code_anew"][0] == 0
    assert predict.code_range(made.problem.plan, 0) == (0, 1)
  else:
    assert names[:4] == [f"code_side_{k}" for k in range(4)]
  back = predict.decompress(made.coder, made.state, codes, 0, jax.random.key(0))
  assert len(back["position_x"]) == len(made.x)


@pytest.mark.slow
def test_training_and_coding_see_the_same_state_before():
  """The row before in the part's own order, and blocks of 1,024."""
  x = np.arange(6000.0).reshape(3000, 2)
  found = prior.rows_before(x)
  assert (found["x_prev"][1:] == x[:-1]).all() and (found["x_prev"][0] == x[-1]).all()
  assert np.flatnonzero(found["first"]).tolist() == [0, 1024, 2048]
  made = Made("previous")
  batch = made.splits.train.rows(np.arange(len(made.x)))
  rows = apply.rows_of(made.problem, made.x)
  np.testing.assert_array_equal(rows, np.concatenate([batch["x"], batch["x_prev"], batch["first"][:, None]], axis=1))
  assert set(Made("hyperprior").splits.train.rows(np.arange(3))) == {"x"}


@pytest.mark.slow
def test_a_state_starts_anew_where_the_one_before_says_nothing():
  """At first: at the starts of agents, 12 of 600 states, and few others; among independent states nearly all do."""
  made = Made("previous", data__step_std=3.0, data__num_steps=50)
  starts = np.arange(len(made.x)) % 50 == 0
  anew = made.symbols[:, 0] == 1
  assert anew[starts][1:].mean() > 0.8 and anew[~starts].mean() < 0.05
  other = Made("previous", data__source="independent", data__step_std=3.0, data__num_steps=50,
               data__split__kind="none")
  assert other.symbols[1:, 0].mean() > 0.9


@pytest.mark.slow
def test_the_line_of_a_trajectory_has_the_decoders_error():
  """At the errors of a run, with the config's own step, whichever states are around. One state of 20 is an agent's
  first: of it nothing is known before.
  """
  made = Made("previous", data__step_std=4.0, data__num_steps=20)
  rmse = oracle.rmse_of_shares(made.problem.schema, 0.02)
  later = oracle.scalar_bits(generators.entropies("trajectory", decoder_rmse=rmse, step_std=4.0), rmse)
  # Nine numbers, of which six are uniform on their ranges, the reward on half of it, and the age on 481 of 501 values.
  known = generators.start_entropies(step_std=4.0, num_steps=20)
  first = 9 * np.log2(1 / 0.02 / 12**0.5) - 1 + np.log2(481 / 500) + known.continuous["current_health"]
  first += np.log2(5) - 0.3 * np.log2(0.3) - 0.7 * np.log2(0.7)
  want = 0.05 * first + 0.95 * later
  exact = oracle.scalar_bits(generators.entropies("trajectory", step_std=4.0), rmse)
  assert evaluate.line_scalars(made.meta, 20.0, rmse, {})["excess_bits"] == pytest.approx(20 - want)
  assert later > exact + 1 and first > later + 20


@pytest.mark.slow
def test_the_line_of_a_trajectory_in_figures():
  """The same line where all errors are 2 % of a range, the middle of the errors that are shown."""
  meta, schema = codec.load(config_of("trajectory")).meta, schema_lib.AGENT15
  arrays, rmse = evaluate.line_arrays(meta, schema), oracle.rmse_of_shares(schema, 0.02)
  assert arrays["line_rmse_percent"][4] == pytest.approx(2)
  assert arrays["line_scalar_bits"][4] == pytest.approx(-evaluate.line_scalars(meta, 0.0, rmse, {})["excess_bits"])


def test_a_code_that_is_too_wide_is_refused():
  with pytest.raises(UserError, match="config.model.compressor.kind: got previous with 2050 latent dimensions"):
    codec.load(config_of("trajectory", model__latent_dim=2050))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_of_more_slots_than_columns(kind):
  """Shared slots are conditioned too."""
  made = Made(kind, 0.05, model__latent_dim=13)
  blocks = coding.encode(made.code, made.symbols, 200)
  assert (coding.decode(made.code, blocks, coding.block_sizes(len(made.x), 200)) == made.symbols).all()


@pytest.mark.slow
def test_the_state_before_saves_what_theory_says():
  """Agents whose steps are three errors: within 3 bits of the line of the entropy rate at the run's own errors, and at
  least 20 bits below a code of each state alone. Real bits of 8,000 states of other agents; seeds are fixed.
  """
  found = {}
  for kind in ("previous", "entropy"):
    config = config_lib.read_file(f"{CONFIG}:trajectory")
    for key, value in {"model.compressor.kind": kind, "log.progress": False, "log.figures": "none"}.items():
      config_lib.assign(config, key, value)
    state = loop.train(config_lib.resolve(config)).state
    config_lib.assign(config, "data.seed", 1)
    splits = codec.load(config_lib.resolve(config))
    p = codec.make_problem(config, splits.meta)
    x = splits.train.rows(np.arange(splits.train.num_rows))["x"]
    found[kind], _ = evaluate.assess_rate(apply.make_coder(p), splits.meta, state, x, x)
  assert found["previous"]["rmse_percent"] == pytest.approx(1.0, abs=0.1)
  assert found["previous"]["excess_bits"] < 3
  assert found["entropy"]["excess_bits"] - found["previous"]["excess_bits"] > 20
