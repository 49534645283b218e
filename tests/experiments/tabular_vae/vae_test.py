"""The tabular VAE's loss, gradient and statistics against a second implementation in NumPy float64.

The reference below is written from spec tabular_vae 3 and 4. It shares with the code only the parameters and the random
numbers: noise, dropout and masks are drawn from the same keys in the same order.
"""

import functools
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import config as config_lib
from jaxtrain import parallel, rng, step
from jaxtrain.experiments.tabular_vae import vae
from jaxtrain.types import UserError

get_config = runpy.run_path(str(pathlib.Path(__file__).parents[3] / "configs/vae.py"))["get_config"]
B, REAL, D, L, K = 24, 17, 6, 10, 7
STEPS_PER_EPOCH = 932
STEP = 2 * STEPS_PER_EPOCH + 5  # in the third epoch: t = 2
META = {"features": list("abcdef"), "num_features": D, "class_names": [f"rock {k}" for k in range(K)],
        "steps_per_epoch": STEPS_PER_EPOCH}
VARIANTS = ("standard", "standard_semisup", "hybrid", "hybrid_semisup")
RATE = {"standard": 10.0, "hybrid": 1000.0}  # so that float32 parameters show the gradient to six digits


class Recipe:
  """The constants of spec tabular_vae 4, typed in again."""

  def __init__(self, variant):
    self.hybrid, self.classifies = variant.startswith("hybrid"), variant.endswith("semisup")
    self.alpha = 0.5 if self.hybrid else 0.1
    self.mask_rate, self.masked_weight = (0.1, 0.5) if self.hybrid else (0.0, None)

  def beta(self, epoch):
    return 1e-6 + (0.5 - 1e-6) * min(epoch / 30, 1.0) if self.hybrid else 1.0


def float64(tree):
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def linear(p, x):
  """x @ W + b; the code stores W with its longer side last."""
  kernel = p["kernel"] if x.shape[1] <= len(p["bias"]) else p["kernel"].T
  return x @ kernel + p["bias"]


def stack(p, running, x, weight, train):
  """[Linear, ReLU, BatchNorm] twice; returns the output and the new running statistics."""
  new = {}
  for i in range(2):
    h, name = np.maximum(linear(p[f"Linear_{i}"], x), 0.0), f"BatchNorm_{i}"
    old = running[name]
    if train:
      real = h[weight == 1]
      mean, var = real.mean(axis=0), real.var(axis=0)
      new[name] = {"mean": 0.9 * old["mean"] + 0.1 * mean, "var": 0.9 * old["var"] + 0.1 * real.var(axis=0, ddof=1)}
    else:
      mean, var = old["mean"], old["var"]
    x = (h - mean) / np.sqrt(var + 1e-5) * p[name]["scale"] + p[name]["bias"]
  return x, new


def forward(p, running, batch, drawn, train):
  """Reconstruction, posterior, logits (None without classifier), running statistics."""
  x = batch["x"] * (1 - drawn["mask"]) if train and "mask" in drawn else batch["x"]
  h, encoder = stack(p["encoder"], running["encoder"], x, batch["weight"], train)
  posterior = linear(p["posterior"], h)
  mean, log_var = posterior[:, :L], posterior[:, L:]
  z = mean + np.exp(log_var / 2) * drawn["noise"] if train else mean
  logits = None
  if "head" in p:
    hidden = np.maximum(linear(p["head"], z), 0.0)
    logits = linear(p["head_output"], hidden * drawn["keep"] / 0.7 if train else hidden)
  h, decoder = stack(p["decoder"], running["decoder"], z, batch["weight"], train)
  return linear(p["output"], h), mean, log_var, logits, {"encoder": encoder, "decoder": decoder}


def sums_of(batch, drawn, out):
  """Sums over the real rows of everything a loss or metric is made of."""
  x_mean, mean, log_var, logits, _ = out
  real = batch["weight"] == 1
  square = ((x_mean - batch["x"]) ** 2)[real]
  sums = {"rows": real.sum(), "recon": square.sum(), "kl": (-0.5 * (1 + log_var - mean ** 2 - np.exp(log_var)))[real].sum()}
  if "mask" in drawn:
    sums["masked"], sums["masked_entries"] = (drawn["mask"][real] * square).sum(), drawn["mask"][real].sum()
  if logits is not None:
    labelled = real & (batch["label"] >= 0)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_prob = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    sums["class"] = -log_prob[labelled, batch["label"][labelled]].sum()
    sums["labelled"], sums["right"] = labelled.sum(), (logits.argmax(axis=1) == batch["label"])[labelled].sum()
  return sums


