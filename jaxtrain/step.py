"""Gradients of a loss, one training step from them, the non-finite guard, and many steps in one compiled call.

Loss terms are (sum, count): counts are added over the whole batch first, so that the gradient of a ragged batch, a
masked term or a chunked batch is the gradient of the mean over the rows there are.
"""

import functools
from typing import Any, Callable, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxtrain import bits, losses, optim as optim_lib, rng
from jaxtrain.types import Batch, Experiment, Guard, Metrics, Over, Source

PACK_UP_TO = 1 << 16  # elements; larger leaves gain nothing from sharing an operation
TINY = 1e-30  # times any float32 still finite, and so is the sum over a state


class Chunk(NamedTuple):
  """What a loss returns of a chunk of rows.

  Attributes:
    terms: {term: [] sum over the rows}, the terms of the loss before their weights.
    sums: pytree whose leaves are added over chunks, such as codebook counts.
    averages: collections of the model ({name: tree of floats}), averaged over chunks by their real rows, such as
      BatchNorm statistics.
    metrics: {name: (sum, count)}, added.
  """
  terms: dict[str, jax.Array]
  sums: Any = ()
  averages: Any = ()
  metrics: Metrics = {}


class Gradient(NamedTuple):
  """The gradient of a loss over a whole batch.

  Attributes:
    loss: [] the weighted sum of the terms, each divided by its count (reduction `mean`).
    grads: like the parameters that were differentiated.
    sums, averages: those of the chunks, put together.
    metrics: `loss` per row and each term as (sum, count), and the chunks' own.
    num_rows: [] real rows of the batch.
  """
  loss: jax.Array
  grads: Any
  sums: Any
  averages: Any
  metrics: Metrics
  num_rows: jax.Array


def params_of(state: Any) -> Any:
  """All parameters of a state."""
  return state.params


def make_gradient(loss_sums: Callable, term_counts: Callable[[Batch], dict[str, jax.Array]],
                  weights: Callable[[Any], dict[str, Any]], *, of: Callable[[Any], Any] = params_of,
                  global_terms: Callable | None = None, reduction: str = "mean"):
  """Returns pure `gradient(state, batch, key, over) -> Gradient` of a weighted sum of terms.

  It changes no state and counts no step: a step may take several, of different parts of the parameters.

  Args:
    loss_sums: `(params, state, chunk, key) -> Chunk`; `params` is what `of` picks, and gradients flow to it alone.
    term_counts: `batch -> {term: count}` over the whole batch, from weights and masks alone.
    weights: `state -> {term: weight}`; its names must equal those of the terms. A weight may be a dual variable.
    of: `state -> params`, the part of the parameters that is differentiated; all of them by default.
    global_terms: `(params, state) -> {term: []}`, terms that belong to the step and not to each chunk, such as the KL
      of a latent variable that all rows share; divided by their counts as other terms are.
    reduction: `mean` divides each term by its count; `sum` does not (the loss then grows with the batch). The reported
      loss is per row in both.

  Raises:
    ValueError: at trace, when the names of terms, counts and weights differ.
    AssertionError: at trace, when a term is not a scalar or an average is not a float.
  """
  def gradient(state, batch, key, over: Over) -> Gradient:
    counts, weight = term_counts(batch), jax.tree.map(bits.opaque, weights(state))
    if set(counts) != set(weight):
      raise ValueError(f"loss terms {sorted(counts)} and config.loss.weights {sorted(weight)} must be the same names")
    num_rows = jnp.sum(batch["weight"])
    if reduction == "mean":
      scale = {name: weight[name] / jnp.maximum(counts[name], 1.0) for name in counts}
    else:
      scale = weight
    params = of(state)
    shared = set(jax.eval_shape(global_terms, params, state)) if global_terms else set()

    def chunk_grads(chunk, chunk_key):
      share = jnp.sum(chunk["weight"]) / num_rows
      def scaled(params):
        out = loss_sums(params, state, chunk, chunk_key)
        check_chunk(out, set(counts) - shared)
        return sum(scale[name] * out.terms[name] for name in sorted(out.terms)), out
      (loss, out), grads = jax.value_and_grad(scaled, has_aux=True)(params)
      return loss, grads, out._replace(averages=jax.tree.map(lambda leaf: share * leaf, out.averages))

    loss, grads, out = over(chunk_grads, batch, key)
    terms = out.terms
    if global_terms is not None:
      def scaled_globals(params):
        found = global_terms(params, state)
        return sum(scale[name] * found[name] for name in sorted(found)), found
      (more, found), more_grads = jax.value_and_grad(scaled_globals, has_aux=True)(params)
      loss, grads, terms = loss + more, jax.tree.map(jnp.add, grads, more_grads), terms | found
    per_row = (loss * num_rows if reduction == "mean" else loss, num_rows)
    metrics = {"loss": per_row} | {name: (terms[name], counts[name] if reduction == "mean" else num_rows)
                                   for name in terms}
    return Gradient(loss, grads, out.sums, out.averages, metrics | out.metrics, num_rows)

  return gradient


def check_chunk(out: Chunk, names: set[str]) -> None:
  """Refuses, at trace, what a loss may not return of a chunk."""
  if set(out.terms) != names:
    raise ValueError(f"loss terms {sorted(out.terms)} and their counts {sorted(names)} must be the same names")
  chex.assert_rank(list(out.terms.values()), 0)
  chex.assert_type(jax.tree.leaves(out.averages), float)


