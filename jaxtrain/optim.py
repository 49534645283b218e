"""The optimiser of `config.optim`: clip, update rule, plateau, schedule; moving average of the parameters.

Element-wise rules work on one flat vector of all parameters: a small model spends its time in the overhead of many
small operations, and one vector has one of each.

**Source:** Adam: Kingma & Ba 2015; AdamW: Loshchilov & Hutter 2019; LAMB: You et al. 2020; Lion: Chen et al. 2023. Clip
and plateau follow PyTorch's `clip_grad_norm_` and `ReduceLROnPlateau`, which the originals used.
**Departs:** the plateau is ours: optax's decides at every update and counts patience one less; the runs reproduced here
decide once an epoch on the epoch's mean loss.
"""

import fnmatch
from typing import Any, Callable, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxtrain import bits, schedules
from jaxtrain.config import limits
from jaxtrain.errors import UserError

SMALLEST_CUT = 1e-8  # a plateau leaves a learning rate alone that it would change by less: PyTorch's eps


class Plateau(flax.struct.PyTreeNode):
  """State of the plateau: learning-rate factor, best value, evaluations without progress, sums of this epoch's loss."""
  scale: jax.Array
  best: jax.Array
  num_bad: jax.Array
  loss_sum: jax.Array
  loss_count: jax.Array


class OptState(flax.struct.PyTreeNode):
  """State of an `Optimizer`: the update rule's own and the plateau's (None where off)."""
  rule: Any
  plateau: Plateau | None


class Optimizer(NamedTuple):
  """Pure functions of an optimiser.

  Attributes:
    init: `params -> OptState`.
    update: `(grads, opt_state, params, step, loss) -> (params, opt_state, {"lr": , "grad_norm": })`; `loss` is the
      step's (sum, count). Where a step makes several updates, all but the last say `is_last=False`: a plateau decides
      once a step.
    observe: `(opt_state, {name: value}) -> opt_state`: a plateau that watches an evaluation.
  """
  init: Callable[[Any], OptState]
  update: Callable[..., tuple[Any, OptState, dict[str, jax.Array]]]
  observe: Callable[[OptState, dict[str, jax.Array]], OptState]


def update_rule(optim) -> optax.GradientTransformation:
  """The update rule named by `optim.name`, without learning rate. Raises ValueError for a name not in `NAMES`."""
  b1, b2 = optim.betas
  decay = optax.add_decayed_weights(optim.weight_decay)
  adam = optax.scale_by_adam(b1, b2, optim.eps)
  rules = {
      "adam": (decay, adam),  # L2 penalty in the gradient, as in PyTorch's Adam
      "adamw": (adam, decay),
      "sgd": (decay, optax.trace(b1)),
      "lamb": (adam, decay, optax.scale_by_trust_ratio()),
      "lion": (optax.scale_by_lion(b1, b2), decay),
  }
  if optim.name not in rules:
    raise ValueError(f"config.optim.name: got {optim.name!r}, allowed {limits.OPTIMISERS}")
  if isinstance(optim.weight_decay, (int, float)) and optim.weight_decay == 0.0:
    rules = {name: tuple(t for t in chain if t is not decay) for name, chain in rules.items()}
  return optax.chain(*rules[optim.name])


def clip_factor(norm: jax.Array, max_norm) -> jax.Array:
  """Factor of gradient clipping, min(1, max_norm / (norm + 1e-6)), as PyTorch computes it."""
  return jnp.minimum(1.0, max_norm / (norm + 1e-6))


def init_plateau() -> Plateau:
  """Plateau state at the start: factor 1, nothing seen (the best is a huge finite number: the guard refuses
  infinities).
  """
  zero = jnp.zeros((), jnp.float32)
  return Plateau(jnp.ones((), jnp.float32), jnp.full((), 1e30, jnp.float32), jnp.zeros((), jnp.int32), zero, zero)


def judge_plateau(plateau: Plateau, value: jax.Array, settings, learning_rate) -> Plateau:
  """One decision of the plateau on an epoch's value; the epoch's sums start anew.

  A value counts as progress when value < best * (1 - threshold). After more than `patience` values in a row without
  progress the scale is multiplied by `settings.factor`, unless that changes the learning rate by less than 1e-8.
  """
  better = value < plateau.best * (1.0 - settings.threshold)
  num_bad = jnp.where(better, 0, plateau.num_bad + 1)
  cut = num_bad > settings.patience
  lower = cut & (learning_rate * plateau.scale * (1.0 - settings.factor) > SMALLEST_CUT)
  zero = jnp.zeros_like(plateau.loss_sum)
  return Plateau(scale=jnp.where(lower, plateau.scale * settings.factor, plateau.scale),
                 best=jnp.where(better, value, plateau.best).astype(jnp.float32),
                 num_bad=jnp.where(cut, 0, num_bad), loss_sum=zero, loss_count=zero)