def objective(recipe, sums, epoch):
  """The loss of spec tabular_vae 4, and each metric as (sum, count)."""
  rows, beta = sums["rows"], recipe.beta(epoch)
  if recipe.hybrid:
    loss = sums["recon"] / (rows * D) + beta * sums["kl"] / (rows * L)
    loss += recipe.masked_weight * sums["masked"] / max(sums["masked_entries"], 1)
    loss += recipe.alpha * sums["class"] / max(sums["labelled"], 1) if recipe.classifies else 0.0
    metrics = {"loss": (loss * rows, rows), "recon": (sums["recon"], rows * D), "kl": (sums["kl"], rows * L),
               "masked": (sums["masked"], sums["masked_entries"])}
    class_count = sums.get("labelled")
  else:
    loss = sums["recon"] + beta * sums["kl"] + (recipe.alpha * sums["class"] if recipe.classifies else 0.0)
    metrics = {"loss": (loss, rows), "recon": (sums["recon"], rows), "kl": (sums["kl"], rows)}
    class_count = rows
  metrics |= {"kl_nats": (sums["kl"], rows), "beta": (beta, 1)}
  if recipe.classifies:
    metrics |= {"class": (sums["class"], class_count), "accuracy": (sums["right"], sums["labelled"])}
  return loss, metrics


def make_batch(seed=0):
  """24 rows of which 17 are real; padding holds large values and labels; some rows are unlabelled."""
  random = np.random.RandomState(seed)
  x = random.normal(size=(B, D)).astype(np.float32)
  label = random.randint(-1, K, B).astype(np.int32)
  x[REAL:], label[REAL:] = 50.0, 3
  return {"x": x, "label": label, "weight": (np.arange(B) < REAL).astype(np.float32)}


def draw(recipe, key):
  """The random numbers of a step, as the code draws them."""
  mask_key, noise_key, keep_key = jax.random.split(key, 3)
  drawn = {"noise": rng.normal(noise_key, (B, L))}
  if recipe.hybrid:
    drawn["mask"] = rng.bernoulli(mask_key, recipe.mask_rate, (B, D))
  if recipe.classifies:
    drawn["keep"] = rng.bernoulli(keep_key, 1 - 0.3, (B, 64))
  return float64(drawn)


@functools.cache
def experiment_of(variant, optimiser="sgd"):
  """Experiment and config of a variant; plain gradient descent without clip, so that parameters show the gradient."""
  config = get_config(variant)
  if optimiser == "sgd":
    config.optim.name, config.optim.betas, config.optim.clip_norm, config.optim.plateau.factor = "sgd", (0.0, 0.0), 0.0, 0.0
    config.optim.learning_rate = RATE[variant.split("_")[0]]
  config.optim.decay_steps = 1000
  return vae.make(config, META), config


@functools.cache
def state_of(variant):
  """A state in the third epoch whose BatchNorm parameters and statistics are not those of the start."""
  experiment, _ = experiment_of(variant)
  state = jax.jit(experiment.init)(rng.root_key(3)).replace(step=jnp.int32(STEP))
  random = np.random.RandomState(8)
  def vary(path, leaf):
    name = path[-1].key
    if name == "scale" or name == "var":
      return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32)
    return leaf + jnp.asarray(random.normal(0, 0.2, leaf.shape), jnp.float32) if "BatchNorm" in str(path) else leaf
  return state.replace(params=jax.tree_util.tree_map_with_path(vary, state.params),
                       model_state=jax.tree_util.tree_map_with_path(vary, state.model_state))


@functools.cache
def train_step(variant, num_chunks=0):
  over = parallel.make_over_chunks(num_chunks) if num_chunks else parallel.over_whole
  experiment, _ = experiment_of(variant)
  return jax.jit(lambda state, batch, key: experiment.train_step(state, batch, key, over))


