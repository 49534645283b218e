"""The loop whose decoder denoises: its loss against float64 NumPy, what comes back, what is drawn, what is refused."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import event_cases as cases
from jaxtrain import rng, step
from jaxtrain.devices import parallel
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import ae, apply, denoising, diffusion_ae, noise_levels, objective, training

SMALL = {"model__encoder__num_blocks": 1, "model__decoder__num_blocks": 1, "model__prior__num_blocks": 1,
         "model__prior__hidden_dim": 16, "model__prior__num_steps": 4, "model__diffusion__num_steps": 6}
PROCESSES = {
    "edm": {},
    "flow": {"model__diffusion__process": "flow"},
    "ddpm_v": {"model__diffusion__process": "ddpm", "model__diffusion__sampler": "ddim"},
    "ddpm_eps": {"model__diffusion__process": "ddpm", "model__diffusion__target": "eps",
                 "model__diffusion__schedule": "linear", "model__diffusion__sampler": "ancestral"},
}
SLOW = lambda names, fast: [pytest.param(name, marks=[pytest.mark.slow] * (name not in fast)) for name in names]


def made_with(**fields):
  """The loop at its start, small."""
  return cases.made("diffusion_ae", **SMALL | fields)


@functools.cache
def case(name="edm"):
  """(the loop of a process with parameters of which none is 0, a batch with all that is drawn in a step)."""
  made = made_with(**PROCESSES[name]).filled()
  batch = made.batch("train")
  weight = np.random.RandomState(0).uniform(0.2, 2, len(batch["weight"])).astype(np.float32)
  batch |= {"event_weight": weight, "weight": (np.arange(len(weight)) % 5 > 0).astype(np.float32)}
  return made, jax.jit(functools.partial(training.with_draws, made.problem))(batch, cases.KEY)


class Passed(NamedTuple):
  """What a batch gives: noisy objects in float64; what is decoded of them, and what the network says; and what comes
  back without noise of the latents of an evaluation.
  """
  noisy: np.ndarray
  out: objective.Output
  raw: Any
  plain: objective.Output


@functools.cache
def passed():
  """`Passed` of the batch, in one program."""
  made, batch = case()
  p, given = made.problem, {"params": made.state.params}
  x, eps, sigma = (np.asarray(batch[name], np.float64) for name in ("cont", "level_noise", "level"))
  noisy = (np.asarray(batch["ids"]) > 0)[..., None] * (x + sigma[:, None, None] * eps)
  scaled = (noisy / np.sqrt(sigma**2 + 1)[:, None, None]).astype(np.float32)
  @jax.jit
  def applied(batch, scaled):
    found, out = objective.through(p, given, batch, None)
    raw = p.model.bind(given).raw(scaled, jnp.log(batch["level"]), found.z, out.mask, batch["ids"])
    drawn = batch | objective.draw(p, jax.random.split(cases.KEY)[0], len(batch["weight"]))
    plain = {name: leaf for name, leaf in drawn.items() if not name.startswith("level")}
    return out, raw, objective.through(p, given, plain, None)[1]
  return Passed(noisy, *applied(batch, scaled))


@functools.cache
def sums_of(name="edm"):
  """`batch -> (objective.loss_sums, gradients of the sum of the denoising term)`, compiled."""
  made, _ = case(name)
  def sums(params, batch):
    chunk = objective.loss_sums(made.problem, params, made.state, batch, cases.KEY)
    return chunk.terms["denoise"], chunk
  both = jax.jit(jax.value_and_grad(sums, has_aux=True))
  def found(batch):
    (_, chunk), grads = both(made.state.params, batch)
    return chunk, grads
  return found


@functools.cache
def evaluated():
  """Totals of an evaluation batch, with its noise."""
  made, batch = case()
  evaluate = lambda batch: objective.evaluate(made.problem, made.state, batch, cases.KEY, parallel.over_whole)
  return jax.jit(evaluate)({name: batch[name] for name in ("cont", "ids", "globals", "weight", "event_weight", "label")
                            if name in batch})


def test_the_loss_is_karras_and_others_in_float64():
  """Noise of deviation sigma, c_in of Karras et al.'s table 1, and the error of the data weighted by lambda(sigma)."""
  made, batch = case()
  p = made.problem
  noisy, out, raw, _ = passed()
  x, sigma = (np.asarray(batch[name], np.float64) for name in ("cont", "level"))
  sigma, there = sigma[:, None, None], (np.asarray(batch["ids"]) > 0).astype(float)
  back = noisy / (sigma**2 + 1) + sigma / np.sqrt(sigma**2 + 1) * np.asarray(raw.cont, np.float64)
  each = there * np.mean((back - x)**2, axis=2) * ((sigma**2 + 1) / sigma**2)[..., 0]
  weight = np.asarray(batch["weight"] * batch["event_weight"], np.float64)
  (chunk, _), counts = sums_of()(batch), jax.jit(functools.partial(objective.term_counts, p))(batch)
  np.testing.assert_allclose(chunk.terms["denoise"], (weight[:, None] * each).sum(), rtol=1e-3)
  np.testing.assert_allclose(counts["denoise"], (weight[:, None] * there).sum(), rtol=1e-5)
  np.testing.assert_allclose(np.asarray(out.decoded.cont)[there > 0], back[there > 0], rtol=1e-3, atol=1e-3)
  of_event = weight * np.mean((np.asarray(raw.globals, np.float64) - batch["globals"])**2, axis=1)
  np.testing.assert_allclose(chunk.terms["globals"], of_event.sum(), rtol=1e-4)
  assert set(p.terms) == {"denoise", "globals", "kl", "prior"} and "square" not in chunk.metrics


