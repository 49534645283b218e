"""Simulated causal models as an endless, numbered stream of tasks, made on the device inside the train step.

Task t of a purpose (train, val, test) is a function of (key, purpose, t), for given families and sizes. Purposes never
meet, because the purpose is folded into the key. Tasks are made in chunks of `data.task_chunk`, one chunk after the
other: graphs, kinds and masks are exact whatever the chunk, values bit for bit at one chunk and device kind and to
rounding otherwise (XLA fuses a batch of another size otherwise).

A chunk goes through the topological places 0..D-1: at each, only the mechanisms that its tasks have there are evaluated
(`families.by_kind`). Labels are dealt last, so that no index tells a direction.

A task whose values are not finite, or that has a constant node, is rejected: its weight is 0, its values are zeros, and
`rejected` counts it. That is as deterministic as the task itself.
"""

from typing import Any, Callable, Iterator, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import bits as bits_lib, rng
from jaxtrain.config import limits
from jaxtrain.config.limits import Limit
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import corruptions, families, functions, graphs, mechanisms
from jaxtrain.experiments.causal_discovery.families import Family
from jaxtrain.experiments.causal_discovery.noises import NOISES, noise_of
from jaxtrain.experiments.causal_discovery.numbers import Numbers, count, drawn, fold
from jaxtrain.types import Batch, Source

PURPOSES = ("train", "val", "test")  # the position is part of every task: append, never reorder
NUM_NODES = limits.whole(2, 4096)
LIMITS = {  # of the fields of `config.data` that a named family of tasks may change, beside its lists of families
    "mixture": limits.one_of("node", "task", "either"),
    "noise_mixture": limits.one_of("node", "task", "either"),
    "noise_share": Limit(lambda v: len(v) == 2 and all(limits.fits(limits.at_least(0, 1), share) for share in v)
                         and v[0] <= v[1], "two numbers from 0 to 1, in order", tuple),
    "num_nodes": limits.each(NUM_NODES, 1, limits.MOST_DEPTH),
    "num_rows": limits.whole(2, limits.MOST_ROWS),
    "num_rows_int": limits.whole(0, limits.MOST_ROWS),
    "p_obs_only": limits.at_least(0, 1),
}
BLOCK = 16  # steps of one bucket
HETEROSCEDASTIC = {"rff_dim": 100, "num_kernels": 1, "shared_length": 1, "length_low": 10.0,
                   "length_high": 10.0}  # AVICI


class Spec(NamedTuple):
  """What tasks are made of; see configs/causal_discovery.py for the fields of the config that it comes from."""
  graphs: tuple[Family, ...]
  mechanisms: tuple[Family, ...]
  noises: tuple[Family, ...]
  corruptions: tuple[Family, ...]
  mixture: str
  noise_mixture: str
  noise_share: tuple[float, float]
  num_rows: int
  num_rows_int: int
  p_obs_only: float
  intervention: tuple[float, float]
  normalize: bool
  reject_constant: bool
  task_chunk: int


def make_spec(data) -> Spec:
  """The tasks of `config.data`.

  Raises:
    UserError: families that do not exist or do not fit the numbers of nodes.
  """
  spec = Spec(families.parse("data.graphs", data.graphs, graphs.KNOWN),
              families.parse("data.mechanisms", data.mechanisms, mechanisms.KNOWN),
              families.parse("data.noises", data.noises, NOISES),
              families.parse("data.corruptions", data.corruptions, corruptions.KNOWN), data.mixture,
              data.noise_mixture, tuple(data.noise_share), data.num_rows, data.num_rows_int, data.p_obs_only,
              (data.intervention_value, data.intervention_scale), data.normalize, data.reject_constant, data.task_chunk)
  for family in spec.graphs:
    graphs.check(family, min(data.num_nodes))
  for family in spec.mechanisms:
    mechanisms.check(family)
  for family in spec.corruptions:
    corruptions.check(family, spec.num_rows_int)
  return spec