def check(got, want, rtol=1e-5):
  """Metrics as (sum, count) agree; none is missing."""
  assert set(got) == set(want)
  for name in want:
    np.testing.assert_allclose(np.asarray(got[name][0]), want[name][0], rtol=rtol, atol=1e-6, err_msg=name)
    assert float(got[name][1]) == want[name][1], name


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_metrics_and_running_statistics(variant):
  recipe, state, batch, key = Recipe(variant), state_of(variant), make_batch(), rng.step_key(rng.key_for(3, "train"), STEP)
  drawn = draw(recipe, key)
  out = forward(float64(state.params), float64(state.model_state["batch_stats"]), batch, drawn, True)
  _, want = objective(recipe, sums_of(batch, drawn, out), epoch=2)
  new, metrics = train_step(variant)(state, batch, key)
  metrics = jax.device_get(metrics)
  rate, grad_norm = metrics.pop("lr"), metrics.pop("grad_norm")
  check(metrics, want)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), dict(new.model_state["batch_stats"]), out[4])
  assert int(new.step) == STEP + 1 and rate == (RATE[variant.split("_")[0]], 1.0)
  change = [np.asarray(a, np.float64) - np.asarray(b) for a, b in zip(*map(jax.tree.leaves, (state.params, new.params)))]
  np.testing.assert_allclose(grad_norm[0] * rate[0], np.sqrt(sum((c ** 2).sum() for c in change)), rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_equals_finite_differences_of_the_reference(variant):
  recipe, state, batch, key = Recipe(variant), state_of(variant), make_batch(), rng.step_key(rng.key_for(3, "train"), STEP)
  drawn, running = draw(recipe, key), float64(state.model_state["batch_stats"])
  params = float64(state.params)
  new, metrics = train_step(variant)(state, batch, key)
  grads = jax.tree.map(lambda a, b: (np.asarray(a, np.float64) - np.asarray(b)) / float(metrics["lr"][0]), state.params, new.params)

  def loss(leaves):
    p = jax.tree.unflatten(jax.tree.structure(params), leaves)
    return objective(recipe, sums_of(batch, drawn, forward(p, running, batch, drawn, True)), epoch=2)[0]

  leaves, random = jax.tree.leaves(params), np.random.RandomState(2)

  def slope(direction, size):
    up, down = ([leaf + sign * size * d for leaf, d in zip(leaves, direction)] for sign in (1, -1))
    return (loss(up) - loss(down)) / (2 * size)

  for i, grad in enumerate(jax.tree.leaves(grads)):
    for _ in range(3):  # three coordinates of each array
      coordinate = np.zeros(grad.shape)
      coordinate[tuple(random.randint(n) for n in grad.shape)] = 1
      direction = [coordinate if j == i else np.zeros_like(leaf) for j, leaf in enumerate(leaves)]
      want = slope(direction, 1e-6)
      assert (grad * coordinate).sum() == pytest.approx(want, rel=1e-3, abs=1e-4 * np.abs(grad).max()), i
    direction = [random.normal(size=grad.shape) if j == i else np.zeros_like(leaf) for j, leaf in enumerate(leaves)]
    size = np.linalg.norm(grad)
    assert (grad * direction[i]).sum() == pytest.approx(slope(direction, 1e-7), rel=1e-3, abs=1e-3 * size), i


@pytest.mark.parametrize("variant", ["standard_semisup", "hybrid_semisup"])
def test_evaluation_uses_the_mean_the_running_statistics_and_the_final_weights(variant):
  recipe, state, batch = Recipe(variant), state_of(variant), make_batch()
  experiment, _ = experiment_of(variant)
  totals = jax.jit(lambda s, b: experiment.eval_step(s, b, jax.random.key(0), parallel.over_whole))(state, batch)
  out = forward(float64(state.params), float64(state.model_state["batch_stats"]), batch, {}, False)
  sums = sums_of(batch, {}, out) | {"masked": 0.0, "masked_entries": 0}
  loss, want = objective(recipe, sums, epoch=99)
  check(totals, {name: want[name] for name in ("recon", "kl", "class", "accuracy", "kl_nats")})
  per_row = loss if recipe.hybrid else loss / REAL
  assert float(experiment.summarise(totals)["loss"]) == pytest.approx(per_row, rel=1e-5)


def test_evaluation_takes_the_moving_average_where_there_is_one():
  state, batch = state_of("standard"), make_batch()
  experiment, _ = experiment_of("standard")
  evaluate = jax.jit(lambda s: experiment.eval_step(s, batch, jax.random.key(0), parallel.over_whole))
  other = jax.tree.map(lambda leaf: 1.1 * leaf, state.params)
  assert float(evaluate(state.replace(ema=other))["recon"][0]) == float(evaluate(state.replace(params=other))["recon"][0])
  assert float(evaluate(state.replace(ema=other))["recon"][0]) != float(evaluate(state)["recon"][0])


def test_chunks_share_noise_and_counts_and_have_batch_statistics_of_their_own():
  """4 strided chunks with 5, 4, 4 and 4 real rows: terms are sums over chunks divided by counts of the whole batch."""
  variant, C = "hybrid_semisup", 4
  recipe, state, batch, key = Recipe(variant), state_of(variant), make_batch(), jax.random.key(11)
  drawn, params, running = draw(recipe, key), float64(state.params), float64(state.model_state["batch_stats"])
  total, stats = {}, None
  for c in range(C):
    chunk, chunk_drawn = ({k: v[c::C] for k, v in tree.items()} for tree in (batch, drawn))
    out = forward(params, running, chunk, chunk_drawn, True)
    total = {k: total.get(k, 0) + v for k, v in sums_of(chunk, chunk_drawn, out).items()}
    share = chunk["weight"].sum() / REAL
    stats = jax.tree.map(lambda a, s: a + share * s, stats or jax.tree.map(np.zeros_like, out[4]), out[4])
  _, want = objective(recipe, total, epoch=2)
  new, metrics = train_step(variant, C)(state, batch, key)
  check({k: v for k, v in metrics.items() if k not in ("lr", "grad_norm")}, want)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), dict(new.model_state["batch_stats"]), stats)