@pytest.mark.parametrize("name", SLOW(PROCESSES, ("edm",)))
def test_what_stands_in_empty_slots_changes_nothing(name):
  _, batch = case(name)
  empty = (batch["ids"] == 0)[..., None]
  strange = batch | {key: np.where(empty, 1e3, batch[key]).astype(np.float32) for key in ("cont", "level_noise")}
  for one, other in zip(jax.tree.leaves(sums_of(name)(batch)), jax.tree.leaves(sums_of(name)(strange))):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", SLOW(PROCESSES, ("edm",)))
def test_the_encoder_learns_from_denoising_alone(name):
  """All networks but the prior's, and but that of globals, have a finite gradient of the term."""
  grads = sums_of(name)(case(name)[1])[1]
  for path, x in jax.tree_util.tree_leaves_with_path(grads):
    where = jax.tree_util.keystr(path)
    others = "['prior']" in where or "['globals']" in where
    assert np.isfinite(x).all() and (np.abs(x).max() > 0) != others, where


def test_buckets_of_noise_levels_add_up_to_the_term():
  totals = evaluated()
  names = [f"denoise_{k}" for k in range(1, denoising.NUM_BUCKETS + 1)]
  assert all(totals[name][1] > 0 for name in names)
  for k in range(2):
    np.testing.assert_allclose(sum(totals[name][k] for name in names), totals["denoise"][k], rtol=1e-5)


def test_a_bucket_holds_its_quarter_of_the_levels():
  """Four rows with a level from the middle of each quarter, one object in each."""
  d = made_with().problem.denoising
  level = np.exp(-1.2 + 1.2 * np.array([1.1503, -0.3186, -1.1503, 0.3186])).astype(np.float32)  # 7/8, 3/8, 1/8, 5/8
  error = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
  batch = {"level": level, "ids": np.array([[1, 0]] * 4)}
  found = jax.jit(functools.partial(denoising.bucket_metrics, d))(error, batch, np.full(4, 0.5, np.float32))
  assert [float(found[f"denoise_{k}"][0]) for k in (1, 2, 3, 4)] == [1.5, 1.0, 2.0, 0.5]
  assert all(float(count) == 0.5 for _, count in found.values())


