"""Losses of an autoencoder and its critic against float64 NumPy, and gradients against those of all parameters."""

import functools

import jax
import numpy as np
import pytest
from scipy import special

import gan_cases as cases
from jaxtrain.devices import parallel
from jaxtrain.experiments.autoencoder import adversarial, game, gan_ae, objective


NOISE = 0.1  # of the default


@functools.cache
def case():
  """(a small autoencoder with its critic, a batch of its own by `drawn`)."""
  made = cases.made().filled()
  return made, drawn(made)


def drawn(made):
  """The batch with all that is drawn for it, event weights that differ, and some rows of padding."""
  B = len(made.batch["weight"])
  weight = np.random.RandomState(5).uniform(0.2, 2, B).astype(np.float32)
  batch = made.batch | {"event_weight": weight, "weight": (np.arange(B) % 5 > 0).astype(np.float32)}
  noise = jax.jit(lambda: objective.draw(made.game.problem, cases.KEY, B) | game.draw_blur(made.game, cases.KEY, B))
  return batch | noise() | {"between": np.linspace(0, 1, B, dtype=np.float32)}


@functools.cache
def shown():
  """(what comes back, real and made events without noise, the same with noise, their logits) of the batch."""
  made, batch = case()
  sharp = made.game._replace(settings=cases.configured(model__critic__noise=0.0).model.critic)
  @jax.jit
  def applied(state, batch):
    given = {"params": state.params["model"]}
    _, out = objective.through(made.game.problem, given, batch, objective.codes_of(state))
    seen = game.both(made.game, batch, out)
    return out, game.both(sharp, batch, out), seen, [made.game.judge(state.params["critic"], x) for x in seen]
  return applied(made.state, batch)


@functools.cache
def judged():
  """(case, batch, float64 weights, logits of real and of made events)."""
  made, batch = case()
  real, fake = (np.asarray(x, np.float64) for x in shown()[-1])
  return made, batch, np.asarray(batch["weight"] * batch["event_weight"], np.float64), real, fake


@functools.cache
def sums():
  """Compiled `(state, batch) -> (sums of the critic, sums of the other networks)`."""
  g = judged()[0].game
  return jax.jit(lambda state, batch: (game.critic_sums(g, state.params["critic"], state, batch, cases.KEY),
                                       game.model_sums(g, state.params["model"], state, batch, cases.KEY)))


def test_terms_of_both_sides_are_their_formulas_by_event_weights():
  made, batch, weight, real, fake = judged()
  critic, model = sums()(made.state, batch)
  np.testing.assert_allclose(critic.terms["critic_loss"], np.sum(weight * (
      np.maximum(1 - real, 0) + np.maximum(1 + fake, 0))), rtol=1e-5)
  np.testing.assert_allclose(model.terms["adversarial"], -np.sum(weight * fake), rtol=1e-4)
  wanted = {"real_logit": real, "fake_logit": fake, "critic_accuracy": ((real > 0) + 0.0 + (fake < 0)) / 2}
  for name, rows in wanted.items():
    total, count = critic.metrics[name]
    np.testing.assert_allclose([total, count], [np.sum(weight * rows), np.sum(weight)], rtol=1e-4, err_msg=name)
  assert set(critic.terms) == set(game.critic_counts(made.game, batch)) == {"critic_loss", "r1"}
  assert made.game.critic_weights == {"critic_loss": 1.0, "r1": 0.5}
  counts = game.model_counts(made.game, batch)
  assert set(model.terms) == set(counts) == {*made.game.problem.terms, "adversarial"}
  np.testing.assert_allclose([counts["adversarial"], game.critic_counts(made.game, batch)["r1"]], np.sum(weight),
                             rtol=1e-6)


def test_r1_is_the_gradient_at_real_events_as_the_critic_sees_them():
  made, batch, weight, _, _ = judged()
  params = made.state.params["critic"]
  def logit(cont, of_event, row):
    one = {"cont": cont[None], "globals": of_event[None], "ids": batch["ids"][row][None]}
    return made.game.judge(params, game.nets.make_slots(one))[0]
  gradient, total = jax.jit(jax.grad(logit, (0, 1))), 0.0
  rows = np.flatnonzero(weight)[:4]
  for row in rows:
    blurred = (batch[name][row] + NOISE * batch[f"blur_{name}"][row, 0] for name in ("cont", "globals"))
    grads = gradient(*blurred, row)
    total += weight[row] * sum(np.sum(np.square(np.asarray(x, np.float64))) for x in grads)
  some = batch | {"weight": np.where(np.arange(len(weight)) <= rows[-1], batch["weight"], np.float32(0))}
  np.testing.assert_allclose(sums()(made.state, some)[0].terms["r1"], total, rtol=1e-4)


@pytest.mark.parametrize("fields, weights", [
    pytest.param({"model__critic__r2_gamma": 4.0}, {"critic_loss": 1.0, "r1": 0.5, "r2": 2.0}, marks=pytest.mark.slow),
    ({"model__critic__loss": "wgan_gp"}, {"critic_loss": 1.0, "r1": 0.5, "gradient_penalty": 1.0}),
])
def test_penalties_weigh_half_their_gamma(fields, weights):
  """The first test has the default's, the last one that of a gamma of zero is not computed."""
  config = cases.configured(**fields)
  made, batch = case()
  g = made.game._replace(settings=config.model.critic)
  assert g.critic_weights == weights
  sums = jax.eval_shape(lambda state: game.critic_sums(g, state.params["critic"], state, batch, cases.KEY), made.state)
  assert set(sums.terms) == set(weights)


