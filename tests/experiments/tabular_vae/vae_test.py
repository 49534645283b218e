"""The tabular VAE's loss, gradient and statistics against a second implementation in NumPy float64.

The reference below is written from the definition of the model and its recipes. It shares with the code only the
parameters and the random numbers: noise, dropout and masks are drawn from the same keys in the same order.
"""

import functools
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import config as config_lib, optim, rng, step
from jaxtrain.devices import parallel
from jaxtrain.errors import UserError
from jaxtrain.experiments.tabular_vae import lithology, vae

get_config = runpy.run_path(str(pathlib.Path(__file__).parents[3] / "configs/vae.py"))["get_config"]
B, REAL, D, L, K = 24, 17, 6, 10, 7
STEPS_PER_EPOCH = 932
STEP = 2 * STEPS_PER_EPOCH + 5  # in the third epoch: t = 2
META = {"features": list("abcdef"), "num_features": D, "class_names": [f"rock {k}" for k in range(K)],
        "steps_per_epoch": STEPS_PER_EPOCH, "scaler": None}
VARIANTS = ("standard", "standard_semisup", "hybrid", "hybrid_semisup")
# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RATE = {"standard": 10.0, "hybrid": 1000.0}  # so that float32 parameters show the gradient to six digits


class Recipe:
  """The constants of the recipes, typed in again."""

  def __init__(self, variant):
    self.hybrid, self.classifies = variant.startswith("hybrid"), variant.endswith("semisup")
    self.alpha = 0.5 if self.hybrid else 0.1
    self.masked_weight = 0.5 if self.hybrid else None

  def beta(self, epoch):
    return 1e-6 + (0.5 - 1e-6) * min(epoch / 30, 1.0) if self.hybrid else 1.0


def float64(tree):
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def linear(p, x):
  """x @ W + b; the code stores W with its longer side last."""
  kernel = p["kernel"] if x.shape[1] <= len(p["bias"]) else p["kernel"].T
  return x @ kernel + p["bias"]


def stack(p, running, x, train):
  """[Linear, ReLU, BatchNorm] twice over real rows; returns the output and the new running statistics."""
  new = {}
  for i in range(2):
    h, name = np.maximum(linear(p[f"Linear_{i}"], x), 0.0), f"BatchNorm_{i}"
    old = running[name]
    if train:
      mean, var = h.mean(axis=0), h.var(axis=0)
      new[name] = {"mean": 0.9 * old["mean"] + 0.1 * mean, "var": 0.9 * old["var"] + 0.1 * h.var(axis=0, ddof=1)}
    else:
      mean, var = old["mean"], old["var"]
    x = (h - mean) / np.sqrt(var + 1e-5) * p[name]["scale"] + p[name]["bias"]
  return x, new


def forward(p, running, rows, train):
  """Sums over real rows of all that a loss or metric is made of, and the running statistics."""
  x, label = rows["x"], rows["label"]
  h, encoder = stack(p["encoder"], running["encoder"], x * (1 - rows["mask"]) if train and "mask" in rows else x, train)
  posterior = linear(p["posterior"], h)
  mean, log_var = posterior[:, :L], posterior[:, L:]
  z = mean + np.exp(log_var / 2) * rows["noise"] if train else mean
  h, decoder = stack(p["decoder"], running["decoder"], z, train)
  square = (linear(p["output"], h) - x) ** 2
  sums = {"rows": len(x), "recon": square.sum(), "kl": (-0.5 * (1 + log_var - mean ** 2 - np.exp(log_var))).sum()}
  if "mask" in rows:
    sums |= {"masked": (rows["mask"] * square).sum(), "masked_entries": rows["mask"].sum()}
  if "head" in p:
    hidden = np.maximum(linear(p["head"], z), 0.0)
    logits = linear(p["head_output"], hidden * rows["keep"] / 0.7 if train else hidden)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_prob = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    labelled = label >= 0
    sums |= {"class": -log_prob[labelled, label[labelled]].sum(), "labelled": labelled.sum(),
             "right": (logits.argmax(axis=1) == label)[labelled].sum()}
  return sums, {"encoder": encoder, "decoder": decoder}


def real_rows(batch, drawn):
  """The rows of weight 1 and their random numbers."""
  return {name: np.asarray(column)[batch["weight"] == 1] for name, column in (batch | drawn).items()}