def test_what_comes_back_is_judged_without_noise():
  """The variance that is not explained is of what the latent alone says; what the noise is does not matter to it."""
  made, batch = case()
  p, totals = made.problem, evaluated()
  out = passed().plain
  assert out.error is None
  each = (np.asarray(batch["ids"]) > 0) * np.asarray(batch["weight"] * batch["event_weight"], np.float64)[:, None]
  square = np.einsum("nt,ntc->nc", each, (np.asarray(out.decoded.cont, np.float64) - batch["cont"])**2)
  np.testing.assert_allclose(totals["cont"][0] / totals["cont"][1], square.mean(axis=1).sum() / each.sum(), rtol=1e-4)
  np.testing.assert_allclose(np.sum(totals["square"][0]), square.sum(), rtol=1e-4)
  assert "unexplained_variance" in objective.summarise(p, totals)


def test_the_loss_of_an_evaluation_has_no_prior():
  p, totals = case()[0].problem, evaluated()
  mean = lambda name: totals[name][0] / totals[name][1]
  wanted = sum(p.loss.weights[name] * mean(name) for name in ("denoise", "globals", "kl"))
  np.testing.assert_allclose(objective.summarise(p, totals)["loss"], wanted, rtol=1e-5)


@pytest.mark.slow
def test_chunks_add_up_to_the_batch():
  made, batch = case()
  gradient = step.make_gradient(functools.partial(objective.loss_sums, made.problem),
                                functools.partial(objective.term_counts, made.problem),
                                functools.partial(objective.weights, made.problem))
  found = [jax.jit(lambda s, b: gradient(s, b, cases.KEY, over).grads)(made.state, batch)
           for over in (parallel.over_whole, parallel.make_over_chunks(4))]
  for one, other in zip(*map(jax.tree.leaves, found)):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * max(1e-3, float(np.abs(one).max())))


@pytest.mark.slow
def test_a_step_moves_the_average_that_is_judged():
  made, batch = case()
  bare = {name: batch[name] for name in ("cont", "ids", "globals", "weight", "event_weight")}
  step_of = lambda state, batch: made.experiment.train_step(state, batch, cases.KEY, parallel.over_whole)
  new, metrics = jax.jit(step_of)(made.state, bare)
  old, decay = made.state.params, made.config.optim.ema_decay
  for start, end, mean in zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (old, new.params, new.ema))):
    np.testing.assert_allclose(mean, decay * start + (1 - decay) * end, rtol=1e-4, atol=1e-6)
  assert new.applied is new.ema and int(new.step) == 1 and set(made.problem.terms) < set(metrics)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_new_events_are_drawn_by_the_sampler(name):
  made, _ = case(name)
  draw = lambda seed: made.experiment.predict["generate"].run(made.state, None, 12, jax.random.key(seed))
  one, again, other = draw(0), draw(0), draw(1)
  assert all(np.isfinite(one[key]).all() and (one[key] == again[key]).all() for key in one)
  assert any((one[key] != other[key]).any() for key in one)
  pt, ids = (np.stack([one[f"{what}_{t}"] for t in range(18)], axis=1) for what in ("pt", "id"))
  np.testing.assert_array_equal(pt > 0, ids > 0)


def test_a_trajectory_ends_in_the_sample():
  made, batch = case()
  d, bound = made.problem.denoising, made.problem.model.bind({"params": made.state.params})
  ids, z = batch["ids"][:3], jnp.asarray(np.random.RandomState(1).normal(size=(3, 1, 8)), jnp.float32)
  given = (z, jnp.ones((3, 1)), ids, batch["cont"].shape[2], cases.KEY)
  way = jax.jit(lambda: denoising.trajectory(d, bound, *given, 3))()
  end = jax.jit(lambda: denoising.sample(d, bound, *given))()
  np.testing.assert_allclose(way[-1], end.cont, rtol=1e-4, atol=1e-4)
  assert way.shape[:3] == (3, *ids.shape) and np.all(np.asarray(way)[:, ids == 0] == 0)


