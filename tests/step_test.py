"""The train step, the guard and repeated steps, on a linear model whose gradients are known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import bits, config as config_lib, optim, rng, step
from jaxtrain.data import arrays
from jaxtrain.devices import parallel
from jaxtrain.types import Experiment, Source, TrainState

# A test calls what it compiles a few times: half the time to compile is worth more than fast code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
D = 3
WEIGHTS = {"recon": 1.5, "masked": 0.25}


def make_optimiser(name="sgd", learning_rate=1.0, **fields):
  config = config_lib.common()
  for field, value in ({"name": name, "learning_rate": learning_rate, "betas": (0.0, 0.9)} | fields).items():
    config_lib.assign(config, "optim." + field, value)
  return optim.make(config.optim, 5)


def loss_sums(params, state, chunk, key):
  """Squared error of x @ w + b over all rows, and over the masked ones."""
  del key
  square = jnp.square(chunk["x"] @ params["w"] + params["b"] - chunk["y"])
  row = chunk["weight"]
  return step.Chunk({"recon": row @ square, "masked": (row * chunk["mask"]) @ square})


def term_counts(batch):
  return {"recon": jnp.sum(batch["weight"]), "masked": jnp.sum(batch["weight"] * batch["mask"])}


def make_train_step(tx=None, **options):
  return step.make_train_step(loss_sums, term_counts, lambda t: WEIGHTS, tx or make_optimiser(), **options)


@functools.cache
def compiled_step(reduction, num_chunks):
  """`(state, batch) -> (state, metrics)`, compiled; whole batches where num_chunks is 0."""
  over = parallel.make_over_chunks(num_chunks) if num_chunks else parallel.over_whole
  train_step = make_train_step(reduction=reduction)
  return jax.jit(lambda state, batch: train_step(state, batch, jax.random.key(0), over), compiler_options=QUICK)


def make_state(tx=None, ema=False, seed=0):
  random = np.random.RandomState(seed)
  params = {"w": jnp.asarray(random.normal(size=D), jnp.float32), "b": jnp.asarray(0.3, jnp.float32)}
  return TrainState(jnp.int32(0), jax.random.key(7), params, {}, (tx or make_optimiser()).init(params),
                    jax.tree.map(jnp.copy, params) if ema else None, step.init_guard())


def make_batch(num_rows=12, num_real=12, seed=1):
  """Rows beyond the real ones hold large numbers that must not matter."""
  random = np.random.RandomState(seed)
  batch = {"x": random.normal(size=(num_rows, D)), "y": random.normal(size=num_rows),
           "mask": (random.uniform(size=num_rows) < 0.4) * 1.0, "weight": (np.arange(num_rows) < num_real) * 1.0}
  batch["x"][num_real:], batch["y"][num_real:], batch["mask"][num_real:] = 1e3, -1e3, 1.0
  return {k: jnp.asarray(v, jnp.float32) for k, v in batch.items()}


def closed_form(params, batch, reduction):
  """Loss, its gradient and the sums of the terms over the real rows alone, float64."""
  w, b = np.asarray(params["w"], np.float64), float(params["b"])
  real = np.asarray(batch["weight"]) == 1
  x, y, mask = (np.asarray(batch[k], np.float64)[real] for k in ("x", "y", "mask"))
  error = x @ w + b - y
  sums = {"recon": (error ** 2).sum(), "masked": (mask * error ** 2).sum()}
  counts = {"recon": len(x), "masked": mask.sum()}
  divide = counts if reduction == "mean" else {"recon": 1, "masked": 1}
  loss = sum(WEIGHTS[k] * sums[k] / max(divide[k], 1) for k in sums)
  per_row = 2 * error * (WEIGHTS["recon"] / divide["recon"] + WEIGHTS["masked"] * mask / max(divide["masked"], 1))
  return loss, {"w": per_row @ x, "b": per_row.sum()}, sums, counts


def gradient(state, new):
  """What plain gradient descent at rate 1 has subtracted."""
  return {k: np.asarray(state.params[k], np.float64) - np.asarray(new.params[k], np.float64) for k in state.params}


def table(num_rows=11, batch_size=4):
  """A shuffled source with a ragged last batch."""
  random = np.random.RandomState(5)
  rows = {"x": random.normal(size=(num_rows, D)), "y": random.normal(size=num_rows),
          "mask": (random.uniform(size=num_rows) < 0.5) * 1.0}
  return arrays.table_source({k: v.astype(np.float32) for k, v in rows.items()}, batch_size, True)


def machine(train_step, source, state, over=parallel.over_whole, on_nonfinite="halt", options=QUICK):
  """`(compiled repeat, zero totals)`."""
  one_step = step.make_one_step(Experiment(None, train_step, None), source, over, on_nonfinite)
  metrics = jax.eval_shape(one_step, state, source.data, step.stream_keys(state))[1]
  return jax.jit(step.make_repeat(one_step), compiler_options=options), step.zero_totals(metrics)


def equal(a, b):
  """Every leaf agrees bit for bit."""
  data = lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
  same = jax.tree.map(lambda x, y: data(x).tobytes() == data(y).tobytes() and x.dtype == y.dtype, a, b)
  return all(jax.tree.leaves(same))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("num_real", [12, 7, 1])
def test_gradient_and_metrics_are_those_of_the_real_rows(reduction, num_real):
  state, batch = make_state(), make_batch(12, num_real)
  new, metrics = compiled_step(reduction, 0)(state, batch)
  loss, grads, sums, counts = closed_form(state.params, batch, reduction)
  for name, want in grads.items():
    np.testing.assert_allclose(gradient(state, new)[name], want, rtol=2e-5, atol=2e-6)
  assert int(new.step) == 1
  # The loss per row: of the mean, weighted by rows; of the sum, the sum itself over the rows.
  assert float(metrics["loss"][0]) == pytest.approx(loss * num_real if reduction == "mean" else loss, rel=1e-5)
  assert float(metrics["loss"][1]) == num_real
  for name in sums:
    assert float(metrics[name][0]) == pytest.approx(sums[name], rel=1e-5, abs=1e-7)
    assert float(metrics[name][1]) == (counts[name] if reduction == "mean" else num_real)
  assert float(metrics["lr"][0]) == 1.0 and float(metrics["lr"][1]) == 1.0
  assert float(metrics["grad_norm"][0]) == pytest.approx(np.sqrt((grads["w"] ** 2).sum() + grads["b"] ** 2), rel=1e-5)


def test_a_term_without_any_row_gives_zero():
  state, batch = make_state(), make_batch()
  batch["mask"] = jnp.zeros(12)
  new, metrics = compiled_step("mean", 0)(state, batch)
  _, grads, _, _ = closed_form(state.params, batch, "mean")
  np.testing.assert_allclose(gradient(state, new)["w"], grads["w"], rtol=2e-5)
  assert [float(v) for v in metrics["masked"]] == [0.0, 0.0]


@pytest.mark.parametrize("num_chunks", [3, 12])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_chunks_give_the_gradient_of_the_whole_batch(num_chunks, reduction):
  """Ragged and masked: with 12 chunks five hold padding alone; a mean of chunk means would be far off."""
  state, batch = make_state(), make_batch(12, 7)
  whole, chunked = compiled_step(reduction, 0)(state, batch), compiled_step(reduction, num_chunks)(state, batch)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6),
               (whole[0].params, whole[1]), (chunked[0].params, chunked[1]))
  grads = closed_form(state.params, batch, reduction)[1]
  np.testing.assert_allclose(gradient(state, chunked[0])["w"], grads["w"], rtol=2e-5, atol=2e-6)


def test_chunks_are_strided_have_keys_of_their_own_and_add_up():
  batch, key = {"x": jnp.arange(12.0).reshape(6, 2)}, jax.random.key(4)
  fn = lambda chunk, chunk_key: {"rows": chunk["x"] ** 2, "noise": jax.random.normal(chunk_key, (5,))}
  got = jax.jit(lambda batch: parallel.make_over_chunks(3)(fn, batch, key))(batch)
  x = np.arange(12.0).reshape(6, 2)
  np.testing.assert_array_equal(got["rows"], x[[0, 3]] ** 2 + x[[1, 4]] ** 2 + x[[2, 5]] ** 2)
  noise = [np.asarray(jax.random.normal(jax.random.fold_in(key, c), (5,))) for c in range(3)]
  np.testing.assert_array_equal(got["noise"], (noise[0] + noise[1]) + noise[2])


def test_a_chunks_state_counts_by_its_real_rows():
  """7 real rows of 12 in 3 chunks: 3, 2 and 2 rows; the state becomes the mean of the chunks' by rows."""
  def counting(params, state, chunk, key):
    return loss_sums(params, state, chunk, key)._replace(averages={"first": chunk["x"][0]})
  train_step = step.make_train_step(counting, term_counts, lambda t: WEIGHTS, make_optimiser())
  state, batch = make_state().replace(model_state={"first": jnp.zeros(D)}), make_batch(12, 7)
  new, _ = jax.jit(lambda s, b: train_step(s, b, jax.random.key(0), parallel.make_over_chunks(3)))(state, batch)
  x = np.asarray(batch["x"], np.float64)
  np.testing.assert_allclose(new.model_state["first"], (3 * x[0] + 2 * x[1] + 2 * x[2]) / 7, rtol=1e-5)