def test_padding_changes_nothing():
  variant, key = "hybrid_semisup", jax.random.key(4)
  batch, other = make_batch(), make_batch()
  other["x"][REAL:], other["label"][REAL:] = -1e3, 0
  one, two = (train_step(variant)(state_of(variant), b, key) for b in (batch, other))
  jax.tree.map(np.testing.assert_array_equal, (one[0].params, one[0].model_state, one[1]), (two[0].params, two[0].model_state, two[1]))


def test_a_batch_without_masked_entries_or_labels_has_zero_for_those_terms():
  variant, batch = "hybrid_semisup", make_batch()
  recipe, state = Recipe(variant), state_of(variant)
  batch["weight"] = (np.arange(B) < 2).astype(np.float32)
  batch["label"][:] = -1
  key = next(k for k in map(jax.random.key, range(100)) if draw(recipe, k)["mask"][:2].sum() == 0)  # 28 % of keys
  drawn = draw(recipe, key)
  out = forward(float64(state.params), float64(state.model_state["batch_stats"]), batch, drawn, True)
  _, want = objective(recipe, sums_of(batch, drawn, out), epoch=2)
  new, metrics = train_step(variant)(state, batch, key)
  check({k: v for k, v in metrics.items() if k not in ("lr", "grad_norm")}, want, rtol=1e-4)
  for name in ("masked", "class", "accuracy"):
    assert [float(v) for v in metrics[name]] == [0.0, 0.0]
  for name in ("head", "head_output"):  # nothing pulls at the classifier
    jax.tree.map(np.testing.assert_array_equal, new.params[name], state.params[name])


def test_beta_is_a_staircase_of_epochs_counted_from_zero():
  state, batch = state_of("hybrid"), make_batch()
  top = 30 * STEPS_PER_EPOCH
  steps = [0, 1, 931, 932, 1863, 1864, top - 1, top, top + 1, 93_199]
  epochs = [0, 0, 0, 1, 1, 2, 29, 30, 30, 99]
  got = [float(train_step("hybrid")(state.replace(step=jnp.int32(t)), batch, jax.random.key(0))[1]["beta"][0]) for t in steps]
  np.testing.assert_allclose(got, [1e-6 + (0.5 - 1e-6) * min(e / 30, 1) for e in epochs], rtol=1e-6)
  assert got[0] == got[1] == got[2] and got[3] == got[4] and got[-1] == got[-3] == pytest.approx(0.5, rel=1e-7)


@pytest.mark.parametrize("variant", ["standard", "hybrid"])
def test_the_recipes_are_those_of_the_spec(variant):
  config = get_config(variant)
  assert (config.optim.name, config.optim.learning_rate, config.optim.betas, config.optim.eps) == ("adam", 1e-3, (0.9, 0.999), 1e-8)
  assert (config.train.batch_size, config.train.num_epochs, config.seed, config.data.split.kind) == (256, 100, 42, "none")
  assert config.optim.schedule == "constant" and config.optim.weight_decay == 0 and config.data.shuffle
  assert config.data.transforms == ("identity", "signed_log1p", "signed_log1p", "log1p", "log1p", "log1p")
  plateau = config.optim.plateau
  if variant == "hybrid":
    assert (config.optim.clip_norm, plateau.factor, plateau.patience, plateau.threshold) == (1.0, 0.5, 10, 1e-4)
    assert plateau.monitor == "train_loss"
  else:
    assert (config.optim.clip_norm, plateau.factor, config.loss.mask_rate) == (0.0, 0.0, 0.0)