@pytest.mark.slow
def test_objects_with_latents_of_their_own_have_types_and_existence():
  made = made_with(model__latent__per_object=True, model__latent__kind="none")
  assert set(made.problem.terms) == {"denoise", "id", "exists", "globals"}
  batch = training.with_draws(made.problem, made.batch("train"), cases.KEY)
  chunk = jax.jit(lambda b: objective.loss_sums(made.problem, made.state.params, made.state, b, cases.KEY))(batch)
  assert all(np.isfinite(total) for total in chunk.terms.values()) and "id_accuracy" in chunk.metrics
  assert "generate" not in made.experiment.predict


@pytest.mark.parametrize("fields, text", [
    ({"model__decoder__kind": "mlp"}, "config.model.decoder.kind: got 'mlp', allowed the kind diffusion"),
    ({"model__decoder__own": ("a.b",)}, "config.model.decoder.own: got 'a.b', allowed the kind diffusion"),
    ({"model__diffusion__sampler": "ddim"}, "config.model.diffusion.sampler: got 'ddim', allowed heun")])
def test_parts_that_do_not_denoise_are_refused(fields, text):
  config = cases.configured("diffusion_ae", **fields)
  with pytest.raises(UserError, match=text):
    diffusion_ae.make(config, diffusion_ae.load(config).meta)


@pytest.mark.slow
def test_without_noise_objects_differ_by_type_and_place_alone():
  """Slots that trade places, but not with others of their type, have what is expected of them trade places too."""
  made, batch = case()
  p, given = made.problem, {"params": made.state.params}
  bound = p.model.bind(given)
  ids = jnp.asarray([[1, 2, 1, 0, 3, 2]])
  order = np.array([1, 0, 4, 3, 2, 5])  # jets and b-jets each stay in their order
  z = jax.random.normal(cases.KEY, (1, 1, p.plan.dim))
  expected = lambda some: denoising.expected(p.denoising, bound, z, jnp.ones((1, 1)), some, p.meta["num_features"]).cont
  there = np.asarray(ids)[0] > 0
  np.testing.assert_allclose(expected(ids[:, order])[0][there[order]], expected(ids)[0][order][there[order]], atol=1e-5)
  assert float(jnp.abs(expected(ids)[0, 0] - expected(ids)[0, 2]).max()) > 1e-3


def test_a_latent_may_be_smaller_than_an_object():
  """Its noise is that of the process; without one the decoder's noise is as wide as a latent."""
  config = cases.configured("diffusion_ae", model__latent__dim=2)
  meta = diffusion_ae.load(config).meta
  assert diffusion_ae.make_problem(config, meta).plan.dim == 2
  with pytest.raises(UserError, match="config.model.latent.dim: got 2, the diffusion decoder takes noise"):
    ae.make_problem(config, meta)


def test_fields_without_effect_are_noted():
  config = cases.configured("diffusion_ae", optim__decay_steps=10)
  meta = diffusion_ae.load(config).meta
  assert diffusion_ae.make(config, meta).notes == ()
  config = cases.configured("diffusion_ae", optim__decay_steps=10, model__diffusion__target="eps",
                            model__latent__per_object=True)
  said = diffusion_ae.make(config, meta).notes
  assert len(said) == 2 and "no verb generate and config.model.prior has no effect" in said[0]
  assert said[1] == "config.model.diffusion.target=eps has no effect with process edm and sampler heun"


def test_images_are_refused():
  config = cases.configured("diffusion_ae")
  with pytest.raises(UserError, match="config.data.source: got images"):
    diffusion_ae.make(config, {"kind": "images"})


