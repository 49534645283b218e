"""The experiment: what its steps change, its level under a target, its stages, and what is refused."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import codec_cases as cases
from jaxtrain import config as config_lib, loop, step
from jaxtrain.devices import parallel
from jaxtrain.errors import UserError
from jaxtrain.experiments.semantic_compression import checks, codec, layout, objective, schema
from jaxtrain.nn import quantisers
from jaxtrain.run import checkpoints

TARGET = {"loss__target_bits": 8.0, "loss__dual__rate": 0.1, "optim__ema_decay": 0.5}
REVIVES = {"model__compressor__revive_below": 0.9}
X = schema.encode(cases.TOY, cases.toy_record(128))


@functools.cache
def case(variant="smoke", **fields):
  """A codec of TOY by linear maps, at its start."""
  more = {"model.hidden_dims": ()} | ({"model.compressor.levels": (4, 3, 2, 3)} if variant == "fsq" else {})
  return cases.of_schema(cases.TOY, X, variant, **more | {key.replace("__", "."): v for key, v in fields.items()})


@functools.cache
def trained(variant, num_steps, **fields):
  """(that codec after so many steps, sums and counts of its metrics)."""
  return cases.trained(case(variant, **fields), num_steps)


def means(totals):
  """Mean of each scalar metric over the steps."""
  return {name: float(total / count) for name, (total, count) in totals.items() if jnp.ndim(total) == 0}


@pytest.mark.slow
def test_chunks_of_a_batch_take_the_same_step():
  """Parameters and codebook after three steps, from sums that are added over two chunks; codes are moved too."""
  made, (one, totals) = case("vq", **REVIVES), trained("vq", 3, **REVIVES)
  two, others = cases.trained(made, 3, parallel.make_over_chunks(2))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
  jax.tree.map(close, one.state.params, two.state.params)
  jax.tree.map(close, one.state.model_state, two.state.model_state)
  assert means(totals) == pytest.approx(means(others), rel=1e-3, abs=1e-4)
  changed = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one.state.params, made.state.params)
  assert all(moved > 0 for name, moved in changed.items())


@pytest.mark.slow
def test_codes_follow_what_they_stand_for():
  """A step moves each code to the mean of the average, in float64 over the rows of the batch, and then those that are
  used less than 9 tenths of the mean to rows of it."""
  made, (after, _) = case("vq", **REVIVES), trained("vq", 1, **REVIVES)
  book, data = made.state.model_state["codes"], jax.tree.map(jnp.asarray, made.splits.train.data)
  batch = made.splits.train.batch_at(data, jnp.int32(0), step.stream_keys(made.state)[0])
  y = np.asarray(jax.jit(lambda params: made.problem.model.bind({"params": params}).analyse(batch["x"], 1.0)[0])(
      made.state.params), np.float64)
  index = np.square(y[:, None] - np.asarray(book.codes[0], np.float64)).sum(axis=2).argmin(axis=1)
  one_hot = (index[:, None] == np.arange(16)) * 1.0
  use = 0.99 * np.asarray(book.use[0], np.float64) + 0.01 * one_hot.mean(axis=0)
  total = 0.99 * np.asarray(book.total[0], np.float64) + 0.01 * one_hot.T @ y / len(y)
  dead = use < 0.9 * use.mean()
  assert 0 < dead.sum() < 16
  now = after.state.model_state["codes"]
  np.testing.assert_allclose(now.use[0], np.where(dead, use.mean(), use), rtol=1e-4)
  np.testing.assert_allclose(now.codes[0][~dead], (total / use[:, None])[~dead], rtol=1e-3, atol=1e-4)
  gap = np.abs(np.asarray(now.codes[0][dead])[:, None] - y).max(axis=2).min(axis=1)
  assert gap.max() < 1e-4


@pytest.mark.slow
def test_shares_of_levels_follow_their_use():
  made, (after, _) = case("fsq"), trained("fsq", 1)
  start, now = made.state.model_state["codes"], after.state.model_state["codes"]
  np.testing.assert_allclose(start, [[0.25] * 4, [1 / 3] * 3 + [0], [0.5] * 2 + [0] * 2, [1 / 3] * 3 + [0]], rtol=1e-6)
  np.testing.assert_allclose(now.sum(axis=1), 1.0, rtol=1e-5)
  share = (np.asarray(now, np.float64) - 0.99 * np.asarray(start, np.float64)) / 0.01  # of the batch, in 64ths
  np.testing.assert_allclose(share * 64, np.rint(share * 64), atol=0.01)
  assert (np.asarray(now) >= 0.99 * np.asarray(start) - 1e-6).all()


@pytest.mark.slow
def test_dead_codes_move_to_rows_there_are():
  weight = jnp.asarray([1.0] * 10 + [0.0] * 30)
  for seed in range(5):
    rows = np.asarray(codec.fresh_rows(jax.random.key(seed), weight))
    assert rows.shape == (40, codec.FRESH)
    np.testing.assert_array_equal(rows.sum(axis=0), 1.0)
    assert rows[10:].max() == 0
  book = quantisers.Codebook(jnp.zeros((1, 4, 2)), jnp.asarray([[1.0, 1.0, 0.0, 1.0]]), jnp.zeros((1, 4, 2)))
  assert float(quantisers.revive(book, jnp.ones((1, 1, 2)), 0.1).codes[0, 2].sum()) == 2.0


@pytest.mark.slow
def test_an_average_of_the_parameters_starts_at_them_and_follows():
  made, (after, _) = case(**TARGET), trained("smoke", 1, **TARGET)
  jax.tree.map(np.testing.assert_array_equal, made.state.ema, made.state.params)
  want = jax.tree.map(lambda a, b: 0.5 * a + 0.5 * b, made.state.params, after.state.params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.state.ema, want)


@pytest.mark.slow
def test_a_target_of_bits_is_reached():
  """Within 5 %, from a level whose rate is about 11 bits; the level is the config's times what was found."""
  made, (after, _) = case(**TARGET), trained("smoke", 300, **TARGET)
  assert float(made.state.level.weight) == 0.0
  _, totals = cases.trained(after, 20)
  assert means(trained("smoke", 1, **TARGET)[1])["rate"] > 10
  assert means(totals)["rate"] == pytest.approx(8.0, rel=0.05)
  level = float(objective.current_level(made.problem, after.state))
  assert level > 1.5 and level == pytest.approx(np.exp(float(after.state.level.weight)))
  assert means(totals)["level"] == pytest.approx(level, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("target", [40.0, 56.0])
def test_the_best_state_of_a_target_is_one_that_meets_it(target):
  """Below and above the first rate, which is about 48 bits; to 2 %."""
  config = cases.configured(**{"loss.target_bits": target, "loss.dual.rate": 0.05, "train.num_epochs": 40})
  history = loop.train(config, None).history
  best = int(np.argmin(history["val_loss"]))
  assert history["val_rate"][best] == pytest.approx(target, rel=0.02)


def test_the_level_of_a_target_that_cannot_be_met_stays_within_bounds():
  made = case(**TARGET)
  dual = made.state.level
  for _ in range(3):
    dual = dual.replace(weight=dual.weight + 50.0)
    dual = objective.next_level(made.problem, dual, jnp.float32(9.0), jnp.int32(5))
  assert float(jnp.exp(dual.weight)) == pytest.approx(objective.LEVELS[1] / made.problem.level, rel=1e-4)


def test_levels_of_a_schema_are_eight_a_number_and_one_a_class():
  assert layout.default_levels(schema.AGENT15) == (8,) * 9 + (2, 5)


def staged():
  """(config of two stages, weights of each)."""
  own = ({"rate": 1.0, "recon": 1.0}, {"rate": 0.25, "recon": 3.0})
  config = cases.configured(**{"data.num_states": 100, "data.split.fractions": (0.8, 0.2, 0.0),
                               "model.hidden_dims": ()})
  config.stages = tuple({f"loss.weights.{name}": value for name, value in stage.items()} | {"train.num_epochs": 2}
                        for stage in own)
  return config, own


def test_stages_have_the_weights_that_they_name():
  config, own = staged()
  made = case()
  for k, weights in enumerate(own):
    problem = codec.make_problem(config_lib.stage_config(config, config.stages[k], k), made.splits.meta)
    found = objective.weights(problem, made.state)
    assert found["rate"] == weights["rate"] and found["categorical"] == 20.0
    assert float(found["recon"]) == pytest.approx(weights["recon"] / (2 * np.log(2) * 0.01**2))


@pytest.mark.slow
def test_stages_weigh_the_loss_anew(tmp_path):
  """In training as in validation the loss of each stage is the sum of its terms by the stage's own weights, and the
  second goes on from the first: its steps change the parameters further."""
  config, own = staged()
  last = loop.train(config, str(tmp_path)).history
  histories = [json.loads((tmp_path / "stages" / str(k) / "history.json").read_text()) for k in (0, 1)]
  assert histories[1]["val_loss"] == last["val_loss"]
  for history, weights in zip(histories, own):
    for part in ("", "val_"):
      of = lambda name: np.array(history[part + name])
      want = weights["rate"] * of("rate") + weights["recon"] / (2 * np.log(2) * 0.01**2) * of("recon")
      want += 20 * (of("binary") + of("categorical")) + 0.5 * of("semantic")
      np.testing.assert_allclose(of("loss"), want, rtol=1e-4)
  first, second = (checkpoints.read_named(str(tmp_path / "stages" / str(k)), "last")[1] for k in (0, 1))
  names = [name for name in first if "/params/" in name]
  assert names and all(np.abs(first[name] - second[name]).max() > 0 for name in names)


@pytest.mark.parametrize("fields,words", [
    ({"model.compressor.group_levels": ("colour=2",)}, "group of spatial, resource, status, performance, role"),
    ({"model.compressor.group_levels": ("spatial",)}, "got 'spatial', allowed GROUP=FACTOR"),
    ({"model.compressor.group_levels": ("spatial=0",)}, "got 'spatial=0'"),
    ({"model.compressor.group_levels": ("spatial=nan",)}, "got 'spatial=nan'"),
    ({"model.compressor.kind": "vq", "model.compressor.num_slots": 2}, "got 2, allowed a divisor of the 11 latent"),
    ({"model.compressor.kind": "vq", "loss.target_bits": 9.0}, "got 9, allowed 0 with config.model.compressor.kind=vq"),
    ({"model.compressor.kind": "none", "loss.target_bits": 9.0}, "whose rate has no level"),
    ({"model.compressor.kind": "none", "model.compressor.lossless": True}, "allowed False with"),
    ({"model.compressor.kind": "vq", "model.compressor.level": 2.0}, "it is for entropy | lattice"),
    ({"model.compressor.kind": "fsq", "model.latent_dim": 5}, "allowed 0 with"),
    ({"model.compressor.num_side": 2}, "allowed 4 with config.model.compressor.kind=entropy"),
    ({"model.compressor.kind": "lattice", "model.latent_dim": 4}, "allowed with 8 slots of numbers or more"),
    ({"model.compressor.kind": "previous"}, "got 'random', allowed group | none")])
def test_configs_that_contradict_themselves_are_refused(fields, words):
  with pytest.raises(UserError) as error:
    codec.load(config_lib.resolve(cases.configured("smoke", **fields)))
  assert words in str(error.value) and "\n" not in str(error.value)


def test_factors_of_levels_are_those_of_the_groups():
  found = checks.group_levels(("spatial=0.5", "role=3"), schema.AGENT15)
  assert found == {"spatial": 0.5, "resource": 1.0, "status": 1.0, "performance": 1.0, "role": 3.0}