def objective(recipe, sums, epoch):
  """The loss of the recipes, and each metric as (sum, count)."""
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
  """24 rows of which 17 are real; padding holds values and labels of its own; some rows are unlabelled."""
  random = np.random.RandomState(seed)
  x = random.normal(size=(B, D)).astype(np.float32)
  label = random.randint(-1, K, B).astype(np.int32)
  label[REAL:] = 3
  return {"x": x, "label": label, "weight": (np.arange(B) < REAL).astype(np.float32)}


@jax.jit
def draw_all(key):
  """The random numbers of a step, as the code draws them."""
  mask_key, noise_key, keep_key = jax.random.split(key, 3)
  return {"mask": rng.bernoulli(mask_key, 0.1, (B, D)), "noise": rng.normal(noise_key, (B, L)),
          "keep": rng.bernoulli(keep_key, 1 - 0.3, (B, 64))}


def draw(recipe, key):
  """Those that a recipe uses."""
  used = ["noise"] + ["mask"] * recipe.hybrid + ["keep"] * recipe.classifies
  return {name: value for name, value in float64(draw_all(key)).items() if name in used}


@functools.cache
def experiment_of(variant):
  """Experiment and config of a variant; plain gradient descent without clip, so that parameters show the gradient."""
  config = get_config(variant)
  config.optim.name, config.optim.betas = "sgd", (0.0, 0.0)
  config.optim.clip_norm, config.optim.plateau.factor = 0.0, 0.0
  config.optim.learning_rate = RATE[variant.split("_")[0]]
  config.optim.decay_steps = 1000
  return vae.make(config, META), config


@functools.cache
def state_of(variant):
  """A state in the third epoch."""
  return fill_state(experiment_of(variant)[0]).replace(step=jnp.int32(STEP))


def fill_state(experiment):
  """A state all of whose arrays are random, also BatchNorm's parameters and statistics; nothing is compiled for it."""
  abstract, random = jax.eval_shape(experiment.init, jax.random.key(0), {}), np.random.RandomState(8)
  def fill(path, leaf):
    name = path[-1].key
    if name in ("scale", "var"):
      return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32)
    bound = {"kernel": 1.5 / np.sqrt(max(leaf.shape)), "bias": 0.2, "mean": 0.5}[name]
    return jnp.asarray(random.uniform(-bound, bound, leaf.shape), jnp.float32)
  opt_state = step.zero_totals(abstract.opt_state)
  if opt_state.plateau is not None:
    opt_state = opt_state.replace(plateau=optim.init_plateau())
  return abstract.replace(
      step=jnp.int32(0), key=rng.root_key(3), guard=step.init_guard(), opt_state=opt_state,
      params=jax.tree_util.tree_map_with_path(fill, abstract.params),
      model_state=jax.tree_util.tree_map_with_path(fill, abstract.model_state))


@functools.cache
def train_step(variant, num_chunks=0):
  over = parallel.make_over_chunks(num_chunks) if num_chunks else parallel.over_whole
  experiment, _ = experiment_of(variant)
  return jax.jit(lambda state, batch, key: experiment.train_step(state, batch, key, over), compiler_options=QUICK)


def check(got, want, rtol=1e-5):
  """Metrics as (sum, count) agree; none is missing."""
  assert set(got) == set(want)
  for name in want:
    np.testing.assert_allclose(np.asarray(got[name][0]), want[name][0], rtol=rtol, atol=1e-6, err_msg=name)
    assert float(got[name][1]) == want[name][1], name


def expected(variant, state, batch, key):
  """Metrics and running statistics of a training step by the reference."""
  recipe = Recipe(variant)
  rows = real_rows(batch, draw(recipe, key))
  sums, stats = forward(float64(state.params), float64(state.model_state["batch_stats"]), rows, True)
  return objective(recipe, sums, epoch=2)[1], stats


def split_off(metrics):
  """The metrics of the model, and those of the optimiser."""
  metrics = jax.device_get(metrics)
  return metrics, {name: metrics.pop(name) for name in ("lr", "grad_norm")}


KEY = rng.step_key(rng.key_for(3, "train"), STEP)


def check_statistics(state, want):
  """BatchNorm's running statistics agree."""
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  jax.tree.map(close, dict(state.model_state["batch_stats"]), want)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_metrics_and_running_statistics(variant):
  state, batch = state_of(variant), make_batch()
  want, stats = expected(variant, state, batch, KEY)
  new, metrics = train_step(variant)(state, batch, KEY)
  metrics, ours = split_off(metrics)
  check(metrics, want)
  check_statistics(new, stats)
  assert int(new.step) == STEP + 1 and ours["lr"] == (RATE[variant.split("_")[0]], 1.0)
  change = jax.tree.leaves(jax.tree.map(np.subtract, float64(state.params), float64(new.params)))
  moved = np.sqrt(sum((c ** 2).sum() for c in change))
  np.testing.assert_allclose(ours["grad_norm"][0] * ours["lr"][0], moved, rtol=1e-5)


