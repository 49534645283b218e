"""The loss of an autoencoder against float64 NumPy that writes each term out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import event_cases as cases
from jaxtrain import step
from jaxtrain.devices import parallel
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import ae, evaluate, latents, objective

KINDS = ("none", "vq", "rvq", "fsq", "vae")
SMALL = {"model__latent__levels": (3, 4), "model__latent__num_stages": 2}


def weighted(batch, seed=5):
  """A batch with event weights that differ, and some rows of padding."""
  weight = np.random.RandomState(seed).uniform(0.2, 2, len(batch["weight"])).astype(np.float32)
  return batch | {"event_weight": weight, "weight": (np.arange(len(weight)) % 5 > 0).astype(np.float32)}


def case(kind, **fields):
  """An autoencoder with a kind of latent, and a batch with all that is drawn in a step."""
  made = cases.made(model__latent__kind=kind, **SMALL | fields).filled()
  batch = weighted(made.batch("train"))
  draws = jax.jit(lambda weight: (objective.draw(made.problem, cases.KEY, len(weight))
                                  | latents.draw_fresh(cases.KEY, weight)))
  return made, batch | jax.tree.map(np.asarray, draws(batch["weight"]))


def written_out(made, batch, found, out):
  """{term: (sum, count)} in float64."""
  b, d = ({key: None if value is None else np.asarray(value, np.float64) for key, value in tree.items()}
          for tree in (batch, out.decoded._asdict()))
  w, there = b["weight"] * b["event_weight"], (b["ids"] > 0).astype(float)
  T, S = there.shape[1], made.problem.num_latents
  each = w[:, None] * there
  with_event = np.concatenate([there, np.ones((len(w), S - T))], axis=1) * w[:, None]
  nats = special.logsumexp(d["id_logits"], axis=2) - np.take_along_axis(
      d["id_logits"], batch["ids"][..., None].astype(int), axis=2)[..., 0]
  exists = np.where(there > 0, -special.log_expit(d["exists_logit"]), -special.log_expit(-d["exists_logit"]))
  terms = {"cont": ((each * np.square(d["cont"] - b["cont"]).mean(axis=2)).sum(), each.sum()),
           "id": ((each * np.where(there > 0, nats, 0)).sum(), each.sum()),
           "exists": ((w[:, None] * exists).sum(), w.sum() * T),
           "globals": ((w * np.square(d["globals"] - b["globals"]).mean(axis=1)).sum(), w.sum()),
           "commitment": ((w * np.asarray(found.commitment, np.float64).sum(axis=1)).sum(), with_event.sum()),
           "kl": ((w * np.asarray(found.kl, np.float64).sum(axis=1)).sum(), with_event.sum())}
  return {name: terms[name] for name in made.problem.terms}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in ("vq", "vae")))
                                  for kind in KINDS])
def test_each_term_is_its_formula_over_objects_by_event_weights(kind):
  made, batch = case(kind)
  p, state = made.problem, made.state
  chunk = jax.jit(lambda params: objective.loss_sums(p, params, state, batch, cases.KEY))(state.params)
  found, out = objective.through(p, {"params": state.params}, batch, objective.codes_of(state))
  counts = objective.term_counts(p, batch)
  for name, (total, count) in written_out(made, batch, found, out).items():
    np.testing.assert_allclose(chunk.terms[name], total, rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(counts[name], count, rtol=1e-6, err_msg=name)
  assert set(chunk.terms) == set(counts) == set(p.terms)


@pytest.mark.slow
def test_the_legacy_loss_is_the_plain_mean_over_all_slots():
  made = cases.made("legacy", model__latent__kind="vq")
  batch = made.batch("train")
  p, state = made.problem, made.state
  found, out = objective.through(p, {"params": state.params}, batch, objective.codes_of(state))
  rows, counts = objective.row_terms(p, state.params, state, batch, found, out), objective.term_counts(p, batch)
  gap = np.asarray(out.decoded.cont, np.float64) - batch["cont"]
  wanted = {"cont": np.square(gap).mean(), "commitment": np.mean(np.asarray(found.commitment, np.float64)),
            "globals": np.square(np.asarray(out.decoded.globals, np.float64) - batch["globals"]).mean()}
  assert set(wanted) == set(p.terms)
  for name, value in wanted.items():
    np.testing.assert_allclose(np.sum(rows[name]) / counts[name], value, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("kind", ("vq", pytest.param("fsq", marks=pytest.mark.slow)))
def test_what_stands_in_empty_slots_changes_nothing(kind):
  made, batch = case(kind)
  strange = batch | {"cont": np.where((batch["ids"] > 0)[..., None], batch["cont"], 1e3).astype(np.float32)}
  p, state = made.problem, made.state
  sums = jax.jit(lambda batch: objective.loss_sums(p, state.params, state, batch, cases.KEY))
  for one, other in zip(jax.tree.leaves(sums(batch)), jax.tree.leaves(sums(strange))):
    np.testing.assert_array_equal(one, other)


def nearest_whole(settings, meta):
  """A latent of one's own that asks its encoder to come near whole numbers, by `commitment` and by `kl`."""
  def quantise(z, mask, noise):
    gap = mask * jnp.mean(jnp.square(z - jnp.round(z)), axis=2)
    return latents.Latent(z, None, 8.0 * mask, gap, 3 * gap)
  return quantise