def test_names_of_terms_counts_and_weights_must_agree():
  state, batch, key = make_state(), make_batch(), jax.random.key(0)
  with pytest.raises(ValueError, match=r"\['masked', 'recon'\].*\['kl', 'recon'\]"):
    train_step = step.make_train_step(loss_sums, term_counts, lambda t: {"recon": 1.0, "kl": 1.0}, make_optimiser())
    train_step(state, batch, key, parallel.over_whole)
  fewer = lambda *args: step.Chunk({"recon": loss_sums(*args).terms["recon"]})
  with pytest.raises(ValueError, match=r"\['recon'\].*\['masked', 'recon'\]"):
    train_step = step.make_train_step(fewer, term_counts, lambda t: WEIGHTS, make_optimiser())
    train_step(state, batch, key, parallel.over_whole)


def test_any_split_of_the_steps_gives_the_same_bits():
  tx = make_optimiser("adam", 0.05, clip_norm=1.0)
  state, source = make_state(tx, ema=True), table()
  repeat, zeros = machine(make_train_step(tx, ema_decay=0.75), source, state, options=None)
  straight = repeat(state, zeros, source.data, 7)
  pieces = (state, zeros)
  for n in (1, 2, 4):
    pieces = repeat(*pieces, source.data, n)
  assert equal(straight, pieces)
  assert int(straight[0].step) == 7
  assert float(straight[1]["loss"][1]) == 4 + 4 + 3 + 4 + 4 + 3 + 4  # real rows
  assert equal(repeat(state, zeros, source.data, 0), (state, zeros))
  assert not equal(straight[0].params, repeat(state, zeros, source.data, 6)[0].params)