@pytest.mark.parametrize("variant", [pytest.param(variant, marks=[pytest.mark.slow] * ("semisup" not in variant))
                                     for variant in VARIANTS])
def test_gradient_equals_finite_differences_of_the_reference(variant):
  recipe, state, batch = Recipe(variant), state_of(variant), make_batch()
  params, running = float64(state.params), float64(state.model_state["batch_stats"])
  rows = real_rows(batch, draw(recipe, KEY))
  new, metrics = train_step(variant)(state, batch, KEY)
  rate = float(metrics["lr"][0])
  grads = jax.tree.map(lambda a, b: (np.asarray(a, np.float64) - np.asarray(b)) / rate, state.params, new.params)
  leaves, random = jax.tree.leaves(params), np.random.RandomState(2)

  def loss(leaves):
    sums, _ = forward(jax.tree.unflatten(jax.tree.structure(params), leaves), running, rows, True)
    return objective(recipe, sums, epoch=2)[0]

  def slope(i, direction, size):
    moved = lambda by: [leaf + by * direction if j == i else leaf for j, leaf in enumerate(leaves)]
    return (loss(moved(size)) - loss(moved(-size))) / (2 * size)

  for i, grad in enumerate(jax.tree.leaves(grads)):
    for _ in range(3):  # three coordinates of each array
      coordinate = np.zeros(grad.shape)
      coordinate[tuple(random.randint(n) for n in grad.shape)] = 1
      want = slope(i, coordinate, 1e-6)
      assert (grad * coordinate).sum() == pytest.approx(want, rel=1e-3, abs=1e-4 * np.abs(grad).max()), i
    direction = random.normal(size=grad.shape)  # and a direction through all of it
    want = slope(i, direction, 1e-7)
    assert (grad * direction).sum() == pytest.approx(want, rel=1e-3, abs=1e-3 * np.linalg.norm(grad)), i


@pytest.mark.parametrize("variant", ["standard_semisup", "hybrid_semisup"])
def test_evaluation_uses_the_mean_the_running_statistics_and_the_final_weights(variant):
  recipe, state, batch = Recipe(variant), state_of(variant), make_batch()
  experiment, _ = experiment_of(variant)
  evaluate = jax.jit(lambda s: experiment.eval_step(s, batch, KEY, parallel.over_whole), compiler_options=QUICK)
  totals = evaluate(state)
  sums, _ = forward(float64(state.params), float64(state.model_state["batch_stats"]), real_rows(batch, {}), False)
  loss, want = objective(recipe, sums | {"masked": 0.0, "masked_entries": 0}, epoch=99)
  check(totals, {name: want[name] for name in ("recon", "kl", "class", "accuracy", "kl_nats")})
  per_row = loss if recipe.hybrid else loss / REAL
  assert float(experiment.summarise(totals)["loss"]) == pytest.approx(per_row, rel=1e-5)
  # Where there is a moving average of the parameters, it is what is evaluated.
  other = jax.tree.map(lambda leaf: 1.1 * leaf, state.params)
  if not recipe.hybrid:
    averaged = evaluate(state.replace(ema=other))
    jax.tree.map(np.testing.assert_array_equal, averaged, evaluate(state.replace(params=other)))
    assert float(averaged["recon"][0]) != float(totals["recon"][0])


@pytest.mark.slow
def test_chunks_share_noise_and_counts_and_have_batch_statistics_of_their_own():
  """4 strided chunks with 5, 4, 4 and 4 real rows: terms are sums over chunks divided by counts of the whole batch."""
  variant, C = "hybrid", 4
  recipe, state, batch = Recipe(variant), state_of(variant), make_batch()
  columns, params, running = batch | draw(recipe, KEY), float64(state.params), float64(state.model_state["batch_stats"])
  total, stats = {}, None
  for c in range(C):
    chunk = {name: column[c::C] for name, column in columns.items()}
    sums, new_stats = forward(params, running, real_rows(chunk, {}), True)
    total = {name: total.get(name, 0) + value for name, value in sums.items()}
    stats = stats or jax.tree.map(np.zeros_like, new_stats)
    stats = jax.tree.map(lambda a, s: a + sums["rows"] / REAL * s, stats, new_stats)
  new, metrics = train_step(variant, C)(state, batch, KEY)
  check(split_off(metrics)[0], objective(recipe, total, epoch=2)[1])
  check_statistics(new, stats)


