"""Training of causal discovery: dual ascent, losses, validation, alarms, the baseline, check, bad configs."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import child
from jaxtrain import config as config_lib, duals, loop
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import avici, bcnp, evaluate, signals, training
from jaxtrain.run import check, setup

PATH = os.path.join(child.ROOT, "configs", "causal_discovery.py")
TINY = {"data.num_nodes": (4,), "data.pad_to": (), "data.graphs": ("er edge_prob=0.5",), "data.mechanisms": ("linear",),
        "data.num_rows": 16, "data.task_chunk": 4, "data.num_rows_int": 0,
        "train.batch_size": 8, "eval.max_val_tasks": 8, "eval.max_test_tasks": 0, "eval.val_num_samples": 4,
        "eval.test_num_samples": 4, "eval.every_steps": 10, "checkpoint.every_steps": 10, "log.figures": "none",
        "log.progress": False}
NETS = {"model.dim": 8, "model.num_heads": 2, "model.ff_dim": 16}


def configured(variant, **changed):
  """A variant at a size of seconds."""
  config = config_lib.read_file(f"{PATH}:{variant}")
  bcnp_nets = {"model.num_layers": 2, "model.num_layers_decoder": 2, "model.n_perm_samples": 4}
  own = {"smoke": {"model.num_blocks": 2, "model.key_size": 4}, "avici_lite": {"model.num_layers": 2}}
  nets = {} if variant == "random" else NETS | own.get(variant, bcnp_nets)
  for key, value in (TINY | nets | {key.replace("__", "."): value for key, value in changed.items()}).items():
    config_lib.assign(config, key, value)
  return config_lib.resolve(config)


def tasks_of(config, step=0):
  """A batch of training tasks."""
  source = training.load(config).train
  return jax.jit(source.batch_at)({}, jnp.int32(step), jax.random.key(1))


def test_dual_ascent_is_the_official_rule():
  """Every 250 steps the weight grows by eta times the average, which starts at the first penalty; written out here."""
  settings = config_lib.read_file(f"{PATH}:avici").model.dual
  assert settings.interval == 250
  dual = duals.Dual(jnp.float32(settings.init), jnp.float32(0))
  penalties = np.abs(np.random.RandomState(0).normal(size=1000)).astype(np.float32)
  average, weight, weights = penalties[0], 0.0, []
  ascend = jax.jit(lambda d, p, t: duals.ascend(d, p, t, settings))
  for step, penalty in enumerate(penalties):
    dual = ascend(dual, penalty, step)
    average += settings.average_rate * (penalty - average)
    weight += settings.rate * average * ((step + 1) % 250 == 0)
    weights.append(float(dual.weight))
  np.testing.assert_allclose(dual.weight, weight, rtol=1e-4)
  assert weights[248] == 0 < weights[249] < weights[499] < weights[749]  # it does move, and never falls


def test_warm_up_of_the_dual_rate():
  settings = config_lib.read_file(f"{PATH}:avici").model.dual
  with settings.unlocked():
    settings.warmup_steps, settings.interval = 100, 1
  half = duals.ascend(duals.Dual(jnp.float32(0), jnp.float32(1)), jnp.float32(1), jnp.int32(49), settings)
  np.testing.assert_allclose(half.weight, 0.5 * settings.rate, rtol=1e-5)


@pytest.mark.slow
def test_avici_loss_is_cross_entropy_over_pairs_and_the_dual_weight_times_the_radius():
  """The step's loss against float64 from the network's own logits."""
  config = configured("smoke", model__dual__init=0.7)
  model = avici.make_model(config)
  experiment = setup.make_experiment(config, training.load(config).meta)
  batch, state = tasks_of(config), experiment.init(jax.random.key(0), {})
  new, metrics = jax.jit(lambda s, b: experiment.train_step(s, b, jax.random.key(2), lambda fn, b, k: fn(b, k)))(
      state, batch)
  _, probs = model.terms(state.params, batch, jax.random.key(2), True)
  p, A, off = np.asarray(probs, np.float64), np.asarray(batch["adjacency"]), ~np.eye(4, dtype=bool)
  nll = -(A * np.log(p) + (1 - A) * np.log(1 - p))[:, off].mean()
  radius = np.mean([np.abs(np.linalg.eigvals(one * off)).max() for one in p])
  mean = lambda name: float(metrics[name][0] / metrics[name][1])
  np.testing.assert_allclose(mean("edge"), nll, rtol=1e-4)
  np.testing.assert_allclose(mean("acyclic"), radius, rtol=1e-3)
  np.testing.assert_allclose(mean("loss"), nll + 0.7 * radius, rtol=1e-4)
  moved = sum(np.square(np.asarray(a) - np.asarray(b)).sum() for a, b in zip(jax.tree.leaves(new.params),
                                                                              jax.tree.leaves(state.params)))
  np.testing.assert_allclose(mean("update_norm"), moved**0.5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("variant, bias", [("smoke", "beta"), ("avici_lite", "bias")])
def test_either_penalty_goes_with_either_architecture(variant, bias):
  """The exponential one against SciPy's tr(expm P) - d in float64, the radius against eigenvalues; padding has no part.
  """
  for penalty in ("exponential", "spectral"):
    config = configured(variant, model__penalty=penalty, data__num_nodes=(3, 4), data__pad_to=(4,))
    model, batch = avici.make_model(config), tasks_of(config)
    assert {3, 4} == set(np.asarray(batch["node_mask"]).sum(1))
    params = model.init(jax.random.key(0)) | {bias: jnp.float32(4)}  # edges enough for cycles of all lengths
    terms, probs = jax.jit(lambda p, b: model.terms(p, b, jax.random.key(2), False))(params, batch)
    mask = np.asarray(batch["node_mask"], np.float64)
    P = np.asarray(probs, np.float64) * mask[:, :, None] * mask[:, None, :] * ~np.eye(4, dtype=bool)
    want = [np.trace(scipy.linalg.expm(one)) - 4 if penalty == "exponential" else np.abs(np.linalg.eigvals(one)).max()
            for one in P]
    np.testing.assert_allclose(terms["acyclic"], want, rtol=1e-4)
    assert max(want) > 0.5


@pytest.mark.slow
def test_avici_lite_trains_and_its_dual_weight_follows_the_exponential_penalty():
  config = configured("avici_lite", model__dual__interval=2, optim__warmup_steps=0, train__num_steps=6)
  assert config.model.dual.average_rate == 0.1 and config.model.dual.rate == 1e-4
  experiment = setup.make_experiment(config, training.load(config).meta)
  state, weight, average = experiment.init(jax.random.key(0), {}), 0.0, None
  start = state.params
  step = jax.jit(lambda s, b: experiment.train_step(s, b, jax.random.key(2), lambda fn, b, k: fn(b, k)))
  for k in range(6):
    state, metrics = step(state, tasks_of(config, k))
    mean = {name: float(total / count) for name, (total, count) in metrics.items()}
    np.testing.assert_allclose(mean["loss"], mean["edge"] + weight * mean["acyclic"], rtol=1e-5)
    assert np.isfinite(mean["loss"]) and mean["acyclic"] > 0
    average = mean["acyclic"] if average is None else average + 0.1 * (mean["acyclic"] - average)
    weight += 1e-4 * average * (k % 2)
    np.testing.assert_allclose(mean["acyclic_dual"], weight, rtol=1e-4)
  for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(state.params), strict=True):
    assert np.isfinite(b).all() and (np.asarray(a) != np.asarray(b)).any()


@pytest.mark.slow
def test_rejected_tasks_have_no_part_in_loss_gradient_or_counts():
  config = configured("smoke")
  experiment = setup.make_experiment(config, training.load(config).meta)
  batch, state = tasks_of(config), experiment.init(jax.random.key(0), {})
  some = jnp.asarray([1.0, 0, 1, 1, 0, 1, 1, 1])
  step = jax.jit(lambda s, b: experiment.train_step(s, b, jax.random.key(2), lambda fn, b, k: fn(b, k)))
  out = [step(state, batch | {"weight": some, "rejected": 1 - some,
                              "adjacency": jnp.where(some[:, None, None] > 0, batch["adjacency"], garbage)})
         for garbage in (0.0, 1.0)]
  for a, b in zip(jax.tree.leaves(out[0][0].params), jax.tree.leaves(out[1][0].params)):
    np.testing.assert_array_equal(a, b)
  assert float(out[0][1]["loss"][1]) == 6 and float(out[0][1]["rejected"][0]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["bcnp_pl", "bcnp"])
def test_every_graph_that_bcnp_samples_is_acyclic_and_marginals_are_those_of_the_samples(variant):
  config = configured(variant)
  model = bcnp.make_model(config)
  params, batch = model.init(jax.random.key(0)), tasks_of(config)
  params = jax.tree.map(lambda x: 1.3 * x, params)  # away from the start, where all orders are alike
  params, batch = params, jax.tree.map(lambda x: x[:2], batch)
  loss, probs, graphs = jax.jit(lambda p, b: model.posterior(p, b, jax.random.key(1), 20_000))(params, batch)
  graphs = np.asarray(graphs)
  closed = np.linalg.matrix_power(graphs + np.eye(4), 4) > 0
  assert not (closed & closed.swapaxes(-1, -2) & ~np.eye(4, dtype=bool)).any() and graphs.any()
  # 5 standard errors, 24 pairs: noise of orders and edges that came from one key would be 8 away.
  assert (np.abs(graphs.mean(1) - probs) < 5 * np.sqrt(np.maximum(probs * (1 - probs), 1e-4) / 20_000)).all()
  assert np.isfinite(np.asarray(loss)).all()


@pytest.mark.slow
@pytest.mark.parametrize("variant, module", [("smoke", avici), ("bcnp_pl", bcnp), ("bcnp", bcnp)])
def test_the_joint_log_probability_is_how_often_the_true_graph_is_sampled(variant, module):
  """Among 20,000 graphs of 3 variables; 5 standard errors, 8 tasks: a false alarm in 200,000."""
  config = configured(variant, data__num_nodes=(3,))
  model, num = module.make_model(config), 20_000
  params, batch = model.init(jax.random.key(0)), tasks_of(config)
  logits = {"beta": jnp.float32(-1), "tau": jnp.float32(0)} if variant == "smoke" else {}
  params = jax.tree.map(lambda x: 1.3 * x, params) | logits
  log_prob = jax.jit(lambda p, b: model.log_prob(p, b, jax.random.key(1), num))(params, batch)
  graphs = jax.jit(lambda p, b: model.posterior(p, b, jax.random.key(2), num))(params, batch)[2]
  often = np.asarray((graphs == batch["adjacency"][:, None]).all((2, 3)).mean(1))
  want = np.exp(np.asarray(log_prob, np.float64))
  assert (np.abs(often - want) < 5 * np.sqrt(2 * np.maximum(want, 1e-4) / num)).all() and (often > 1e-3).sum() > 3


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["bcnp", "bcnp_pl"])
def test_one_sampled_graph_is_enough(variant):
  config = configured(variant)
  model = bcnp.make_model(config)
  loss, _, graphs = model.posterior(model.init(jax.random.key(0)), tasks_of(config), jax.random.key(1), 1)
  assert graphs.shape == (8, 1, 4, 4) and np.isfinite(np.asarray(loss)).all()


@pytest.mark.slow
def test_the_dropout_of_training_is_off_in_validation():
  config = configured("bcnp", model__dropout_rate=0.5)
  model = bcnp.make_model(config)
  params, batch = model.init(jax.random.key(0)), tasks_of(config)
  same = [model.posterior(params, batch, jax.random.key(1), 4)[0] for _ in range(2)]
  other = [model.terms(params, batch, jax.random.key(k), True)[0]["edge"] for k in (1, 2)]
  np.testing.assert_array_equal(*same)
  assert np.abs(np.asarray(other[0] - other[1])).max() > 1e-4


@pytest.mark.slow
def test_a_posterior_without_edges_raises_an_alarm_in_the_facts(tmp_path):
  """A bias of -30 leaves no edge; the same run with one of 3 has no alarm."""
  found = {}
  for bias in (-30.0, 3.0):
    workdir = str(tmp_path / str(bias))
    loop.train(configured("smoke", model__beta_init=bias, optim__learning_rate=1e-6, train__num_steps=10), workdir)
    with open(os.path.join(workdir, "facts", "events.jsonl"), encoding="utf-8") as file:
      events = [json.loads(line) for line in file]
    found[bias] = [text for event in events if "alarms" in event for text in event["alarms"]]
  assert len(found[-30.0]) == 1 and "no edges" in found[-30.0][0] and found[3.0] == []


@pytest.mark.slow
def test_the_baseline_trains_nothing_and_has_the_density_of_the_training_graphs(tmp_path):
  config = configured("random", eval__max_val_tasks=64, eval__test_num_samples=50)
  result = loop.train(config, str(tmp_path))
  with open(tmp_path / "eval" / "val.json", encoding="utf-8") as file:
    scalars = json.load(file)["scalars"]
  assert result.best_value is None and scalars["rows"] == 64 and scalars["acyclic_share"] == 1
  assert scalars["auroc"] == 0.5 and scalars["edge_prob"] == pytest.approx(0.25)
  with pytest.raises(UserError, match="nothing to train"):
    configured("random", train__num_steps=10)


def test_intervals_cover_the_mean_as_often_as_they_say():
  """95 % intervals of 3 and of 40 normal values, 4,000 times each: within 1.5 % of it."""
  for size in (3, 40):
    values = np.random.RandomState(0).normal(size=(4000, size))
    found = [evaluate.with_interval("x", row) for row in values]
    assert abs(np.mean([abs(one["x"]) <= one["x_ci95"] for one in found]) - 0.95) < 0.015
  assert np.isnan(evaluate.with_interval("x", np.array([np.nan]))["x"])


@pytest.mark.slow
def test_check_measures_the_signal_of_each_mechanism():
  """Linear parents are explained linearly, squares are not, a chaotic original is constant (W3, W5)."""
  config = configured("smoke", data__mechanisms=("linear", "square", "legacy_logistic"), data__num_nodes=(8,),
                      data__task_chunk=8, data__noise_share=(0.1, 0.2))
  lines = signals.describe(config)
  read = {key.split()[1]: dict(part.rsplit(" ", 1) for part in text.split(", ")) for key, text in lines.items()}
  assert float(read["linear"]["parents_r2_linear"]) > 0.6
  assert float(read["square"]["parents_r2_linear"]) < 0.3 < float(read["square"]["parents_r2_trees"])
  assert float(read["legacy_logistic"]["constant"]) == 1.0
  assert 0.3 < float(read["linear"]["varsortability"]) < 0.7  # no order by variance is left


def test_sortability_by_hand():
  """A chain 0 -> 1 -> 2 with scores 1, 3, 2: of the pairs (0,1), (1,2), (0,2) two rise."""
  chain = np.zeros((3, 3))
  chain[0, 1] = chain[1, 2] = 1
  assert signals.sortability(np.array([1.0, 3.0, 2.0]), chain) == pytest.approx(2 / 3)
  assert signals.sortability(np.ones(3), chain) == 0.5
  assert np.isnan(signals.sortability(np.ones(3), np.zeros((3, 3))))


@pytest.mark.slow
@pytest.mark.parametrize("monitor", ["val_loss", pytest.param("train_loss", marks=pytest.mark.slow)])
def test_a_plateau_decides_with_evaluations(monitor):
  """Nothing is progress at a threshold near 1: the rate is cut after each evaluation but the first, every 10 steps."""
  result = loop.train(configured("smoke", train__num_steps=40, optim__plateau__factor=0.5, optim__plateau__patience=0,
                                 optim__plateau__threshold=0.999, optim__plateau__monitor=monitor,
                                 optim__schedule="constant", optim__warmup_steps=0, optim__learning_rate=0.016))
  # seen by the steps before each of four evaluations; on the training loss the last step of ten has the next rate not
  np.testing.assert_allclose(result.history["lr"], [0.016, 0.016, 0.008, 0.004], rtol=1e-5)
  assert float(result.state.opt_state.plateau.scale) == 0.125


@pytest.mark.slow
def test_the_best_by_the_highest_value_and_averaged_parameters(tmp_path):
  """train.monitor_mode=max with ema: `best` is the evaluation with the most, and `last` differs from it."""
  config = configured("smoke", train__num_steps=60, optim__ema_decay=0.9, optim__learning_rate=0.02,
                      optim__warmup_steps=0)
  assert (config.train.monitor, config.train.monitor_mode) == ("val_e_edge_f1", "max")
  result = loop.train(config, str(tmp_path / "run"))
  seen = result.history["val_e_edge_f1"]
  assert result.best_value == max(seen) and result.best_step == 10 * (1 + int(np.argmax(seen)))
  assert os.readlink(tmp_path / "run" / "checkpoints" / "best") == str(result.best_step)
  averaged, plain = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
                     for tree in (result.state.ema, result.state.params))
  assert np.abs(averaged - plain).max() > 1e-4


@pytest.mark.parametrize("changed, words", [
    ({"optim__plateau__factor": 0.5, "optim__plateau__monitor": "val_auroc"},
     "got 'val_auroc', of which more is better"),
    ({"data__graphs": ("tree",)}, "config.data.graphs: got 'tree', allowed er, sf"),
    ({"data__task_chunk": 3}, "config.data.task_chunk: got 3, allowed divisors of config.train.batch_size = 8"),
    ({"data__mixture": "row"}, "config.data.mixture: got 'row', allowed node | task"),
    ({"data__noise_share": (0.9, 0.1)}, "config.data.noise_share"),
    ({"data__num_nodes": (1,)}, "config.data.num_nodes"), ({"data__num_nodes": ()}, "config.data.num_nodes"),
    ({"data__pad_to": (3,)}, "config.data.pad_to: got (3,), allowed up to at least 4"),
    ({"data__noises": ("pink",)}, "config.data.noises: got 'pink', allowed gaussian"),
    ({"model__sample_chunk": 5}, "config.model.sample_chunk: got 5, allowed 0 or divisors of the 16 rows"),
    ({"model__sample_chunk": 8, "data__test_families": ("a num_rows=20 num_rows_int=0",)},
     "config.model.sample_chunk: got 8, allowed 0 or divisors of the 20 rows"),
    ({"data__graphs": ("sf m=4",)}, "m=4 in 'sf m=4', allowed 1 to 3"),
    ({"model__architecture": "heavy"}, "config.model.architecture: got 'heavy', allowed official | lite"),
    ({"model__architecture": "lite"}, "got 'lite' with fields num_blocks, key_size, tau_init, beta_init, allowed with "
                                      "num_layers, emb_depth"),
    ({"model__penalty": "none"}, "config.model.penalty: got 'none', allowed spectral | exponential"),
    ({"model__dual__interval": 0}, "config.model.dual.interval: got 0, allowed 1 to 2147483647"),
    ({"train__num_epochs": 3, "train__num_steps": 0}, "the training source is endless")])
def test_bad_configs_are_refused_in_a_line(changed, words):
  with pytest.raises(UserError) as caught:
    check.describe(configured("smoke", **changed))
  assert words in str(caught.value) and "\n" not in str(caught.value)