@pytest.mark.slow
def test_terms_of_a_latent_of_ones_own_count():
  made, batch = case("vq", model__latent__own=(f"{__name__}.nearest_whole",))
  assert {"commitment", "kl"} < set(made.problem.terms)
  chunk = objective.loss_sums(made.problem, made.state.params, made.state, batch, cases.KEY)
  z, mask = made.problem.model.bind({"params": made.state.params}).encode(made.problem.input_of(batch))
  gap = np.square(z - np.round(z)).mean(axis=2, dtype=np.float64) * mask
  wanted = np.sum(gap.sum(axis=1) * batch["weight"] * batch["event_weight"])
  np.testing.assert_allclose([chunk.terms["commitment"], chunk.terms["kl"]], [wanted, 3 * wanted], rtol=2e-5)


@pytest.mark.slow
def test_chunks_add_up_to_the_batch():
  made, batch = case("vq")
  evaluate = lambda over: objective.evaluate(made.problem, made.state, batch, cases.KEY, over)
  whole, chunks = evaluate(parallel.over_whole), evaluate(parallel.make_over_chunks(4))
  for name in whole:
    for one, other in zip(whole[name], chunks[name]):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=name)


def test_unexplained_variance_is_the_share_of_the_variance_about_the_mean():
  made, batch = case("none")
  totals, (_, out) = jax.jit(lambda batch: (
      objective.evaluate(made.problem, made.state, batch, cases.KEY, parallel.over_whole),
      objective.through(made.problem, {"params": made.state.params}, batch, None)))(batch)
  each = (batch["ids"] > 0) * (batch["weight"] * batch["event_weight"])[:, None]
  x, back = batch["cont"].astype(np.float64), np.asarray(out.decoded.cont, np.float64)
  mean = np.einsum("nt,ntc->c", each, x) / each.sum()
  wanted = np.einsum("nt,ntc->", each, (back - x)**2) / np.einsum("nt,ntc->", each, (x - mean)**2)
  np.testing.assert_allclose(objective.summarise(made.problem, totals)["unexplained_variance"], wanted, rtol=1e-4)