def test_padding_changes_nothing():
  variant, batch, other = "hybrid_semisup", make_batch(), make_batch()
  other["x"][REAL:], other["label"][REAL:] = 1e3, 0
  def results(batch):
    new, metrics = train_step(variant)(state_of(variant), batch, KEY)
    return new.params, new.model_state, metrics
  assert np.isfinite(float(results(other)[2]["grad_norm"][0]))
  jax.tree.map(np.testing.assert_array_equal, results(batch), results(other))


def test_few_real_rows_beside_padding_give_finite_gradients():
  """A unit that is 0 in all real rows has variance 0: 1 / sqrt(eps) must not blow up padding rows, masked otherwise."""
  variant, batch = "hybrid_semisup", make_batch()
  batch["weight"] = (np.arange(B) < 2).astype(np.float32)
  batch["x"][2:] = batch["x"][1]  # what a table's last batch looks like: copies of its last row
  for seed in range(20):
    _, metrics = train_step(variant)(state_of(variant), batch, jax.random.key(seed))
    assert np.isfinite(float(metrics["grad_norm"][0])) and np.isfinite(float(metrics["loss"][0])), seed


def test_a_batch_without_masked_entries_or_labels_has_zero_for_those_terms():
  variant, batch, state = "hybrid_semisup", make_batch(), state_of("hybrid_semisup")
  batch["weight"] = (np.arange(B) < 3).astype(np.float32)
  batch["x"][3:], batch["label"][:] = 0.0, -1
  empty = lambda key: draw(Recipe(variant), key)["mask"][:3].sum() == 0  # for 15 % of keys
  key = next(key for key in map(jax.random.key, range(200)) if empty(key))
  want, _ = expected(variant, state, batch, key)
  new, metrics = train_step(variant)(state, batch, key)
  check(split_off(metrics)[0], want, rtol=1e-4)
  for name in ("masked", "class", "accuracy"):
    assert [float(v) for v in metrics[name]] == [0.0, 0.0]
  for name in ("head", "head_output"):  # nothing pulls at the classifier
    jax.tree.map(np.testing.assert_array_equal, new.params[name], state.params[name])


def test_beta_is_a_staircase_of_epochs_counted_from_zero():
  state, batch = state_of("hybrid_semisup"), make_batch()
  top = 30 * STEPS_PER_EPOCH
  steps = [0, 1, 931, 932, 1863, 1864, top - 1, top, top + 1, 93_199]
  epochs = [0, 0, 0, 1, 1, 2, 29, 30, 30, 99]
  step_of = train_step("hybrid_semisup")
  got = [float(step_of(state.replace(step=jnp.int32(t)), batch, KEY)[1]["beta"][0]) for t in steps]
  np.testing.assert_allclose(got, [1e-6 + (0.5 - 1e-6) * min(e / 30, 1) for e in epochs], rtol=1e-6)
  assert got[0] == got[1] == got[2] and got[3] == got[4] and got[-1] == got[-3] == pytest.approx(0.5, rel=1e-7)


@pytest.mark.parametrize("variant", ["standard", "hybrid"])
def test_the_recipes_are_those_of_the_spec(variant):
  config = get_config(variant)
  rule = config.optim
  assert (rule.name, rule.learning_rate, rule.betas, rule.eps) == ("adam", 1e-3, (0.9, 0.999), 1e-8)
  assert (config.train.batch_size, config.train.num_epochs, config.seed) == (256, 100, 42)
  assert config.data.split.kind == "none"
  assert config.optim.schedule == "constant" and config.optim.weight_decay == 0 and config.data.shuffle
  assert config.data.transforms == ("standardise", "signed_log1p", "signed_log1p", "log1p", "log1p", "log1p")
  plateau = config.optim.plateau
  if variant == "hybrid":
    assert (config.optim.clip_norm, plateau.factor, plateau.patience, plateau.threshold) == (1.0, 0.5, 10, 1e-4)
    assert plateau.monitor == "train_loss"
  else:
    assert (config.optim.clip_norm, plateau.factor, config.loss.mask_rate) == (0.0, 0.0, 0.0)