def test_totals_add_up_and_the_moving_average_follows_the_parameters():
  tx = make_optimiser(learning_rate=0.05)
  state, source = make_state(tx, ema=True), table()
  repeat, zeros = machine(make_train_step(tx, ema_decay=0.75), source, state)
  _, totals = repeat(state, zeros, source.data, 5)
  added = jax.tree.map(lambda z: np.zeros(z.shape), zeros)
  ema = {k: np.asarray(v, np.float64) for k, v in state.params.items()}
  for _ in range(5):
    state, metrics = repeat(state, zeros, source.data, 1)
    added = jax.tree.map(lambda a, b: a + np.asarray(b, np.float64), added, metrics)
    ema = {k: 0.75 * ema[k] + 0.25 * np.asarray(state.params[k]) for k in ema}
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), totals, added)
  for name in ema:
    np.testing.assert_allclose(state.ema[name], ema[name], rtol=1e-5, atol=1e-6)


def poisoned(bad_steps, bad=np.nan):
  """A source of constant size whose batches at some steps hold a bad number."""
  batches = [make_batch(4, 4, seed=s) for s in range(10)]
  data = {k: np.stack([np.asarray(batch[k]) for batch in batches]) for k in ("x", "y", "mask", "weight")}
  for s in bad_steps:
    data["x"][s, 1, 2] = bad
  return Source(data, lambda data, t, key: jax.tree.map(lambda leaf: leaf[t], data), 10, 40)


def test_halt_keeps_the_state_before_the_first_bad_step():
  tx = make_optimiser("adam", 0.05)
  state, source = make_state(tx, ema=True), poisoned([3, 5])
  repeat, zeros = machine(make_train_step(tx, ema_decay=0.5), source, state)
  good, good_totals = repeat(state, zeros, source.data, 3)
  stopped, totals = repeat(state, zeros, source.data, 9)
  assert int(stopped.step) == 3 and bool(stopped.guard.stopped)
  assert (int(stopped.guard.num_bad), int(stopped.guard.first_bad)) == (1, 3)
  names = sorted(zeros)  # grad_norm, loss, lr, masked, recon
  assert names[int(stopped.guard.cause)] == "grad_norm"
  assert equal((good.replace(guard=stopped.guard), good_totals), (stopped, totals))
  assert equal(repeat(stopped, zeros, source.data, 4), (stopped, zeros))  # it stays so
  assert not bool(good.guard.stopped) and (int(good.guard.num_bad), int(good.guard.first_bad)) == (0, -1)


def test_skip_leaves_out_the_bad_steps_and_goes_on():
  tx = make_optimiser("adam", 0.05)
  state, source = make_state(tx, ema=True), poisoned([3, 5], np.inf)
  repeat, zeros = machine(make_train_step(tx, ema_decay=0.5), source, state, on_nonfinite="skip")
  before, _ = repeat(state, zeros, source.data, 3)
  after, metrics = repeat(before, zeros, source.data, 1)
  assert int(after.step) == 4 and equal(after.replace(step=before.step, guard=before.guard), before)
  assert equal(metrics, zeros)
  final, totals = repeat(state, zeros, source.data, 8)
  assert (int(final.step), int(final.guard.num_bad), int(final.guard.first_bad)) == (8, 2, 3)
  assert not bool(final.guard.stopped)
  assert float(totals["loss"][1]) == 6 * 4 and float(totals["lr"][1]) == 6
  # The good steps alone, one after the other, give the same state.
  alone = state
  for s in (0, 1, 2, 4, 6, 7):
    alone, _ = repeat(alone.replace(step=jnp.int32(s)), zeros, source.data, 1)
  assert equal((alone.params, alone.opt_state, alone.ema), (final.params, final.opt_state, final.ema))