def test_padding_has_no_part_in_the_start_of_codes():
  """120 events in batches of 32: the last 8 of the first rows are padding."""
  made = cases.made()
  sample = step.first_rows(made.splits.train, jax.device_put(made.splits.train.data), cases.KEY, ae.INIT_ROWS)
  real = sample["weight"] > 0
  assert real.sum() == 120 and len(real) == 128
  other = sample | {"cont": jnp.where(real[:, None, None], sample["cont"], 1e3),
                    "globals": jnp.where(real[:, None], sample["globals"], 1e3)}
  codes = jax.jit(lambda sample: made.experiment.init(cases.KEY, sample).model_state["codes"].codes)
  one, two = codes(sample), codes(other)
  np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_codes_follow_their_latents():
  """One step's codebook against its moving averages in float64."""
  made, batch = case("vq", model__latent__revive_below=0.0)
  p, state = made.problem, made.state
  new, _ = jax.jit(lambda s, b, k: made.experiment.train_step(s, b, k, parallel.over_whole))(
      state, {name: batch[name] for name in ("cont", "ids", "globals", "event_weight", "weight")}, cases.KEY)
  z, mask = p.model.bind({"params": state.params}).encode(p.input_of(batch))
  z = np.asarray(z, np.float64)
  book = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.model_state["codes"])
  weight = (np.asarray(mask) * (batch["weight"] * batch["event_weight"])[:, None]).ravel()
  rows = z.reshape(-1, z.shape[2])
  nearest = np.square(rows[:, None] - book.codes[0]).sum(axis=2).argmin(axis=1)
  one_hot = np.eye(p.plan.num_codes)[nearest] * weight[:, None]
  n = weight.sum()
  use = 0.99 * book.use[0] + 0.01 * one_hot.sum(axis=0) / n
  total = 0.99 * book.total[0] + 0.01 * one_hot.T @ rows / n
  np.testing.assert_allclose(new.model_state["codes"].use[0], use, rtol=1e-4, atol=1e-7)
  np.testing.assert_allclose(new.model_state["codes"].codes[0], total / use[:, None], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_dead_codes_move_to_events_that_have_objects():
  """Without a latent of the event; most of the batch has none, all codes but one are dead, and none moves to zero."""
  made = cases.made(model__globals_slot=False, model__latent__revive_below=0.9)
  batch = made.batch("train")
  batch |= {name: np.where((np.arange(len(batch["weight"])) < 3).reshape(-1, *[1] * (batch[name].ndim - 1)),
                           batch[name], 0).astype(batch[name].dtype) for name in ("cont", "ids")}
  book = made.state.model_state["codes"]
  dead = book.replace(use=book.use.at[:, 1:].set(0.0))
  new, _ = jax.jit(lambda s, b: made.experiment.train_step(s, b, cases.KEY, parallel.over_whole))(
      made.state.replace(model_state={"codes": dead}), batch)
  moved = np.asarray(new.model_state["codes"].codes - book.codes)[0, 1:]
  assert np.abs(moved).max(axis=1).min() > 0 and np.abs(new.model_state["codes"].codes).max(axis=2).min() > 0


def test_dropout_falls_in_training_alone():
  made, batch = case("none", model__dropout=0.5)
  sums = jax.jit(lambda key: objective.loss_sums(made.problem, made.state.params, made.state, batch, key).terms["cont"])
  one, again, other = (float(sums(jax.random.key(seed))) for seed in (0, 0, 1))
  assert one == again != other
  val = jax.jit(lambda key: objective.evaluate(made.problem, made.state, batch, key, parallel.over_whole)["cont"][0])
  assert float(val(jax.random.key(0))) == float(val(jax.random.key(1)))


def test_alarms_name_what_has_degenerated():
  p = cases.made().problem
  means = {"val_codes_used": 1.0, "val_unexplained_variance": 0.99}
  found = evaluate.alarms(p, means)
  assert len(found) == 2 and "1 of 16 codes" in found[0] and "mean" in found[1]
  assert evaluate.alarms(p, {"val_codes_used": 12.0, "val_unexplained_variance": 0.1}) == []


@pytest.mark.parametrize("fields, text", [
    ({"model.legacy": True, "model.encoder.kind": "gnn"}, "config.model.encoder.kind: got 'gnn' with model.legacy"),
    ({"model.decoder.kind": "gan", "model.decoder.num_heads": 3}, "config.model.decoder.num_heads: got 3"),
    ({"loss.extra": ("event_cases.made",)}, "no weight 'made'")])
def test_parts_that_do_not_fit_are_refused(fields, text):
  config = cases.configured(**{key.replace(".", "__"): value for key, value in fields.items()})
  with pytest.raises(UserError, match=text.replace("(", r"\(")):
    ae.make(config, ae.load(config).meta)


@pytest.mark.slow
def test_an_evaluation_is_judged_by_what_comes_back():
  """Without the distance from codes, but for the original's loss, which is the sum of all."""
  for variant, left_out in (("smoke", {"commitment"}), ("legacy", set())):
    made = cases.made(variant, model__latent__kind="vq")
    p = made.problem
    totals = objective.evaluate(p, made.state, made.batch(), cases.KEY, parallel.over_whole)
    means = {name: float(totals[name][0] / totals[name][1]) for name in p.terms}
    wanted = sum(p.loss.weights[name] * means[name] for name in set(p.terms) - left_out)
    np.testing.assert_allclose(objective.summarise(p, totals)["loss"], wanted, rtol=1e-5)
