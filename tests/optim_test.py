"""Update rules, clip, plateau and moving average against NumPy float64 written from the papers."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrain import config as config_lib, optim, step
from jaxtrain.data import arrays
from jaxtrain.devices.parallel import over_whole
from jaxtrain.types import Experiment, TrainState

NUM_STEPS = 6
# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def section(**fields):
  """`config.optim` with some fields changed; `plateau__factor` means plateau.factor."""
  config = config_lib.common()
  config.optim.decay_steps = 100
  for name, value in fields.items():
    config_lib.assign(config, "optim." + name.replace("__", "."), value)
  return config.optim


def problem(seed=0, scale=1.0):
  """Parameters of two arrays and a gradient for each step, float64."""
  random = np.random.RandomState(seed)
  shapes = {"a": (3, 2), "b": (4,)}
  params = {k: random.normal(0, 0.5, s) for k, s in shapes.items()}
  return params, [{k: scale * random.normal(0, 1, s) for k, s in shapes.items()} for _ in range(NUM_STEPS)]


def float32(tree):
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def run(settings, params, grads):
  """Parameters after each update and the metrics of each."""
  tx = optim.make(settings, 10)
  params = float32(params)
  update = jax.jit(tx.update, compiler_options=QUICK)
  state, all_params, all_metrics = tx.init(params), [], []
  for t, g in enumerate(grads):
    params, state, metrics = update(float32(g), state, params, jnp.int32(t), (jnp.float32(1), jnp.float32(1)))
    all_params.append(params)
    all_metrics.append(jax.device_get(metrics))
  return all_params, all_metrics


def compare(got, want, **tolerance):
  for g, w in zip(got, want, strict=True):
    for name in w:
      np.testing.assert_allclose(g[name], w[name], **({"rtol": 2e-5, "atol": 2e-6} | tolerance))


def flat(tree):
  return np.concatenate([np.ravel(tree[k]) for k in sorted(tree)])


def by_leaf(rule, params, grads):
  """Runs `rule(p, g, memory, t) -> p` on each array by itself, t counted from 1."""
  memory = {k: {} for k in params}
  path = []
  for t, g in enumerate(grads, start=1):
    params = {k: rule(params[k], g[k], memory[k], t) for k in params}
    path.append(params)
  return path


def adam_direction(g, memory, t, b1, b2, eps):
  """Kingma & Ba 2015, algorithm 1, without the step size."""
  memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
  memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g ** 2
  return (memory["m"] / (1 - b1 ** t)) / (np.sqrt(memory["v"] / (1 - b2 ** t)) + eps)


@pytest.mark.parametrize("eps, scale", [(1e-8, 1.0), (0.1, 1.0), (1e-3, 1e-3)])
def test_adam(eps, scale):
  params, grads = problem(scale=scale)
  rule = lambda p, g, memory, t: p - 0.02 * adam_direction(g, memory, t, 0.8, 0.95, eps)
  got, metrics = run(section(learning_rate=0.02, betas=(0.8, 0.95), eps=eps), params, grads)
  compare(got, by_leaf(rule, params, grads))
  np.testing.assert_allclose([m["lr"] for m in metrics], 0.02, rtol=1e-6)
  np.testing.assert_allclose([m["grad_norm"] for m in metrics], [np.linalg.norm(flat(g)) for g in grads], rtol=1e-5)


def test_clip_then_adam_as_the_hybrid_recipe():
  params, grads = problem(1)
  grads = [{k: g[k] * s for k in g} for g, s in zip(grads, (0.01, 0.1, 1.0, 10.0, 1e3, 0.2))]
  clipped = []
  for g in grads:  # over all arrays together
    factor = min(1.0, 1.0 / (np.linalg.norm(flat(g)) + 1e-6))
    clipped.append({k: factor * g[k] for k in g})
  assert clipped[0]["a"][0, 0] == grads[0]["a"][0, 0] and clipped[3]["a"][0, 0] != grads[3]["a"][0, 0]
  rule = lambda p, g, memory, t: p - 1e-2 * adam_direction(g, memory, t, 0.9, 0.999, 1e-8)
  got, metrics = run(section(learning_rate=1e-2, clip_norm=1.0), params, grads)
  compare(got, by_leaf(rule, params, clipped))
  # The norm that is reported is the one before the clip.
  np.testing.assert_allclose([m["grad_norm"] for m in metrics], [np.linalg.norm(flat(g)) for g in grads], rtol=1e-5)


def test_clip_factor_holds_pytorchs_millionth():
  got = [float(optim.clip_factor(jnp.float32(norm), 1e-6)) for norm in (0.0, 1e-6, 3e-6)]
  np.testing.assert_allclose(got, [1.0, 0.5, 0.25], rtol=1e-5)


def test_weight_decay_of_adam_is_an_l2_penalty_in_the_clipped_gradient():
  params, grads = problem(2)
  clipped = [{k: g[k] * min(1.0, 0.5 / (np.linalg.norm(flat(g)) + 1e-6)) for k in g} for g in grads]
  rule = lambda p, g, memory, t: p - 0.02 * adam_direction(g + 0.3 * p, memory, t, 0.9, 0.999, 1e-8)
  got, _ = run(section(learning_rate=0.02, weight_decay=0.3, clip_norm=0.5), params, grads)
  compare(got, by_leaf(rule, params, clipped))


def test_weight_decay_of_adamw_is_decoupled():
  params, grads = problem(3)
  rule = lambda p, g, memory, t: p - 0.02 * (adam_direction(g, memory, t, 0.9, 0.999, 1e-8) + 0.3 * p)
  got, _ = run(section(name="adamw", learning_rate=0.02, weight_decay=0.3), params, grads)
  compare(got, by_leaf(rule, params, grads))


@pytest.mark.parametrize("momentum, decay", [(0.0, 0.0), (0.9, 0.0), (0.9, 0.2)])
def test_sgd_with_heavy_ball_momentum_and_l2_penalty(momentum, decay):
  params, grads = problem(4)

  def rule(p, g, memory, t):
    memory["v"] = momentum * memory.get("v", 0.0) + g + decay * p
    return p - 0.1 * memory["v"]

  got, _ = run(section(name="sgd", learning_rate=0.1, betas=(momentum, 0.5), weight_decay=decay), params, grads)
  compare(got, by_leaf(rule, params, grads))


def test_lamb_scales_each_array_by_its_trust_ratio():
  params, grads = problem(5)

  def rule(p, g, memory, t):  # You et al. 2020, algorithm 2 with phi the identity
    r = adam_direction(g, memory, t, 0.9, 0.999, 1e-6) + 0.1 * p
    return p - 0.05 * np.linalg.norm(p) / np.linalg.norm(r) * r

  got, _ = run(section(name="lamb", learning_rate=0.05, weight_decay=0.1, eps=1e-6), params, grads)
  compare(got, by_leaf(rule, params, grads))


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_lion_follows_the_sign_of_the_interpolated_momentum(decay):
  params, grads = problem(6)

  def rule(p, g, memory, t):  # Chen et al. 2023, algorithm 2
    m = memory.get("m", 0.0)
    memory["m"] = 0.95 * m + 0.05 * g
    return p - 0.03 * (np.sign(0.6 * m + 0.4 * g) + decay * p)

  got, _ = run(section(name="lion", learning_rate=0.03, betas=(0.6, 0.95), weight_decay=decay), params, grads)
  compare(got, by_leaf(rule, params, grads))


def test_the_learning_rate_follows_warm_up_and_cosine():
  params, grads = problem(7)
  settings = section(name="sgd", betas=(0.0, 0.0), learning_rate=0.2, schedule="warmup_cosine", warmup_steps=2,
                     decay_steps=5, end_value=0.1)
  got, metrics = run(settings, params, grads)
  cosine = lambda part: 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * part))
  rates = 0.2 * np.array([0.0, 0.5, 1.0, cosine(1 / 3), cosine(2 / 3), 0.1])
  np.testing.assert_allclose([m["lr"] for m in metrics], rates, rtol=1e-5, atol=1e-8)
  moved = lambda k, n: params[k] - sum(r * g[k] for r, g in zip(rates[:n], grads))
  want = [{k: moved(k, n) for k in params} for n in range(1, NUM_STEPS + 1)]
  compare(got, want)


def test_an_unknown_rule_is_refused():
  settings = section()
  with settings.unlocked():
    settings.name = "adagrad"
  with pytest.raises(ValueError, match="config.optim.name.*adagrad.*lamb"):
    optim.make(settings, 10)


def test_moving_average():
  params, grads = problem(8)
  ema = want = float32(params)
  for g in grads:
    ema = optim.update_ema(ema, float32(g), 0.9)
    want = {k: 0.9 * np.asarray(want[k], np.float64) + 0.1 * g[k] for k in want}
  compare([ema], [want])
  assert optim.update_ema(None, params, 0.9) is None


class PyTorchPlateau:
  """ReduceLROnPlateau(mode="min", threshold_mode="rel", cooldown=0, min_lr=0), from its documentation."""

  def __init__(self, factor, patience, threshold):
    self.factor, self.patience, self.threshold = factor, patience, threshold
    self.best, self.num_bad_epochs, self.scale = np.inf, 0, 1.0

  def step(self, value):
    if value < self.best * (1 - self.threshold):
      self.best, self.num_bad_epochs = value, 0
    else:
      self.num_bad_epochs += 1
    if self.num_bad_epochs > self.patience:
      if LEARNING_RATE * self.scale * (1 - self.factor) > 1e-8:
        self.scale *= self.factor
      self.num_bad_epochs = 0
    return self.scale


LEARNING_RATE = 3e-7  # few cuts away from the smallest


@jax.jit
def plateau_path(values, factor, patience, threshold):
  """The factor after each value."""
  chosen = types.SimpleNamespace(factor=factor, patience=patience, threshold=threshold)
  def one(plateau, value):
    plateau = optim.judge_plateau(plateau, value, chosen, LEARNING_RATE)
    return plateau, plateau.scale
  return jax.lax.scan(one, optim.init_plateau(), values)[1]


# Quarters and powers of two: no comparison is within float32 rounding of a tie.
@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(st.integers(1, 24), min_size=60, max_size=60), st.integers(0, 12),
       st.sampled_from([0.0, 1e-4, 0.25, 0.5]), st.sampled_from([0.5, 0.25]), st.booleans())
def test_plateau_cuts_when_pytorchs_does(quarters, patience, threshold, factor, falling):
  values = np.asarray(quarters) / 4
  if falling:
    values = np.minimum.accumulate(values) + np.where(np.arange(60) % 7 == 3, 0.25, 0.0)
  reference = PyTorchPlateau(factor, patience, threshold)
  want = np.array([reference.step(v) for v in values])
  got = np.asarray(plateau_path(jnp.asarray(values, jnp.float32), factor, patience, threshold))
  np.testing.assert_array_equal(got, want.astype(np.float32))


def test_plateau_counts_a_nan_as_no_progress():
  values = [3.0, float("nan"), float("nan"), 2.0, float("nan")]
  got = np.asarray(plateau_path(jnp.asarray(values), 0.5, 1, 1e-4))
  np.testing.assert_array_equal(got, [1.0, 1.0, 0.5, 0.5, 0.5])


def test_plateau_on_the_training_loss_decides_once_an_epoch_on_the_mean_over_rows():
  """Through the real step: 7 rows in batches of 3, 3 and 1, whose order changes every epoch."""
  column = np.array([1.0, 2, 4, 8, 16, 32, 64], np.float32)
  # One value per epoch; ties within 1e-4 count as no progress. Means of batch means would wander by tens of per cent.
  level = np.array([1.0, 1.0, 0.99995, 0.9, 0.9, 0.9, 0.9, 0.8, 1.0, 1.0, 1.0, 1.0])
  settings = section(name="sgd", learning_rate=0.25, plateau__factor=0.5, plateau__patience=1)
  source = arrays.table_source({"x": column}, 3, True)
  tx = optim.make(settings, source.num_batches)

  def loss_sums(params, state, chunk, key):
    return step.Chunk({"recon": chunk["weight"] @ chunk["x"] + 0.0 * params})

  weights = lambda state: {"recon": jnp.asarray(level, jnp.float32)[state.step // 3]}
  train_step = step.make_train_step(loss_sums, lambda batch: {"recon": jnp.sum(batch["weight"])}, weights, tx)
  params = jnp.zeros(())
  state = TrainState(jnp.int32(0), jax.random.key(3), params, {}, tx.init(params), None, step.init_guard())
  one_step = step.make_one_step(Experiment(None, train_step, None), source, over_whole, "halt")
  none = step.zero_totals(jax.eval_shape(one_step, state, source.data, step.stream_keys(state))[1])
  repeat = jax.jit(step.make_repeat(one_step), compiler_options=QUICK)

  reference, scale = PyTorchPlateau(0.5, 1, 1e-4), 1.0
  batch_means_differ = False
  for epoch in range(len(level)):
    total = 0.0
    for position in range(3):
      state, metrics = repeat(state, none, source.data, 1)
      assert float(metrics["lr"][0]) == 0.25 * scale, (epoch, position)  # nothing moves inside an epoch
      total += float(metrics["loss"][0])
      batch_means_differ |= abs(float(metrics["loss"][0] / metrics["loss"][1]) - level[epoch] * column.mean()) > 1.0
    np.testing.assert_allclose(total, level[epoch] * column.sum(), rtol=1e-5)
    scale = reference.step(level[epoch] * column.astype(np.float64).mean())
    assert float(state.opt_state.plateau.scale) == scale, epoch
    assert float(state.opt_state.plateau.loss_count) == 0.0
  assert scale == 0.0625 and batch_means_differ


def test_plateau_on_an_evaluated_metric_moves_by_observe_alone():
  settings = section(plateau__factor=0.1, plateau__patience=0, plateau__monitor="val_loss")
  tx, params = optim.make(settings, 1), {"a": jnp.ones(2)}
  state, update = tx.init(params), jax.jit(tx.update, compiler_options=QUICK)
  for t in range(3):
    params, state, _ = update({"a": jnp.ones(2)}, state, params, jnp.int32(t), (jnp.float32(t), jnp.float32(1)))
  assert float(state.plateau.scale) == 1.0
  state = tx.observe(state, {"val_loss": jnp.float32(2.0), "train_loss": jnp.float32(1.0)})
  assert float(state.plateau.scale) == 1.0
  state = tx.observe(state, {"val_loss": jnp.float32(2.0), "train_loss": jnp.float32(0.5)})
  assert float(state.plateau.scale) == pytest.approx(0.1)
  _, _, metrics = update({"a": jnp.ones(2)}, state, params, jnp.int32(3), (jnp.float32(1), jnp.float32(1)))
  assert float(metrics["lr"]) == pytest.approx(1e-4)


def test_plateau_on_the_training_loss_ignores_observe():
  tx = optim.make(section(plateau__factor=0.1, plateau__patience=0), 5)
  state = tx.init({"a": jnp.ones(2)})
  for _ in range(3):
    state = tx.observe(state, {"train_loss": jnp.float32(1.0)})
  assert float(state.plateau.scale) == 1.0 and int(state.plateau.num_bad) == 0


def test_a_plateau_decides_once_a_step_of_several_updates():
  """Two updates a step, one step an epoch, patience 1 and no progress: the third epoch cuts, not the second."""
  tx = optim.make(section(name="sgd", learning_rate=0.5, plateau__factor=0.5, plateau__patience=1), 1)
  params, one = jnp.zeros(2), (jnp.float32(1), jnp.float32(1))
  state, rates = tx.init(params), []
  for k in range(4):
    _, state, _ = tx.update(jnp.zeros(2), state, params, jnp.int32(k), one, is_last=False)
    _, state, metrics = tx.update(jnp.zeros(2), state, params, jnp.int32(k), one)
    rates.append(float(metrics["lr"]))
  assert rates == [0.5, 0.5, 0.5, 0.25]
