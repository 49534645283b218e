"""One training step from a loss, the non-finite guard around any step, and many steps in one compiled call.

**Source:** DESIGN 4. Loss terms are (sum, count): counts are added over the whole batch first, so that the gradient of
a ragged batch, a masked term or a chunked batch is the gradient of the mean over the rows there are.
"""

import functools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain import bits, losses, optim as optim_lib, rng
from jaxtrain.types import Batch, Guard, Metrics, Over, Source

PACK_UP_TO = 1 << 16  # elements; larger leaves gain nothing from sharing an operation
TINY = 1e-30  # times any float32 still finite, and so is the sum over a state


def make_train_step(loss_sums: Callable, term_counts: Callable[[Batch], dict[str, jax.Array]],
                    weights: Callable[[Any], dict[str, Any]], tx: optim_lib.Optimizer, *,
                    reduction: str = "mean", ema_decay=0.0):
  """Returns pure `train_step(state, batch, key, over) -> (state, metrics)` for one gradient of a weighted sum of terms.

  Args:
    loss_sums: `(params, model_state, chunk, key) -> ({term: sum over rows}, model_state, Metrics)`; the metrics are
      extras that carry their own counts.
    term_counts: `batch -> {term: count}` over the whole batch, from weights and masks alone.
    weights: `state -> {term: weight}`; its names must equal those of the terms.
    tx: the optimiser.
    reduction: `mean` divides each term by its count; `sum` does not (the loss then grows with the batch). The reported
      loss is per row in both.
    ema_decay: decay of `state.ema` where that is kept.

  Raises:
    ValueError: at trace, when the names of terms, counts and weights differ.
  """
  def train_step(state, batch, key, over: Over):
    counts, weight = term_counts(batch), jax.tree.map(bits.opaque, weights(state))
    if set(counts) != set(weight):
      raise ValueError(f"loss terms {sorted(counts)} and config.loss.weights {sorted(weight)} must be the same names")
    num_rows = jnp.sum(batch["weight"])
    if reduction == "mean":
      scale = {name: weight[name] / jnp.maximum(counts[name], 1.0) for name in counts}
    else:
      scale = weight

    def chunk_grads(chunk, chunk_key):
      share = jnp.sum(chunk["weight"]) / num_rows
      def scaled(params):
        sums, model_state, extras = loss_sums(params, state.model_state, chunk, chunk_key)
        if set(sums) != set(counts):
          raise ValueError(f"loss terms {sorted(sums)} and their counts {sorted(counts)} must be the same names")
        return sum(scale[name] * sums[name] for name in sorted(sums)), (sums, model_state, extras)
      (loss, (sums, model_state, extras)), grads = jax.value_and_grad(scaled, has_aux=True)(state.params)
      return loss, grads, sums, jax.tree.map(lambda leaf: share * leaf, model_state), extras

    loss, grads, sums, model_state, extras = over(chunk_grads, batch, key)
    per_row = (loss * num_rows if reduction == "mean" else loss, num_rows)
    params, opt_state, optim_metrics = tx.update(grads, state.opt_state, state.params, state.step, per_row)
    new = state.replace(step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state,
                        ema=optim_lib.update_ema(state.ema, params, ema_decay))
    one = jnp.ones((), jnp.float32)
    metrics = {"loss": per_row} | {name: (sums[name], counts[name] if reduction == "mean" else num_rows)
                                   for name in sums}
    return new, metrics | extras | {name: (value, one) for name, value in optim_metrics.items()}

  return train_step


def init_guard() -> Guard:
  """A guard that has seen nothing."""
  zero, none = jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)
  return Guard(num_bad=zero, first_bad=none, cause=none, stopped=jnp.zeros((), bool))


class Packed(NamedTuple):
  """A pytree with its small float32 leaves in one vector: one operation then serves dozens of tiny arrays."""
  vector: jax.Array
  rest: tuple[jax.Array, ...]


def is_small(leaf: Any) -> bool:
  """Whether a leaf goes into the vector of `Packed`."""
  return leaf.dtype == jnp.float32 and leaf.size <= PACK_UP_TO


def pack(tree: Any) -> Packed:
  """Packs a tree of arrays."""
  leaves = jax.tree.leaves(tree)
  small = [jnp.ravel(leaf) for leaf in leaves if is_small(leaf)]
  return Packed(jnp.concatenate(small or [jnp.zeros((0,), jnp.float32)]),
                tuple(leaf for leaf in leaves if not is_small(leaf)))


def unpack(packed: Packed, like: Any) -> Any:
  """The tree that was packed; `like` has its structure, shapes and dtypes."""
  leaves, treedef = jax.tree.flatten(like)
  rest, offset, out = iter(packed.rest), 0, []
  for leaf in leaves:
    if is_small(leaf):
      out.append(packed.vector[offset:offset + leaf.size].reshape(leaf.shape))
      offset += leaf.size
    else:
      out.append(next(rest))
  return jax.tree.unflatten(treedef, out)