def with_averages(model_state: dict[str, Any], averages: dict[str, Any]) -> dict[str, Any]:
  """The model state with the collections that were averaged, in the types that it has; all others stay as they are."""
  old = {name: model_state[name] for name in averages}
  return model_state | jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), dict(averages), old)


def make_train_step(loss_sums: Callable, term_counts: Callable[[Batch], dict[str, jax.Array]],
                    weights: Callable[[Any], dict[str, Any]], tx: optim_lib.Optimizer, *,
                    reduction: str = "mean", ema_decay=0.0):
  """Returns pure `train_step(state, batch, key, over) -> (state, metrics)` for one gradient and one optimiser.

  Args:
    loss_sums, term_counts, weights, reduction: see `make_gradient`. `averages` of the chunks become collections of
      `state.model_state`.
    tx: the optimiser.
    ema_decay: decay of `state.ema` where that is kept.
  """
  gradient = make_gradient(loss_sums, term_counts, weights, reduction=reduction)

  def train_step(state, batch, key, over: Over):
    return apply_gradient(gradient(state, batch, key, over), state, tx, ema_decay)

  return train_step


def apply_gradient(found: Gradient, state: Any, tx: optim_lib.Optimizer, ema_decay=0.0) -> tuple[Any, Metrics]:
  """(state after one update of all its parameters, metrics): how a step ends that has one optimiser."""
  params, opt_state, optim_metrics = tx.update(found.grads, state.opt_state, state.params, state.step,
                                               found.metrics["loss"])
  new = state.replace(step=state.step + 1, params=params, opt_state=opt_state,
                      model_state=with_averages(state.model_state, found.averages),
                      ema=optim_lib.update_ema(state.ema, params, ema_decay))
  return new, found.metrics | counted(optim_metrics)


def counted(values: dict[str, jax.Array]) -> Metrics:
  """Values of a step, such as a learning rate, as metrics: their mean over steps is reported."""
  return {name: (jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32)) for name, value in values.items()}


def part(batch: Batch, k: int, num_parts: int) -> Batch:
  """The k-th of so many equal parts of a batch: every num_parts-th row from the k-th on.

  For steps that take several updates from fresh rows, such as a critic's. The experiment says `batch_parts`, so that
  every part divides over chunks and devices.
  """
  chex.assert_is_divisible(len(batch["weight"]), num_parts)
  return jax.tree.map(lambda leaf: leaf[k::num_parts], batch)


def first_rows(source: Source, data: Any, key: jax.Array, num_rows: int | None) -> Batch:
  """The first training rows in the order of the first epoch, for starts that depend on data; None: of one batch.

  Padding has weight 0. A table with fewer rows gives all of them, one that stays in its file those of its first window.
  """
  if num_rows == 0:
    return {}
  batch_at = jax.jit(source.batch_at)
  first = batch_at(data, jnp.int32(0), key)
  if num_rows is None:
    return first
  num_batches = -(-num_rows // len(first["weight"]))
  limits = [limit for limit in (source.num_batches, source.window_steps) if limit]
  batches = [first] + [batch_at(data, jnp.int32(k), key) for k in range(1, min([num_batches, *limits]))]
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:num_rows], *batches)


def make_init(experiment: Experiment, source: Source, num_rows: int | None):
  """Returns `(root key, data of the training source) -> state`, a fresh state; `num_rows` is INIT_ROWS."""
  def init(root, data):
    return experiment.init(root, first_rows(source, data, rng.stream_key(root, "data"), num_rows))
  return init


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


def make_one_step(experiment: Experiment, source: Source, over: Over, on_nonfinite: str):
  """Returns `(state, data, keys) -> (state, metrics)`: the batch and key of `state.step`, the step, the guard."""
  batch_at = jax.jit(source.batch_at)  # traced once a process, with that of `first_rows`

  def one_step(state, data, keys):
    data_key, train_key = keys
    batch = batch_at(data, state.step, data_key)
    new, metrics = experiment.train_step(state, batch, rng.step_key(train_key, state.step), over)
    return (new, metrics) if experiment.guards_members else guard_step(state, new, metrics, on_nonfinite)
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
  """Returns `one(state, data, keys, step) -> Metrics` and `evaluate(state, totals, data, keys, start, stop) -> totals`.

  The second adds the metrics of the steps from `start` to before `stop`, which may be traced. `keys` are those of
  `rng.evaluation_keys`. A batch and the evaluation of one are traced once a process for equal shapes.
  """
  batch_at, eval_step = jax.jit(source.batch_at), jax.jit(eval_step, static_argnums=3)

  def one(state, data, keys, step):
    data_key, drawn_key = keys
    batch = batch_at(data, step, data_key)
    return eval_step(state, batch, rng.step_key(drawn_key, step), over)

  def evaluate(state, totals, data, keys, start, stop):
    body = lambda step, totals: jax.tree.map(jnp.add, totals, one(state, data, keys, step))
    return jax.lax.fori_loop(start, stop, body, totals)
  return one, evaluate


def zero_totals(metrics: Any) -> Any:
  """Zeros of the shapes of a step's metrics."""
  return jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