@pytest.mark.slow
def test_the_loss_of_each_level_is_that_of_its_noise():
  """24 levels spread as in training; one of them against `objective.through` with that level, by event weights."""
  made, _ = case()
  p, params = made.problem, {"params": made.state.applied}
  scalars, found = noise_levels.make_assess(p)(made.state, made.splits, cases.KEY)
  assert scalars == {} and found["level_loss"].shape == (24,) and np.all(np.diff(found["level_log_snr"]) < 0)
  np.testing.assert_allclose(found["level_loss"], found["level_error"] * found["level_weight"], rtol=1e-2)
  log_sigma = -1.2 + 1.2 * special.ndtri((np.arange(24) + 0.5) / 24)
  np.testing.assert_allclose(found["level_log_snr"], -2 * log_sigma, rtol=1e-3, atol=1e-4)
  given = made.rows("test")
  noise_key, _ = jax.random.split(cases.KEY)
  batch = apply.batch_of(p.meta, apply.rows_of(given))
  batch |= {"level": jnp.full(len(given["ids"]), np.exp(log_sigma[7]), jnp.float32),
            "level_noise": rng.normal(noise_key, given["cont"].shape)}
  error = np.asarray(jax.jit(lambda b: objective.through(p, params, b, None)[1].error)(batch), np.float64)
  wanted = (given["event_weight"] * error).sum() / (given["event_weight"] * (given["ids"] > 0).sum(axis=1)).sum()
  np.testing.assert_allclose(found["level_loss"][7], wanted, rtol=1e-3)
  assert found["trajectory"].shape == (6, 8, 18, 4) and np.isfinite(found["trajectory"]).all()
  np.testing.assert_array_equal(found["trajectory"][..., 1] > 0, np.tile(found["trajectory_ids"] > 0, (6, 1, 1)))
  assert "test-levels" in made.experiment.assess


@pytest.mark.slow
def test_modes_agree():
  """Canonical has one digest on one and two devices; all others come to the same numbers."""
  one = cases.outcomes("diffusion_ae", "jit", "chunks", "canonical", **SMALL)
  two = cases.outcomes_on(2, "diffusion_ae", "jit", "pmap", "canonical", **SMALL)
  assert one["canonical"]["digest"] == two["canonical"]["digest"]
  for other in (one["jit"], one["chunks"], two["jit"], two["pmap"]):
    for path, leaf in one["canonical"]["leaves"].items():
      np.testing.assert_allclose(leaf, other["leaves"][path], rtol=1e-3, atol=1e-5, err_msg=path)
    np.testing.assert_allclose(one["canonical"]["losses"], other["losses"], rtol=1e-4)


@pytest.mark.slow
def test_members_of_one_program_train_as_they_do_alone():
  made, batch = made_with(), made_with().batch("train")
  def trained(seed, batch):
    state = made.experiment.init(jax.random.key(seed), batch)
    return made.experiment.train_step(state, batch, state.key, parallel.over_whole)[0].params
  together = jax.jit(jax.vmap(trained, (0, None)))(jnp.arange(2), batch)
  for seed in range(2):
    for one, member in zip(*map(jax.tree.leaves, (jax.jit(trained)(seed, batch), together))):
      np.testing.assert_allclose(member[seed], one, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_it_learns_to_denoise():
  """An output of zeros has an error of 1 at every level of edm: after 400 steps each quarter of the levels is below it,
  and missing energy comes back.
  """
  made = made_with(data__row_limit=1000, train__batch_size=128, model__decoder__hidden_dims=(32, 64),
                   optim__ema_decay=0.99, optim__learning_rate=2e-3)
  source, batch = made.splits.train, made.batch("val")
  one = step.make_one_step(made.experiment, source, parallel.over_whole, "halt")
  train = lambda state, data: jax.lax.fori_loop(
      0, 400, lambda i, s: one(s, data, step.stream_keys(made.state))[0], state)
  state = jax.jit(train)(made.state, jax.device_put(source.data))
  totals = jax.jit(lambda s, b: made.experiment.eval_step(s, b, cases.KEY, parallel.over_whole))(state, batch)
  means = {name: float(total / count) for name, (total, count) in totals.items() if jnp.ndim(total) == 0}
  assert int(state.step) == 400 and means["denoise"] < 0.8 and means["globals"] < 0.2
  assert all(means[f"denoise_{k}"] < 0.9 for k in range(1, 5))