def test_a_state_that_overflows_behind_finite_metrics_is_caught():
  tx = make_optimiser(learning_rate=3e38)
  state, source = make_state(tx), poisoned([])
  repeat, zeros = machine(make_train_step(tx), source, state)
  stopped, _ = repeat(state, zeros, source.data, 1)
  assert bool(stopped.guard.stopped) and int(stopped.guard.cause) == len(zeros)
  assert equal(stopped.params, state.params)


@functools.cache
def compiled_guard():
  return jax.jit(lambda state, new, metrics: step.guard_step(state, new, metrics, "halt"), compiler_options=QUICK)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["params", "model_state", "ema", "extra"])
def test_the_guard_sees_every_float_of_the_state_and_the_metrics(bad, where):
  state = make_state(ema=True).replace(model_state={"mean": jnp.zeros((2, 2)), "half": jnp.zeros(3, jnp.bfloat16),
                                                    "wide": jnp.zeros(70_000), "count": jnp.int32(4)})
  metrics = {"loss": (jnp.float32(1), jnp.float32(2)), "usage": (jnp.zeros(3), jnp.ones(3)),
             "codes": (jnp.int32(1), jnp.int32(2))}
  guard_step = compiled_guard()
  one = guard_step(state, state.replace(step=state.step + 1), metrics)
  assert int(one[0].step) == 1 and int(one[0].guard.num_bad) == 0 and equal(one[1], metrics)
  cases = {
      "params": [(state.replace(params=state.params | {"b": jnp.float32(bad)}), metrics)],
      "ema": [(state.replace(ema=state.ema | {"w": state.ema["w"].at[2].set(bad)}), metrics)],
      "model_state": [(state.replace(model_state=state.model_state | {k: v.at[-1].set(bad)}), metrics)
                      for k, v in state.model_state.items() if k != "count"],
      "extra": [(state, metrics | {"usage": (jnp.zeros(3).at[1].set(bad), jnp.ones(3))})],
  }
  for new, seen in cases[where]:
    kept, left = guard_step(state, new.replace(step=state.step + 1), seen)
    assert bool(kept.guard.stopped) and int(kept.step) == 0 and int(kept.guard.first_bad) == 0
    assert int(kept.guard.cause) == (sorted(metrics).index("usage") if where == "extra" else 3)
    assert equal(kept.replace(guard=state.guard), state)
    assert equal(left, jax.tree.map(jnp.zeros_like, metrics))


def test_turns_are_traced_once_and_stacked():
  seen = []
  def run(c, offset):
    seen.append(c)
    return {"x": offset + c, "pair": (jnp.stack([c, 2 * c]), offset)}
  found = jax.jit(lambda offset: bits.run_in_turn(lambda c: run(c, offset), 3))(5)
  assert len(seen) == 1 and found["x"].tolist() == [5, 6, 7]
  assert found["pair"][0].tolist() == [[0, 0], [1, 2], [2, 4]] and found["pair"][1].tolist() == [5, 5, 5]


def test_evaluation_counts_every_row_once():
  """And is traced once for the shapes of its totals and for its steps."""
  source, seen = table(11, 4), []
  def eval_step(state, batch, key, over):
    seen.append(over)
    sums = over(lambda chunk, _: loss_sums(state.params, state, chunk, None).terms, batch, key)
    return {name: (sums[name], term_counts(batch)[name]) for name in sums}
  state = make_state()
  for over in (parallel.over_whole, parallel.make_over_chunks(2)):
    one, evaluate = step.make_evaluate(eval_step, source, over)
    keys = rng.evaluation_keys(jax.random.key(1), "val")
    zeros = step.zero_totals(jax.eval_shape(one, state, source.data, keys, 0))
    evaluate = jax.jit(evaluate, compiler_options=QUICK)
    totals = evaluate(state, zeros, source.data, keys, 0, 2)
    totals = evaluate(state, totals, source.data, keys, 2, 3)  # a pass in two parts is a pass
    everything = {k: np.asarray(v) for k, v in source.data.items()} | {"weight": np.ones(11)}
    _, _, sums, counts = closed_form(state.params, everything, "mean")
    for name in sums:
      assert float(totals[name][0]) == pytest.approx(sums[name], rel=1e-5)
      assert float(totals[name][1]) == counts[name]
    assert seen.count(over) == 1
