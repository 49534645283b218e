"""Deep ensembles: an experiment whose state holds several members, trained as one run.

Members share the batches and differ in their initialisation and in the noise of their steps. Metrics of training and
evaluation are means over the members, and so are the numbers of the final assessment, whose arrays (for figures) are
those of the first member; what is monitored, saved and stopped is the ensemble.

**Source:** Lakshminarayanan, Pritzel & Blundell 2017 (Simple and scalable predictive uncertainty estimation using deep
ensembles), 2.4: random initialisation and the whole data for all members.
**Departs:** one order of the rows serves all members, so that a batch is fetched once.
"""

import dataclasses
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import losses, rng
from jaxtrain.errors import UserError
from jaxtrain.types import Experiment, Verb

SHARED = ("step", "key")  # fields of a state that all members share


def own_fields(state: Any) -> dict[str, Any]:
  """The fields of a state that each member has for itself, with their leading axis of members."""
  return {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name not in SHARED}


def member(state: Any, k: int) -> Any:
  """The state of one member, as that of a run of its own."""
  own = jax.tree.map(lambda leaf: leaf[k], own_fields(state))
  return state.replace(**own, key=rng.step_key(state.key, k))


def wrap(one: Experiment, num_members: int, guard: Callable) -> Experiment:
  """The experiment of so many members; batches, sources and verbs stay what they are.

  Args:
    one: of a member.
    num_members: how many.
    guard: `(old state, new state, metrics) -> (state, metrics)`, applied to each member by itself: one that diverges
      keeps its last finite state while the others go on.
  """
  index = jnp.arange(num_members)

  def over_members(state, fn):
    """fn(member's state, k) for all, along a leading axis."""
    call = lambda own, k: fn(state.replace(**own, key=rng.step_key(state.key, k)), k)
    return jax.vmap(call)(own_fields(state), index)

  def init(key, sample):
    states = jax.vmap(lambda k: own_fields(one.init(rng.step_key(key, k), sample)))(index)
    return one.init(key, sample).replace(**states)

  def add(metrics):
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), metrics)

  def train_step(state, batch, key, over):
    def step(own_state, k):
      new, metrics = one.train_step(own_state, batch, rng.step_key(key, k), over)
      # Before the guard, which notes the cause of a halt by its position among the names of all metrics.
      new, metrics = guard(own_state, new, metrics | {"member_loss": metrics["loss"]})
      return own_fields(new), metrics
    new, metrics = over_members(state, step)
    all_halted = jnp.all(new["guard"].stopped)
    return state.replace(**new, step=state.step + ~all_halted), add(metrics) | {"member_loss": metrics["member_loss"]}

  def eval_step(state, batch, key, over):
    return add(over_members(state, lambda own_state, k: one.eval_step(own_state, batch, rng.step_key(key, k), over)))

  def observe(state, means):
    return state.replace(**over_members(state, lambda own_state, _: own_fields(one.observe(own_state, means))))

  def summarise(totals):
    found = {}
    if "member_loss" in totals:  # of training
      found = losses.item_means("member_loss", *totals["member_loss"])
    return found | (one.summarise(totals) if one.summarise else {})

  def make_assess(assess_one):
    def assess(state, splits, key):
      each = [assess_one(member(state, k), splits, key) for k in range(num_members)]
      return mean_and_deviation([scalars for scalars, _ in each]), each[0][1]
    return assess

  return one._replace(init=init, train_step=train_step, eval_step=eval_step, summarise=summarise,
                      observe=observe if one.observe else None,
                      assess={part: make_assess(fn) for part, fn in one.assess.items()} if one.assess else None,
                      predict={name: several(name, verb, num_members) for name, verb in (one.predict or {}).items()},
                      read_weights=None, guards_members=True)


def mean_and_deviation(each: list[dict]) -> dict[str, float]:
  """Means over the members of scalars that all have, and `sd_<name>` of those that differ."""
  names = [name for name in each[0] if all(name in scalars for scalars in each)]
  values = {name: np.asarray([scalars[name] for scalars in each], float) for name in names}
  whole = lambda name: all(isinstance(scalars[name], int) for scalars in each) and len(set(values[name])) == 1
  found = {name: each[0][name] if whole(name) else float(values[name].mean()) for name in names}
  differing = [name for name in names if not whole(name) and "/" not in name]
  return found | {f"sd_{name}": float(values[name].std(ddof=1)) for name in differing}


def several(name: str, verb: Verb, num_members: int) -> Verb:
  """A verb of one state as that of an ensemble's, by `verb.several`; one that refuses ensembles says so when used."""
  def refuse(*_):
    raise UserError(f"--verb={name}: one state only, and this run holds an ensemble of {num_members} members")
  if verb.several == "refused":
    return verb._replace(run=refuse, pure=refuse if verb.pure else None)

  def run(state, columns, num, key):
    sizes = [num] * num_members
    if verb.several == "turns":
      sizes = [len(part) for part in np.array_split(np.arange(num), num_members)]
    each = [verb.run(member(state, k), columns, size, rng.step_key(key, k)) for k, size in enumerate(sizes)
            if size or verb.reads]
    return join(verb, each)

  def pure(state):
    if verb.several == "turns":
      raise UserError("--export: rows of an ensemble come from its members in turn; allowed with a run of one member")
    made = [verb.pure(member(state, k)) for k in range(num_members)]
    if verb.several == "mean":
      return (lambda x: sum(fn(x) for fn, _ in made) / num_members), made[0][1]
    return (lambda x: jnp.concatenate([fn(x) for fn, _ in made], axis=1)), made[0][1]

  settle = (lambda *args: several(name, verb.settle(*args), num_members)) if verb.settle else None
  return verb._replace(run=run, pure=pure if verb.pure else None, settle=settle)


def join(verb: Verb, each: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """One set of columns from those of the members: means and `<column>_sd`, or side by side, or rows in turn.

  Where members agree to the bit their value stays as it is. Of a verb that replaces columns, those that are measured
  have no deviation, and one of which each member gives a deviation has that of the mixture: the mean of their variances
  and the variance of their values.
  """
  if verb.several == "each":
    return {f"m{k}_{name}": column for k, columns in enumerate(each) for name, column in columns.items()}
  if verb.several == "turns":
    return {name: np.concatenate([columns[name] for columns in each]) for name in each[0]}
  numbers = {name: np.stack([columns[name] for columns in each]) for name, column in each[0].items()
             if column.dtype.kind == "f"}
  read = {column.name for column in verb.inputs or ()}
  own = {f"{name}_sd" for name in numbers} & numbers.keys() - read if verb.replaces else set()
  plain = {name: values for name, values in numbers.items() if name not in own}
  agree = lambda values: (values == values[0]).all(axis=0)
  means = each[0] | {name: np.where(agree(values), values[0], values.mean(axis=0)) for name, values in plain.items()}
  means |= verb.decide(means) if verb.decide else {}
  between = {f"{name}_sd": np.where(agree(values), 0.0, values.std(axis=0, ddof=1)) for name, values in plain.items()}
  if verb.replaces:  # cells that were measured have no deviation
    between = {name: values for name, values in between.items() if name in own}
  within = {name: np.square(numbers[name]).mean(axis=0) for name in own}
  return means | {name: np.sqrt(values ** 2 + within[name]) if name in own else values
                  for name, values in between.items()}
