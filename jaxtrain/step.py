"""One training step from a loss, the non-finite guard around any step, and many steps in one compiled call.

**Source:** DESIGN 4. Loss terms are (sum, count): counts are added over the whole batch first, so that the gradient of a
ragged batch, a masked term or a chunked batch is the gradient of the mean over the rows there are.
"""

from typing import Any, Callable

import jax
import jax.numpy as jnp

from jaxtrain import optim as optim_lib
from jaxtrain import rng
from jaxtrain.types import Batch, Guard, Metrics, Over, Source

ON_NONFINITE = ("halt", "skip")


def make_train_step(loss_sums: Callable, term_counts: Callable[[Batch], dict[str, jax.Array]],
                    weights: Callable[[jax.Array], dict[str, Any]], tx: optim_lib.Optimizer, *,
                    reduction: str = "mean", ema_decay=0.0):
  """Returns pure `train_step(state, batch, key, over) -> (state, metrics)` for one gradient of a weighted sum of terms.

  Args:
    loss_sums: `(params, model_state, chunk, key) -> ({term: sum over rows}, model_state, Metrics)`; the metrics are
      extras that carry their own counts.
    term_counts: `batch -> {term: count}` over the whole batch, from weights and masks alone.
    weights: `step -> {term: weight}`; its names must equal those of the terms.
    tx: the optimiser.
    reduction: `mean` divides each term by its count; `sum` does not (the loss then grows with the batch). The reported
      loss is per row in both.
    ema_decay: decay of `state.ema` where that is kept.

  Raises:
    ValueError: at trace, when the names of terms, counts and weights differ.
  """
  def train_step(state, batch, key, over: Over):
    counts, weight = term_counts(batch), weights(state.step)
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


def all_finite(tree: Any) -> jax.Array:
  """[] bool: every floating-point leaf of a tree is finite everywhere."""
  leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def guard_step(state: Any, new: Any, metrics: Metrics, on_nonfinite: str) -> tuple[Any, Metrics]:
  """Keeps the old state where the new one or a metric is not finite, and leaves that step out of the metrics.

  With `halt` the state then stays as it was before the first bad step, its step counter included; with `skip` only the
  counter goes on.
  """
  guard = state.guard
  names = sorted(metrics)
  metric_bad = jnp.stack([~all_finite(metrics[name]) for name in names])
  finite = ~jnp.any(metric_bad) & all_finite(new)
  keep = finite & ~guard.stopped
  pick = lambda a, b: jax.tree.map(lambda x, y: x if x is y else jnp.where(keep, x, y), a, b)
  bad = ~finite & ~guard.stopped
  first = bad & (guard.num_bad == 0)
  cause = jnp.where(jnp.any(metric_bad), jnp.argmax(metric_bad), len(names)).astype(jnp.int32)
  guard = Guard(num_bad=guard.num_bad + bad.astype(jnp.int32), first_bad=jnp.where(first, state.step, guard.first_bad),
                cause=jnp.where(first, cause, guard.cause),
                stopped=guard.stopped | (bad & (on_nonfinite == "halt")))
  step = state.step + (~guard.stopped).astype(state.step.dtype)
  # The key is never advanced; the new state's own guard is the old one.
  kept = pick(new, state).replace(step=step, guard=guard, key=state.key)
  return kept, jax.tree.map(lambda x: jnp.where(keep, x, jnp.zeros_like(x)), metrics)


def make_one_step(train_step: Callable, source: Source, over: Over, on_nonfinite: str):
  """Returns `(state, data) -> (state, metrics)`: the step's batch and key from `state.step`, the step, the guard."""
  def one_step(state, data):
    batch = source.batch_at(data, state.step, rng.stream_key(state.key, "data"))
    key = rng.step_key(rng.stream_key(state.key, "train"), state.step)
    new, metrics = train_step(state, batch, key, over)
    return guard_step(state, new, metrics, on_nonfinite)
  return one_step


def make_repeat(one_step: Callable):
  """Returns `repeat(state, totals, data, n) -> (state, totals)`: n steps, metrics added to `totals`.

  n may be traced. The totals are carried from call to call, so that no split of the steps into calls changes a bit of
  what is reported.
  """
  def repeat(state, totals, data, n):
    def body(_, carry):
      state, totals = carry
      state, metrics = one_step(state, data)
      return state, jax.tree.map(jnp.add, totals, metrics)
    return jax.lax.fori_loop(0, n, body, (state, totals))
  return repeat


def make_evaluate(eval_step: Callable, source: Source, over: Over):
  """Returns `evaluate(state, data, key) -> totals` over one pass of a source, from its step 0."""
  def one(state, data, key, step):
    batch = source.batch_at(data, step, key)
    return eval_step(state, batch, rng.step_key(key, step), over)

  def evaluate(state, data, key):
    zeros = zero_totals(jax.eval_shape(one, state, data, key, jnp.zeros((), jnp.int32)))
    body = lambda step, totals: jax.tree.map(jnp.add, totals, one(state, data, key, step))
    return jax.lax.fori_loop(0, source.num_batches, body, zeros)
  return evaluate


def zero_totals(metrics: Any) -> Any:
  """Zeros of the shapes of a step's metrics."""
  return jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