def all_finite(packed: Packed) -> jax.Array:
  """[] bool: every floating-point number is finite.

  A product with tiny numbers is finite exactly where all factors are, and takes a tenth of the time of a look at each.
  """
  vector = packed.vector
  checks = [jnp.isfinite(losses.sum_rows(vector, jnp.full(vector.shape, TINY)))] if vector.size else []
  checks += [jnp.all(jnp.isfinite(leaf)) for leaf in packed.rest if jnp.issubdtype(leaf.dtype, jnp.floating)]
  return functools.reduce(jnp.logical_and, checks, jnp.ones((), bool))


def guard_step(state: Any, new: Any, metrics: Metrics, on_nonfinite: str) -> tuple[Any, Metrics]:
  """Keeps the old state where the new one or a metric is not finite, and leaves that step out of the metrics.

  With `halt` the state then stays as it was before the first bad step, its step counter included; with `skip` only the
  counter goes on.
  """
  guard, packed_metrics = state.guard, pack(metrics)
  bare = lambda s: s.replace(guard=None, key=None, step=None)  # what a step may change but for its counter
  old_packed, new_packed = pack(bare(state)), pack(bare(new))
  metrics_finite = all_finite(packed_metrics)
  finite = metrics_finite & all_finite(new_packed)
  keep = finite & ~guard.stopped
  bad = ~finite & ~guard.stopped
  first = bad & (guard.num_bad == 0)
  guard = Guard(num_bad=guard.num_bad + bad, first_bad=jnp.where(first, state.step, guard.first_bad),
                cause=jnp.where(first, first_nonfinite(metrics, metrics_finite), guard.cause),
                stopped=guard.stopped | (bad & (on_nonfinite == "halt")))
  kept = jax.tree.map(lambda x, y: x if x is y else jnp.where(keep, x, y), new_packed, old_packed)
  kept = unpack(kept, bare(new)).replace(guard=guard, key=state.key, step=state.step + ~guard.stopped)
  return kept, jax.tree.map(lambda x: jnp.where(keep, x, jnp.zeros_like(x)), metrics)


def first_nonfinite(metrics: Metrics, metrics_finite: jax.Array) -> jax.Array:
  """[] int32: index among the sorted names of the first metric that is not finite; their number where all are."""
  names = sorted(metrics)
  def look(_):
    bad = [~all_finite(pack(metrics[name])) for name in names]
    return jnp.argmax(jnp.stack(bad)).astype(jnp.int32)
  return jax.lax.cond(metrics_finite, lambda _: jnp.full((), len(names), jnp.int32), look, None)


def make_one_step(train_step: Callable, source: Source, over: Over, on_nonfinite: str):
  """Returns `(state, data, keys) -> (state, metrics)`: the batch and key of `state.step`, the step, the guard."""
  def one_step(state, data, keys):
    data_key, train_key = keys
    batch = source.batch_at(data, state.step, data_key)
    new, metrics = train_step(state, batch, rng.step_key(train_key, state.step), over)
    return guard_step(state, new, metrics, on_nonfinite)
  return one_step


def stream_keys(state: Any) -> tuple[jax.Array, jax.Array]:
  """Keys of the data and the train stream of a state's run."""
  return rng.stream_key(state.key, "data"), rng.stream_key(state.key, "train")


def make_repeat(one_step: Callable):
  """Returns `repeat(state, totals, data, n) -> (state, totals)`: n steps, metrics added to `totals`.

  n may be traced. The totals are carried from call to call, so that no split of the steps into calls changes a bit of
  what is reported.
  """
  def repeat(state, totals, data, n):
    keys = stream_keys(state)
    def body(_, carry):
      state, metrics = one_step(unpack(carry[0], state_like), data, keys)
      sums, more = carry[1], pack(metrics)
      return pack(state), jax.tree.map(jnp.add, sums, more)
    state_like, totals_like = jax.eval_shape(lambda s, t: (s, t), state, totals)
    packed_state, packed_totals = jax.lax.fori_loop(0, n, body, (pack(state), pack(totals)))
    return unpack(packed_state, state_like), unpack(packed_totals, totals_like)
  return repeat


def make_evaluate(eval_step: Callable, source: Source, over: Over):
  """Returns `one(state, data, key, step) -> Metrics` and `evaluate(state, totals, data, key, start, stop) -> totals`.

  The second adds the metrics of the steps from `start` to before `stop`, which may be traced.
  """
  def one(state, data, key, step):
    batch = source.batch_at(data, step, key)
    return eval_step(state, batch, rng.step_key(key, step), over)

  def evaluate(state, totals, data, key, start, stop):
    body = lambda step, totals: jax.tree.map(jnp.add, totals, one(state, data, key, step))
    return jax.lax.fori_loop(start, stop, body, totals)
  return one, evaluate


def zero_totals(metrics: Any) -> Any:
  """Zeros of the shapes of a step's metrics."""
  return jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