def test_what_stands_in_empty_slots_changes_nothing():
  made, batch, *_ = judged()
  strange = batch | {"cont": np.where((batch["ids"] > 0)[..., None], batch["cont"], np.float32(1e3))}
  for one, other in zip(jax.tree.leaves(sums()(made.state, batch)), jax.tree.leaves(sums()(made.state, strange))):
    np.testing.assert_array_equal(one, other)


def test_what_is_made_keeps_the_types_of_its_objects():
  _, _, (real, fake), _ = shown()
  np.testing.assert_array_equal(real.ids, fake.ids)
  np.testing.assert_array_equal(real.mask, fake.mask)
  assert all(np.abs(np.subtract(one, two)).max() > 0.1 for one, two in (
      (real.cont, fake.cont), (real.globals, fake.globals)))


def test_azimuths_of_made_events_are_on_their_circle_and_noise_is_of_the_stated_size():
  """Deviations of a sample of some thousand numbers are within 5 % but once in many million times."""
  made, batch = case()
  names = made.splits.meta["scaler"]["names"]
  out, (real, fake), (seen, seen_fake), _ = jax.tree.map(np.asarray, shown())
  cos, sin = (np.asarray(fake.cont[..., names.index(name)], np.float64) for name in ("cos_phi", "sin_phi"))
  np.testing.assert_allclose(np.hypot(cos, sin), 1, rtol=1e-5)
  others = [c for c, name in enumerate(names) if not name.endswith("phi")]
  np.testing.assert_array_equal(fake.cont[..., others], out.decoded.cont[..., others])
  np.testing.assert_array_equal(real.cont, batch["cont"])
  for blurred, of in ((seen, real), (seen_fake, fake)):
    np.testing.assert_allclose(np.std(blurred.cont - of.cont), NOISE, rtol=0.05)
  assert np.abs((seen.cont - real.cont) - (seen_fake.cont - fake.cont)).max() > NOISE


@pytest.mark.parametrize("kind, path", [
    ("gan", ("decoder", "heads")), ("gnn", ("decoder", "heads")), ("diffusion", ("decoder", "heads")),
    ("mlp", ("decoder", "stack", "layer_1"))])
def test_the_decoders_last_layer_makes_what_is_decoded_of_a_slot(kind, path):
  """It has an output for each normalised number."""
  made = cases.made()
  config = cases.configured(model__decoder__kind=kind)
  assert game.find_last_layer(config.model.decoder) == path
  model = gan_ae.make_game(config, made.splits.meta).problem.model
  first = jax.tree.map(lambda x: x[:2], made.game.problem.input_of(made.batch))
  params = jax.eval_shape(model.init, cases.KEY, first)["params"]
  assert game.pick(params, path)["linear"]["bias"].shape == (made.splits.meta["num_features"],)


@pytest.mark.slow
def test_the_adaptive_weight_compares_gradients_of_the_last_layer():
  """Against gradients of all parameters, taken of the other terms and of the adversarial one by themselves."""
  made, batch, weight, _, fake = judged()
  g, state = made.game, made.state
  counts = game.model_counts(g, batch)
  def loss(params, names, weights):
    terms = game.model_sums(g, params, state, batch, cases.KEY).terms
    return sum(weights[name] * terms[name] / counts[name] for name in names)
  weights = objective.weights(g.problem, state) | {"adversarial": 1.0}
  grads = [jax.jit(jax.grad(lambda params: loss(params, names, weights)))(state.params["model"])
           for names in (g.problem.terms, ("adversarial",))]
  norms = [np.sqrt(sum(np.sum(np.square(np.asarray(x, np.float64))) for x in jax.tree.leaves(grad["decoder"]["heads"])))
           for grad in grads]
  for over in (parallel.over_whole, parallel.make_over_chunks(4)):
    found = jax.jit(lambda state: game.ratio_of_gradients(g, state, batch, cases.KEY, over))(state)
    np.testing.assert_allclose(found, norms[0] / norms[1], rtol=1e-3)
  assert 0 < found < adversarial.MOST_ADAPTIVE


@pytest.mark.slow
def test_an_evaluation_adds_up_over_chunks_and_says_what_the_critic_says():
  """Of the averaged parameters, which are those at the start here."""
  made, batch, weight, *_ = judged()
  evaluate = lambda over: jax.jit(lambda: game.evaluate_batch(made.game, made.state, batch, cases.KEY, over))()
  whole, chunks = evaluate(parallel.over_whole), evaluate(parallel.make_over_chunks(4))
  for name in whole:
    for one, other in zip(whole[name], chunks[name]):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4, err_msg=name)
  mean = {name: float(total / count) for name, (total, count) in whole.items() if np.ndim(total) == 0}
  assert mean["adversarial"] == pytest.approx(-mean["fake_logit"], rel=1e-5)
  assert 0 <= mean["critic_accuracy"] <= 1 and {"critic_loss", "real_logit", *made.game.problem.terms} <= set(mean)
  assert "loss" in objective.summarise(made.game.problem, whole)


def test_the_softplus_game_has_its_formula_too():
  """Another kind goes through the same sums; a penalty of no weight is not computed."""
  made, batch, weight, real, fake = judged()
  config = cases.configured(model__critic__loss="nonsat", model__critic__r1_gamma=0.0)
  g = made.game._replace(settings=config.model.critic)
  found = jax.jit(lambda state: game.critic_sums(g, state.params["critic"], state, batch, cases.KEY))(made.state)
  assert set(found.terms) == set(g.critic_weights) == {"critic_loss"}
  softplus = lambda x: -special.log_expit(-x)
  np.testing.assert_allclose(found.terms["critic_loss"], np.sum(weight * (softplus(-real) + softplus(fake))), rtol=1e-5)