def test_learning_rate_and_loss_weights_may_be_tracers():
  """Two members of a vmapped sweep equal their solo runs."""
  config = get_config("hybrid")
  config.model.hidden_dims, config.model.latent_dim, config.optim.decay_steps = (5,), 2, 100
  meta = META | {"steps_per_epoch": 2}
  batch = make_batch()
  rates, betas = [1e-3, 3e-2], [0.5, 2.0]

  def losses(rate, beta):
    """Losses of 4 steps, and a parameter behind them; rate and beta are numbers or tracers."""
    chosen = config_lib.substitute(config, {"optim.learning_rate": rate, "loss.weights.kl": beta})
    experiment = vae.make(chosen, meta)
    state, seen = experiment.init(rng.root_key(1)), []
    def one(state, t):
      state, metrics = experiment.train_step(state, batch, rng.step_key(rng.key_for(1, "train"), t), parallel.over_whole)
      return state, (metrics["loss"][0], metrics["beta"][0], metrics["lr"][0])
    state, seen = jax.lax.scan(one, state, jnp.arange(4))
    return seen, state.params["output"]["kernel"]

  together = jax.jit(jax.vmap(losses))(jnp.asarray(rates), jnp.asarray(betas))
  for i in range(2):
    alone = jax.jit(lambda: losses(rates[i], betas[i]))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6), together, alone)
  assert np.ptp(np.asarray(together[0][2])[:, -1]) > 0.02  # the members do differ
  assert not np.allclose(np.asarray(together[0][0])[0], np.asarray(together[0][0])[1], rtol=1e-3)


def test_other_fields_may_not_be_tracers():
  with pytest.raises(UserError, match="config.model.latent_dim may not be traced"):
    config_lib.substitute(get_config("hybrid"), {"model.latent_dim": 3})


def test_a_step_is_repeatable_and_follows_its_key():
  step_of = lambda key: train_step("standard")(state_of("standard"), make_batch(), key)[1]["loss"][0]
  assert float(step_of(jax.random.key(0))) == float(step_of(jax.random.key(0))) != float(step_of(jax.random.key(1)))


def test_loading_fits_the_scaler_on_training_rows_alone():
  config = get_config("breast_cancer")
  made = vae.load(config)
  rows, scaler = made.meta["rows"], made.meta["scaler"]
  assert sum(rows.values()) == 569 and rows["train"] == made.train.num_rows == len(made.train.data["x"])
  train = made.train.data["x"].astype(np.float64)
  np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
  np.testing.assert_allclose(train.std(axis=0), 1, rtol=1e-5)
  assert np.abs(made.val.data["x"].mean(axis=0)).max() > 0.02  # not fitted on these
  assert len(scaler["mean"]) == made.meta["num_features"] == 30 and made.meta["class_names"] == ["malignant", "benign"]
  assert json.loads(json.dumps(made.meta)) == made.meta
  assert made.meta["steps_per_epoch"] == -(-rows["train"] // config.train.batch_size) == made.train.num_batches


def test_a_classifier_needs_labels(tmp_path):
  (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(f"{i},{i * i}" for i in range(20)))
  config = get_config("csv")
  config.data.path, config.data.features, config.data.split.kind = str(tmp_path / "t.csv"), ("a", "b"), "random"
  made = vae.load(config)
  assert (made.train.data["label"] == -1).all() and made.meta["class_names"] == []
  config.model.kind = "semisup"
  with pytest.raises(UserError, match="config.data.label"):
    vae.load(config)


def test_a_short_run_learns_and_splits_into_dispatches_without_changing_a_bit():
  """The real step on a real source: 3 + 4 steps equal 7, over an epoch's end with a ragged batch."""
  config = get_config("breast_cancer")
  config.model.hidden_dims, config.optim.decay_steps = (8,), 100
  config.train.batch_size = 150
  made = vae.load(config)
  experiment = vae.make(config, made.meta)
  assert made.train.num_rows % 150 and made.train.num_batches == 3
  one_step = step.make_one_step(experiment.train_step, made.train, parallel.over_whole, "halt")
  state = jax.jit(experiment.init)(rng.root_key(0))
  zeros = step.zero_totals(jax.eval_shape(one_step, state, made.train.data, step.stream_keys(state))[1])
  repeat = jax.jit(step.make_repeat(one_step))
  straight = repeat(state, zeros, made.train.data, 7)
  split = repeat(*repeat(state, zeros, made.train.data, 3), made.train.data, 4)
  leaves = lambda t: [np.asarray(x).tobytes() for x in jax.tree.leaves(t) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
  assert leaves(straight) == leaves(split)
  first = repeat(state, zeros, made.train.data, 3)[1]["recon"]
  last = repeat(repeat(state, zeros, made.train.data, 60)[0], zeros, made.train.data, 3)[1]["recon"]
  assert float(last[0] / last[1]) < 0.8 * float(first[0] / first[1])
