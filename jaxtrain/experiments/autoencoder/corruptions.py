"""Corrupted copies of events, which a model of good events should reconstruct worse than the events themselves.

An event's arrays are `ids` [B, T], `momenta` [B, T, 4] (GeV, radians) and `globals` [B, 2]; other names, such as
weights, are handed through. Missing transverse energy is left as it is, so it no longer fits the objects.

- `gaussian_noise`: E and pT each times 1 + NOISE z, and eta and phi plus NOISE z, of normal z of their own.
- `token_shuffle`: a share RATIO of an event's objects, two at least, trade places. A model that treats all slots alike
  cannot see it: its AUROC is 0.5 by construction.
- `drop_tokens`: each object is lost with probability RATIO, but for one of an event; the others close up. Its AUROC may
  be below 0.5, as events of fewer objects are easier.
- `swap_id_cont_pairs`: a share RATIO of objects, a pair at least, trade their types and keep their momenta.
- `global_jet_scramble`: jets and b-jets trade places with those of all events that are given together.
"""

from typing import Callable

import numpy as np

from jaxtrain.experiments.autoencoder.events import B_JET, EMPTY, JET, wrap

NOISE, RATIO, MOST_ETA = 0.1, 0.2, 5.0
LEAST_FACTOR = 0.05  # of an energy, however the noise falls

Arrays = dict[str, np.ndarray]


def gaussian_noise(arrays: Arrays, random: np.random.RandomState) -> Arrays:
  """Momenta with noise."""
  momenta, mask = arrays["momenta"].astype(np.float64), arrays["ids"] != EMPTY
  noise = NOISE * random.normal(size=momenta.shape)
  scaled = momenta[..., :2] * np.maximum(1 + noise[..., :2], LEAST_FACTOR)
  eta = np.clip(momenta[..., 2] + noise[..., 2], -MOST_ETA, MOST_ETA)
  moved = np.concatenate([scaled, eta[..., None], wrap(momenta[..., 3:] + noise[..., 3:])], axis=-1)
  return arrays | {"momenta": (moved * mask[..., None]).astype(arrays["momenta"].dtype)}


def chosen(ids: np.ndarray, random: np.random.RandomState, step: int) -> tuple[np.ndarray, np.ndarray]:
  """(order [B, T] of slots in which objects stand at random and before empty slots, how many of the first to take [B]).

  A share RATIO of an event's objects is taken, rounded to a multiple of `step`, two at least where there are two.
  """
  mask = ids != EMPTY
  order = np.argsort(np.where(mask, random.uniform(size=ids.shape), 2.0), axis=1)
  count = mask.sum(axis=1)
  taken = np.maximum(step * np.rint(RATIO * count / step), 2).astype(int)
  return order, np.where(count < 2, 0, np.minimum(taken, count - count % step))


def token_shuffle(arrays: Arrays, random: np.random.RandomState) -> Arrays:
  """Objects in other places: each of those chosen goes to the place of the next, the last to that of the first."""
  order, taken = chosen(arrays["ids"], random, 1)
  place = np.arange(order.shape[1])
  after = np.where(place < taken[:, None] - 1, place + 1, np.where(place == taken[:, None] - 1, 0, place))
  source = np.broadcast_to(place, order.shape).copy()
  np.put_along_axis(source, np.take_along_axis(order, after, axis=1), order, axis=1)
  return pick(arrays, source)


def pick(arrays: Arrays, source: np.ndarray) -> Arrays:
  """Events whose slot t has the object of slot source[:, t]."""
  return arrays | {"ids": np.take_along_axis(arrays["ids"], source, axis=1),
                   "momenta": np.take_along_axis(arrays["momenta"], source[..., None], axis=1)}


def drop_tokens(arrays: Arrays, random: np.random.RandomState) -> Arrays:
  """Events that lack some objects."""
  ids = arrays["ids"]
  mask, draw = ids != EMPTY, random.uniform(size=ids.shape)
  kept = mask & ((draw >= RATIO) | (draw == np.where(mask, draw, -1.0).max(axis=1, keepdims=True)))
  left = arrays | {"ids": ids * kept, "momenta": arrays["momenta"] * kept[..., None]}
  return pick(left, np.argsort(~kept, axis=1, kind="stable"))


def swap_id_cont_pairs(arrays: Arrays, random: np.random.RandomState) -> Arrays:
  """Objects with the types of others."""
  order, taken = chosen(arrays["ids"], random, 2)
  place = np.arange(order.shape[1])
  partner = np.where(place < taken[:, None], place ^ 1, place)
  ids = arrays["ids"].copy()
  np.put_along_axis(ids, order, np.take_along_axis(arrays["ids"], np.take_along_axis(order, partner, axis=1), axis=1),
                    axis=1)
  return arrays | {"ids": ids}


def global_jet_scramble(arrays: Arrays, random: np.random.RandomState) -> Arrays:
  """Events with the jets of others."""
  ids, momenta = arrays["ids"].copy(), arrays["momenta"].copy()
  at = np.nonzero((ids == JET) | (ids == B_JET))
  order = random.permutation(len(at[0]))
  ids[at], momenta[at] = ids[at][order], momenta[at][order]
  return arrays | {"ids": ids, "momenta": momenta}


CORRUPTIONS: dict[str, Callable[[Arrays, np.random.RandomState], Arrays]] = {
    "gaussian_noise": gaussian_noise, "token_shuffle": token_shuffle, "drop_tokens": drop_tokens,
    "swap_id_cont_pairs": swap_id_cont_pairs, "global_jet_scramble": global_jet_scramble}


def corrupt(name: str, arrays: Arrays, random: np.random.RandomState) -> Arrays:
  """A corrupted copy of the arrays of events, by the name of one of CORRUPTIONS. Raises ValueError for another name."""
  if name not in CORRUPTIONS:
    raise ValueError(f"corruption {name!r}, allowed {', '.join(CORRUPTIONS)}")
  return CORRUPTIONS[name](arrays, random)