@pytest.mark.slow
def test_learning_rate_and_loss_weights_may_be_tracers():
  """A member of a vmapped sweep equals its solo run."""
  config = get_config("hybrid")
  config.model.hidden_dims, config.model.latent_dim, config.model.batch_norm = (5,), 2, False
  config.optim.decay_steps = 100
  batch, start = make_batch(), fill_state(vae.make(config, META))
  rates, betas = [1e-3, 3e-2], [0.5, 2.0]

  def run(start, rate, beta):
    """Metrics of 4 steps, one an epoch, and a parameter behind them; rate and beta are numbers or tracers."""
    chosen = config_lib.substitute(config, {"optim.learning_rate": rate, "loss.weights.kl": beta})
    experiment = vae.make(chosen, META | {"steps_per_epoch": 1})
    def one(state, t):
      state, metrics = experiment.train_step(state, batch, rng.step_key(KEY, t), parallel.over_whole)
      return state, {name: metrics[name][0] for name in ("loss", "kl", "beta", "lr")}
    state, seen = jax.lax.scan(one, start, jnp.arange(4))
    return seen | {"kernel": state.params["output"]["kernel"]}

  together = jax.jit(jax.vmap(run, (None, 0, 0)), compiler_options=QUICK)(start, jnp.asarray(rates), jnp.asarray(betas))
  for i in (0, 1):
    alone = jax.jit(lambda start: run(start, rates[i], betas[i]), compiler_options=QUICK)(start)
    for name in alone:
      np.testing.assert_allclose(together[name][i], alone[name], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(alone["lr"], rates[i], rtol=1e-6)
    np.testing.assert_allclose(alone["beta"], 1e-6 + (betas[i] - 1e-6) * np.arange(4) / 30, rtol=1e-5)
  assert not np.allclose(together["kernel"][0], together["kernel"][1], rtol=1e-2)  # the members do differ


def test_other_fields_may_not_be_tracers():
  with pytest.raises(UserError, match="config.model.latent_dim may not be traced"):
    config_lib.substitute(get_config("hybrid"), {"model.latent_dim": 3})


def test_a_step_is_repeatable_and_follows_its_key():
  variant = "standard_semisup"
  step_of = lambda key: train_step(variant)(state_of(variant), make_batch(), key)[1]["loss"][0]
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
  assert "rows_per_group" not in made.meta


def test_rows_of_boreholes_are_counted_by_name():
  meta = vae.load(get_config("smoke")).meta
  made = lithology.generate(4000)
  want = {name: int((made.borehole == k).sum()) for k, name in enumerate(made.borehole_names)}
  names, rows = meta["rows_per_group"]["names"], meta["rows_per_group"]["rows"]
  assert dict(zip(names, rows)) == {name: n for name, n in want.items() if n} and rows == sorted(rows, reverse=True)
  assert len(names) == meta["groups"]["train"] and json.loads(json.dumps(meta)) == meta


def test_umap_is_made_where_it_is_drawn(monkeypatch):
  asked = []
  monkeypatch.setattr(vae.evaluate, "make_assess", lambda model, meta, with_umap: asked.append(with_umap))
  meta = {"num_features": 3, "features": ["a", "b", "c"], "class_names": [], "scaler": {}, "steps_per_epoch": 1}
  for preset, families in (("standard", ()), ("full", ()), ("none", ("umap",)), ("minimal", ("latent",))):
    config = get_config("hybrid")
    config.log.figures, config.log.families = preset, families
    vae.make(config, meta)
  assert asked == [False, True, True, False]


def test_a_classifier_needs_labels(tmp_path):
  (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(f"{i},{i * i}" for i in range(20)))
  config = get_config("csv")
  config.data.path, config.data.features, config.data.split.kind = str(tmp_path / "t.csv"), ("a", "b"), "random"
  made = vae.load(config)
  assert (made.train.data["label"] == -1).all() and made.meta["class_names"] == []
  config.model.kind = "semisup"
  with pytest.raises(UserError, match="config.data.label"):
    vae.load(config)


@pytest.mark.parametrize("variant", ["hybrid", "hybrid_semisup", "digits", "breast_cancer", "csv"])
def test_every_hybrid_recipe_anneals_over_thirty_epochs(variant):
  import os

  import child
  config = config_lib.read_file(os.path.join(child.ROOT, "configs", "vae.py") + ":" + variant)
  assert config.loss.kl_schedule.num_epochs == 30 and config.loss.kl_schedule.shape == "linear"
  assert config.train.monitor_from_epoch == (30 if variant.startswith("hybrid") else 0)