def follow_loss(plateau: Plateau, step, loss, steps_per_epoch: int, settings, learning_rate, decides: bool) -> Plateau:
  """Adds a loss (sum, count); on the last step of an epoch decides on the epoch's mean, if this update `decides`."""
  plateau = plateau.replace(loss_sum=plateau.loss_sum + loss[0], loss_count=plateau.loss_count + loss[1])
  judge = lambda p: judge_plateau(p, p.loss_sum / jnp.maximum(p.loss_count, 1e-12), settings, learning_rate)
  if not decides:
    return plateau
  return jax.lax.cond((step + 1) % steps_per_epoch == 0, judge, lambda p: p, plateau)


def frozen_leaves(params: Any, patterns: tuple[str, ...], section: str) -> Any:
  """A tree like the parameters of bools: whether a pattern such as `encoder/*` matches the leaf's path.

  Raises:
    UserError: a pattern that matches nothing.
  """
  paths = {path: jax.tree_util.keystr(path, simple=True, separator="/")
           for path, _ in jax.tree_util.tree_leaves_with_path(params)}
  for pattern in patterns:
    if not any(fnmatch.fnmatchcase(path, pattern) for path in paths.values()):
      raise UserError(f"config.{section}.frozen: {pattern!r} matches no parameter, such as "
                      f"{', '.join(list(paths.values())[:4])}")
  is_frozen = lambda path, _: any(fnmatch.fnmatchcase(paths[path], pattern) for pattern in patterns)
  return jax.tree_util.tree_map_with_path(is_frozen, params)


def make(optim, steps_per_epoch: int, prefix: str = "") -> Optimizer:
  """Builds the optimiser of a config section such as `config.optim`.

  `learning_rate` may be a tracer, names and switches may not.

  Args:
    optim: the config section, from `config.common()` or `config.optimiser()`; `decay_steps` is the schedule's horizon,
      filled in when the run starts.
    steps_per_epoch: updates between two decisions of a plateau on the training loss.
    prefix: of the metrics `lr` and `grad_norm`, where a step has several optimisers; `critic_` for `optim_critic`.
  """
  rule, section = update_rule(optim), f"optim_{prefix}".rstrip("_")
  shape = schedules.learning_rate_shape(optim.schedule, optim.decay_steps, optim.warmup_steps, optim.end_value)
  flat = optim.name != "lamb"  # LAMB's trust ratio is per parameter array
  pack = (lambda tree: ravel_pytree(tree)[0]) if flat else (lambda tree: tree)
  has_plateau = optim.plateau.factor > 0
  follows_loss = has_plateau and optim.plateau.monitor == "train_loss"

  def init(params):
    return OptState(rule.init(pack(params)), init_plateau() if has_plateau else None)

  def update(grads, opt_state, params, step, loss, is_last=True):
    unpack = ravel_pytree(params)[1] if flat else (lambda tree: tree)
    frozen = frozen_leaves(params, optim.frozen, section) if optim.frozen else None
    if frozen is not None:
      grads = jax.tree.map(lambda g, is_frozen: jnp.zeros_like(g) if is_frozen else g, grads, frozen)
    grads, packed, plateau = pack(grads), pack(params), opt_state.plateau
    grad_norm = optax.tree.norm(grads)
    if optim.clip_norm > 0:
      factor = clip_factor(grad_norm, optim.clip_norm)
      grads = jax.tree.map(lambda g: g * factor, grads)
    learning_rate = bits.opaque(optim.learning_rate) * shape(step)
    if has_plateau:
      learning_rate = learning_rate * plateau.scale
    updates, rule_state = rule.update(grads, opt_state.rule, packed)
    packed = jax.tree.map(lambda p, u: p - (learning_rate * u).astype(p.dtype), packed, updates)
    if follows_loss:
      plateau = follow_loss(plateau, step, loss, steps_per_epoch, optim.plateau, optim.learning_rate,
                            is_last)
    metrics = {f"{prefix}lr": jnp.asarray(learning_rate, jnp.float32), f"{prefix}grad_norm": grad_norm}
    updated = unpack(packed)
    if frozen is not None:
      updated = jax.tree.map(lambda new, old, is_frozen: old if is_frozen else new, updated, params, frozen)
    return updated, OptState(rule_state, plateau), metrics

  def observe(opt_state, means):
    if not has_plateau or follows_loss:
      return opt_state
    value = means[optim.plateau.monitor]
    return opt_state.replace(plateau=judge_plateau(opt_state.plateau, value, optim.plateau, optim.learning_rate))

  return Optimizer(init, update, observe)


def update_ema(ema: Any, params: Any, decay) -> Any:
  """ema + (1 - decay) (params - ema), leaf by leaf; None stays None."""
  return None if ema is None else optax.incremental_update(params, ema, 1.0 - decay)


def make_observe(tx: Optimizer, optim) -> Callable[[Any, dict[str, Any]], Any] | None:
  """`Experiment.observe` of states with one optimiser `tx`, made of the section `optim`: its plateau sees evaluations.

  None where there is no plateau, or where it watches the training loss.
  """
  if optim.plateau.factor <= 0 or optim.plateau.monitor == "train_loss":
    return None
  return lambda state, means: state.replace(opt_state=tx.observe(state.opt_state, means))