def scale_noise(family: Family, key: jax.Array, x: jax.Array, parents: jax.Array, noise: jax.Array,
                observed: jax.Array) -> jax.Array:
  """Noise whose variance is log(1 + exp(h(parents))), h a smooth random function, of mean variance 1."""
  if not family.params["heteroscedastic"]:
    return noise
  features = lambda numbers, x, parents: functions.draw_features(numbers, x, parents, HETEROSCEDASTIC, lambda _: 2.0,
                                                                 True)
  variance = jax.nn.softplus(drawn(features)(key, x, parents))
  return noise * jnp.sqrt(variance / (jnp.sum(variance * observed) / jnp.maximum(jnp.sum(observed), 1.0)))


def plan_rows(spec: Spec, numbers: Numbers, num_nodes: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(place that is set in each row, -1 for none; the value it is set to), both [n]."""
  n = spec.num_rows + spec.num_rows_int
  if not spec.num_rows_int:
    return jnp.full((n,), -1), jnp.zeros((n,))
  none = (numbers.uniform() < spec.p_obs_only) | (jnp.arange(n) < spec.num_rows)
  place = jnp.where(none, -1, (numbers.uniform((n,)) * num_nodes).astype(jnp.int32))
  return place, spec.intervention[0] + spec.intervention[1] * numbers.normal((n,))


def draw_kinds(mixture: str, found: tuple[Family, ...], numbers: jax.Array, of_task: jax.Array, of_nodes: jax.Array,
               coin: jax.Array) -> jax.Array:
  """[C, D] int32: the family at each place of the tasks of the numbers [C].

  Args:
    mixture: task: one family a task; node: each place its own; either: `PERIOD` consecutive tasks are all of one kind.
    found: the families. of_task, of_nodes, coin: [C], [C, D], [C] uint32, the bits of a task's group.
  """
  whole = jnp.broadcast_to(of_task[:, None], of_nodes.shape)
  places = {"task": whole, "node": of_nodes, "either": jnp.where(coin[:, None] >> 31, whole, of_nodes)}[mixture]
  return families.kind_of(places, numbers[:, None], found)


def noise_by_kind(spec: Spec, kinds: jax.Array, most: list[int], u: jax.Array) -> jax.Array:
  """Noise [C, D, n] of the families of the kinds [C, D], of uniform numbers u [C, D, n] in (-1, 1)."""
  functions_ = [lambda u, f=family: noise_of(f, u) for family in spec.noises]
  if spec.noise_mixture == "task":
    return families.by_kind(kinds[:, 0], functions_, most, u)
  at_place = lambda kinds, u: families.by_kind(kinds, functions_, most, u)
  return jax.vmap(at_place, (1, 1), 1)(kinds, u)


class Plan(NamedTuple):
  """A task before its values: what is drawn for it once, in topological places.

  Attributes:
    num_nodes: [].
    graph_bits: [G] uint32, what the graph is made of.
    labels: [D], uniform numbers that deal the labels.
    share: [D], noise share of each node.
    target, do_value: [n], see `plan_rows`.
    noise: [D, n], uniform in (-1, 1).
  """
  num_nodes: jax.Array
  graph_bits: jax.Array
  labels: jax.Array
  share: jax.Array
  target: jax.Array
  do_value: jax.Array
  noise: jax.Array


def plan_task(spec: Spec, D: int, sizes: tuple[int, ...], num_graph_bits: int, numbers: Numbers) -> Plan:
  """Draws what a task needs once. Rows and noise come last: with more of them all else stays."""
  num_nodes = jnp.asarray(sizes)[(numbers.uniform() * len(sizes)).astype(jnp.int32)]
  labels, share = numbers.uniform((D,)), numbers.uniform((D,), *spec.noise_share)
  start = numbers.taken
  numbers.taken += num_graph_bits
  bits = jnp.zeros((num_graph_bits,), jnp.uint32) if numbers.bits is None else numbers.bits[start:numbers.taken]
  target, do_value = plan_rows(spec, numbers, num_nodes)
  noise = numbers.uniform((D, spec.num_rows + spec.num_rows_int), -1.0, 1.0)
  return Plan(num_nodes, bits, labels, share, target, do_value, noise)


def sample_chunk(spec: Spec, D: int, sizes: tuple[int, ...], key: jax.Array, purpose: str, numbers: jax.Array,
                 in_order: bool) -> Batch:
  """Tasks of the numbers [C], padded to D nodes; `sizes` are the numbers of nodes that they may have.

  Args:
    in_order: the numbers are consecutive and begin at a multiple of C.

  Returns:
    A batch without its weight: `values` [C, n, D], `intervened` [C, n, D], `adjacency` [C, D, D], `node_mask` [C, D],
    all float32; `graph_kind` [C], `mechanism_kinds` [C, D] (-1 in padding) int32; `fits` [C] bool.
    Where a family of corruptions hides cells: `observed` [C, n, D] float32, 0 for those, and for padding.
  """
  C, n = numbers.shape[0], spec.num_rows + spec.num_rows_int
  most = lambda found: families.capacities(found, C, in_order)
  own = fold(key, PURPOSES.index(purpose))
  keys, node_keys, noise_keys = (jax.vmap(lambda t: fold(own, tag, t))(numbers) for tag in (0, 2, 3))  # 1: groups
  group_bits = jax.vmap(lambda t: jax.random.bits(fold(own, 1, t // families.PERIOD), (2 + D,)))(numbers)

  makers = [graphs.make(family, D) for family in spec.graphs]
  num_graph_bits = max(count(maker, jnp.int32(D)) for maker in makers)
  plan = jax.vmap(drawn(lambda found: plan_task(spec, D, sizes, num_graph_bits, found)))(keys)
  graph_kind = families.kind_of(group_bits[:, 0], numbers, spec.graphs)
  more_bits = jax.vmap(lambda t: jax.random.bits(fold(own, 7, t // families.PERIOD), (2 + D,)))(numbers)
  noise_kinds = draw_kinds(spec.noise_mixture, spec.noises, numbers, group_bits[:, 1], more_bits[:, 2:],
                           more_bits[:, 0])
  mechanism_kinds = draw_kinds(spec.mixture, spec.mechanisms, numbers, group_bits[:, 2], group_bits[:, 2:],
                               more_bits[:, 1])
  edges = families.by_kind(graph_kind, [lambda bits, d, f=maker: f(Numbers(bits), d) for maker in makers],
                           most(spec.graphs), plan.graph_bits, plan.num_nodes)
  noise = noise_by_kind(spec, noise_kinds, most(spec.noises), plan.noise)
  observed = (plan.target < 0).astype(jnp.float32)
  corrupted = corruptions.make(spec.corruptions, own, numbers, most(spec.corruptions))
  inputs, x, H = edges, jnp.zeros((C, D, n)), corruptions.num_hidden(spec.corruptions)
  if H:  # hidden variables come before all places
    hidden_edges, hidden = corruptions.draw_hidden(spec.corruptions, corrupted.kinds, corrupted.keys[0], D, n)
    inputs, x = (jnp.concatenate(pair, 1) for pair in ((hidden_edges, edges), (hidden, x)))
  noise, lagged = corrupted.persist(noise), corrupted.lagged

  def node(place, x):
    here = lambda array: jax.lax.dynamic_index_in_dim(array, place, axis=1, keepdims=False)
    parents = jax.lax.dynamic_index_in_dim(inputs, place, axis=2, keepdims=False).astype(jnp.float32)
    eps, at_place = here(noise), jax.vmap(lambda k: fold(k, place))
    if any(family.params["heteroscedastic"] for family in spec.noises):
      scaled = [lambda *args, f=family: scale_noise(f, *args) for family in spec.noises]
      eps = families.by_kind(here(noise_kinds), scaled, most(spec.noises), at_place(noise_keys), lagged(x), parents,
                             eps, observed)
    facts = mechanisms.Node(observed, jnp.sum(parents, 1) == 0, here(plan.share))
    new = families.by_kind(here(mechanism_kinds), [drawn(mechanisms.make(family)) for family in spec.mechanisms],
                           most(spec.mechanisms), at_place(node_keys), lagged(x), parents, eps, facts)
    return jax.lax.dynamic_update_index_in_dim(x, jnp.where(plan.target == place, plan.do_value, new), H + place, 1)

  x, seen = corrupted.read(jax.lax.fori_loop(0, D, node, x)[:, H:])
  made = jax.vmap(lambda *args: finish(spec, *args))(plan, x, seen, edges, mechanism_kinds)
  return made | {"graph_kind": graph_kind}


def finish(spec: Spec, plan: Plan, x: jax.Array, seen: jax.Array | None, edges: jax.Array,
           kinds: jax.Array) -> dict[str, jax.Array]:
  """One task checked, standardised over its rows, and labelled; arguments are in topological places.

  Args:
    x: [D, n]. seen: [D, n], 1 for cells that are not missing; None where all are there.
  """
  real = jnp.arange(x.shape[0]) < plan.num_nodes
  average, there = lambda v: jnp.mean(v, 1, keepdims=True), real[:, None]
  if seen is not None:
    average = lambda v: jnp.sum(v * seen, 1, keepdims=True) / jnp.maximum(jnp.sum(seen, 1, keepdims=True), 1.0)
    there = real[:, None] & (seen > 0)
  mean = average(x)
  deviation = jnp.sqrt(average(jnp.square(x - mean)))
  smallest = functions.TINY * jnp.maximum(1.0, jnp.abs(mean[:, 0]))
  varies = jnp.all(jnp.where(real, deviation[:, 0] > smallest, True)) | (not spec.reject_constant)
  fits = jnp.all(jnp.isfinite(deviation[:, 0]) | ~real) & varies
  if spec.normalize:
    x = (x - mean) / jnp.maximum(deviation, 1e-8)
  x = jnp.where(fits & there, x, 0.0)
  order = graphs.shuffled(plan.labels, plan.num_nodes)
  intervened = (plan.target[:, None] == order[None, :]) & real[None, :]
  made = {"values": x[order].T, "intervened": intervened.astype(jnp.float32),
          "adjacency": edges[order][:, order].astype(jnp.float32), "node_mask": real.astype(jnp.float32),
          "mechanism_kinds": jnp.where(real, kinds[order], -1), "fits": fits}
  return made if seen is None else made | {"observed": there[order].T.astype(jnp.float32)}


def make_batch(spec: Spec, D: int, sizes: tuple[int, ...], key: jax.Array, purpose: str, numbers: jax.Array,
               counts: jax.Array, in_order: bool) -> Batch:
  """The batch of the tasks of these numbers [B], chunk after chunk; `counts` [B] is 0 for rows that are padding."""
  B, C = numbers.shape[0], spec.task_chunk
  cut = numbers.reshape(B // C, C)
  chunk = lambda c: sample_chunk(spec, D, sizes, key, purpose, cut[c], in_order)
  made = jax.tree.map(lambda leaf: leaf.reshape(B, *leaf.shape[2:]), bits_lib.run_in_turn(chunk, B // C))
  fits = made.pop("fits").astype(jnp.float32)
  return made | {"weight": fits * counts, "rejected": (1.0 - fits) * counts}


class Buckets(NamedTuple):
  """Padded sizes, and for each the numbers of nodes whose tasks it holds."""
  sizes: tuple[int, ...]
  num_nodes: tuple[tuple[int, ...], ...]

  def turns(self) -> list[int]:
    """Buckets by turns: each as often as it has numbers of nodes, so that all of those are as frequent."""
    return [k for k, held in enumerate(self.num_nodes) for _ in held]


def make_buckets(num_nodes: tuple[int, ...], pad_to: tuple[int, ...]) -> Buckets:
  """The smallest padded size for each number of nodes; without `pad_to` each has its own.

  Raises:
    UserError: no size is large enough.
  """
  sizes = tuple(sorted(set(pad_to or num_nodes)))
  if max(num_nodes) > sizes[-1]:
    raise UserError(f"config.data.pad_to: got {tuple(pad_to)}, allowed up to at least {max(num_nodes)}, the largest of "
                    "config.data.num_nodes")
  held = {size: [d for d in sorted(set(num_nodes)) if d <= size and not any(d <= s < size for s in sizes)]
          for size in sizes}
  used = [size for size in sizes if held[size]]
  return Buckets(tuple(used), tuple(tuple(held[size]) for size in used))


def in_buckets(data: Any, of_bucket: Callable, bucket_at: Callable, buckets: Buckets, num_batches: int | None,
               num_rows: int | None) -> Source:
  """A source of `of_bucket(D, numbers of nodes) -> batch_at`; one bucket is none."""
  each = tuple(map(of_bucket, buckets.sizes, buckets.num_nodes))
  if len(each) == 1:
    return Source(data, each[0], num_batches, num_rows)
  return Source(data, each[0], num_batches, num_rows, bucket_at=bucket_at, buckets=each)


def make_stream(spec: Spec, buckets: Buckets, batch_size: int) -> Source:
  """The endless training stream: step s has the tasks s B ... s B + B - 1; buckets take turns, `BLOCK` steps each.

  With several buckets that of a task, and so its number of nodes, follows from its step: from the batch size too.
  """
  def of_bucket(D, sizes):
    def batch_at(data, step, key):
      numbers = step.astype(jnp.uint32) * batch_size + jnp.arange(batch_size, dtype=jnp.uint32)
      return make_batch(spec, D, sizes, key, "train", numbers, jnp.ones((batch_size,)), True)
    return batch_at
  by_turns = buckets.turns()
  return in_buckets({}, of_bucket, lambda step: by_turns[step // BLOCK % len(by_turns)], buckets, None, None)


def make_fixed(spec: Spec, buckets: Buckets, batch_size: int, purpose: str, seed: int, num_tasks: int,
               seeds: tuple[int, ...]) -> Source:
  """A finite list of tasks: 0, 1, ... or those of the given seeds; buckets take turns by the task's number.

  It depends on `seed` and not on the run's own, so that all runs are judged by the same tasks.
  """
  listed, by_turns = np.asarray(seeds[:num_tasks] or np.arange(num_tasks), np.uint32), np.asarray(buckets.turns())
  own = [listed[by_turns[listed % len(by_turns)] == k] for k in range(len(buckets.sizes))]
  per_bucket = -(-max(map(len, own)) // batch_size)  # batches
  numbers = np.zeros((len(own), per_bucket * batch_size), np.uint32)
  counts = np.zeros(numbers.shape, np.float32)
  for k, found in enumerate(own):
    numbers[k, :len(found)], counts[k, :len(found)] = found, 1.0
  data = {"numbers": numbers.reshape(-1, batch_size), "counts": counts.reshape(-1, batch_size)}

  def of_bucket(D, sizes):
    def batch_at(data, step, key):
      return make_batch(spec, D, sizes, rng.key_for(seed, "data"), purpose, data["numbers"][step],
                        data["counts"][step], False)
    return batch_at
  return in_buckets(data, of_bucket, lambda step: step // per_bucket, buckets, len(data["numbers"]), len(listed))


def batches(source: Source, key: jax.Array) -> Iterator[Batch]:
  """The batches of a finite source in their order; each of its buckets is compiled once."""
  data = jax.device_put(source.data)
  make = [jax.jit(source.in_bucket(k).batch_at) for k in range(len(source.buckets) or 1)]
  for step in range(source.num_batches):
    yield make[source.bucket(step)](data, jnp.int32(step), key)
