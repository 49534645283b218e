"""Distances between two sets of collider events: Wasserstein distances with their floor, Frechet and kernel physics
distances, and whether a classifier tells the two sets apart.

**Source:** W1M and W1P: Kansal et al., Particle cloud generation with message passing generative adversarial networks,
2021. FPD and KPD: Kansal et al., Evaluating generative models in high energy physics, 2023. Both as the package
`jetnet` 0.2.5 computes them, with its numbers of samples and, for FPD and KPD, its random numbers. Energy flow
polynomials: Komiske, Metodiev & Thaler, 2018. Two-sample test: Lopez-Paz & Oquab, Revisiting classifier two-sample
tests, 2017.
**Departs:** FPD finds the trace of the root of a product of covariances from a symmetric matrix of the same
eigenvalues, which is exact for covariances without full rank too. Differences of azimuths in polynomials are taken
around the circle.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize

from jaxtrain.experiments.autoencoder import kinematics, nets_mlp, ranking
from jaxtrain.experiments.autoencoder.observables import Values

W1_SAMPLES, W1_BATCHES = 50_000, 5  # of jetnet: events drawn in a batch, and batches
FPD_SAMPLES, FPD_POINTS, FPD_BATCHES = (20_000, 50_000), 10, 20
KPD_SAMPLES, KPD_BATCHES, SEED = 5_000, 10, 42
KPD_SPREAD = (16.275, 83.725)  # percentiles, half of whose distance is the uncertainty
MOST_EDGES = 4
BLOCK, ROWS = 500, 128  # events, and rows of a kernel, at once: so many fit a processor's cache
# Connected multigraphs of up to four edges, as pairs of vertices, by number of edges.
GRAPHS = {
    0: ("",), 1: ("ab",), 2: ("ab ab", "ab bc"), 3: ("ab ab ab", "ab ab bc", "ab bc ca", "ab ac ad", "ab bc cd"),
    4: ("ab ab ab ab", "ab ab ab bc", "ab ab bc bc", "ab ab bc ca", "ab ab bc cd", "ab bc bc cd", "ab ab ac ad",
        "ab bc cd da", "ab bc ca cd", "ab bc cd de", "ab ac ad ae", "ab ac ad de"),
}
HIDDEN, EPOCHS, BATCH, RATE, DECAY = (64, 64), 20, 256, 1e-3, 1e-2  # of the classifier
STOPPING = 0.2  # share of its training half that chooses the epoch


class Line(NamedTuple):
  """Values of two samples on one line: the order [P] in which they stand, and the gaps [P - 1] between neighbours."""
  order: np.ndarray
  gaps: np.ndarray


def line(values: np.ndarray) -> Line:
  """The line of the values [P] of both samples."""
  order = np.argsort(values, kind="stable")
  return Line(order, np.diff(values[order]))


def w1_on(on: Line, first: np.ndarray, second: np.ndarray) -> float:
  """W1 of two samples on a line, of weights [P] that are 0 for the values of the other: the area between the shares of
  both below a value. NaN where a sample is empty.
  """
  both = [part.sum() for part in (first, second)]
  if min(both) <= 0:
    return float("nan")
  below = np.cumsum((first / both[0] - second / both[1])[on.order])
  return float(np.abs(below[:-1]) @ on.gaps)


def w1(a: np.ndarray, b: np.ndarray, weight_a: np.ndarray | None = None, weight_b: np.ndarray | None = None) -> float:
  """Exact W1 of two samples [n] and [m], in their unit, by weights of at least 0; None weighs all alike."""
  weight_a, weight_b = (np.ones(len(x)) if w is None else w for x, w in ((a, weight_a), (b, weight_b)))
  first, second = np.concatenate([weight_a, np.zeros(len(b))]), np.concatenate([np.zeros(len(a)), weight_b])
  return w1_on(line(np.concatenate([a, b]).astype(np.float64)), first, second)


def floor(real: Values, random: np.random.RandomState, draws: int = 20, size: int = 2000) -> np.ndarray:
  """W1 [draws] of two sets of `size` real events without common events; its mean is what a perfect model is expected to
  reach with as many events.

  Draws have common events where there are fewer than 2 size draws events. Raises ValueError for fewer than 2 size.
  """
  if real.num_events < 2 * size:
    raise ValueError(f"{real.num_events} events have no two parts of {size}")
  on, found = line(real.value), np.empty(draws)
  for k in range(draws):
    part = np.zeros(real.num_events)
    rows = random.permutation(real.num_events)[:2 * size]
    part[rows[:size]], part[rows[size:]] = 1, 2
    found[k] = w1_on(on, real.weight * (part == 1)[real.event], real.weight * (part == 2)[real.event])
  return found


def boot_w1(a: Values, b: Values, random: np.random.Generator, num_samples: int, num_batches: int) -> np.ndarray:
  """W1 [num_batches] of values of events that are drawn alike with replacement, first from a and then from b."""
  on, found, none = line(np.concatenate([a.value, b.value])), [], (np.zeros(len(a.value)), np.zeros(len(b.value)))
  for _ in range(num_batches):
    times = [np.bincount(random.choice(part.num_events, size=num_samples), minlength=part.num_events)[part.event]
             for part in (a, b)]
    found.append(w1_on(on, np.concatenate([times[0], none[1]]), np.concatenate([none[0], times[1]])))
  return np.array(found)


def masses(events: np.ndarray) -> np.ndarray:
  """Invariant mass [N] of all objects, without masses, of events [N, T, 3] of eta, phi and pT."""
  eta, phi, pt = np.moveaxis(np.asarray(events, np.float64), -1, 0)
  return kinematics.mass(kinematics.from_polar(pt, eta, phi, 0.0).sum(axis=1))


def w1m(real: np.ndarray, made: np.ndarray, random: np.random.Generator, num_samples: int = W1_SAMPLES,
        num_batches: int = W1_BATCHES) -> tuple[float, float]:
  """W1 of the masses of events [N, T, 3] of eta, phi and pT: (mean, standard deviation) over batches of events that are
  drawn with replacement.
  """
  both = [Values(masses(part), np.arange(len(part)), np.ones(len(part)), len(part)) for part in (real, made)]
  found = boot_w1(*both, random, num_samples, num_batches)
  return float(found.mean()), float(found.std())


def w1p(real: np.ndarray, made: np.ndarray, random: np.random.Generator, num_samples: int = W1_SAMPLES,
        num_batches: int = W1_BATCHES) -> tuple[np.ndarray, np.ndarray]:
  """W1 of each feature of objects of events [N, T, F]: (mean, standard deviation) [F], as of `w1m`. An object whose
  features are all 0 is none.
  """
  there = [np.nonzero(np.any(part != 0, axis=2)) for part in (real, made)]
  state, found = random.bit_generator.state, []
  for f in range(real.shape[2]):
    random.bit_generator.state = state  # all features are of the same events
    both = [Values(part[*at, f].astype(np.float64), at[0], np.ones(len(at[0])), len(part))
            for part, at in zip((real, made), there)]
    found.append(boot_w1(*both, random, num_samples, num_batches))
  return np.mean(found, axis=1), np.std(found, axis=1)


def polynomials(events: np.ndarray) -> np.ndarray:
  """The 36 energy flow polynomials [N, 36] of up to four edges of events [N, T, 3] of eta, phi and pT.

  That of a graph is the sum over objects at its vertices of the product of their pT and, for each edge, the distance of
  two of them in eta and phi; one of a graph in parts is the product of theirs.
  """
  eta, phi, pt = np.moveaxis(np.asarray(events, np.float64), -1, 0)
  found = []
  for start in range(0, len(pt), BLOCK):
    at = slice(start, start + BLOCK)
    apart = kinematics.distance(eta[at, :, None], phi[at, :, None], eta[at, None], phi[at, None])
    found.append(np.stack(graph_products(pt[at], apart), axis=1))
  return np.concatenate(found)


def graph_products(pt: np.ndarray, apart: np.ndarray) -> list[np.ndarray]:
  """[N] for each of the 36 graphs, from pT [N, T] and distances [N, T, T]."""
  powers = [None, apart]
  for _ in range(MOST_EDGES - 1):
    powers.append(powers[-1] * apart)

  def connected(graph: str) -> np.ndarray:
    edges = graph.split()
    pairs, vertices = sorted(set(edges)), sorted(set(graph) - {" "}) or ["a"]
    terms = ",".join([f"z{pair}" for pair in pairs] + [f"z{vertex}" for vertex in vertices])
    parts = [powers[edges.count(pair)] for pair in pairs] + [pt] * len(vertices)
    return np.einsum(f"{terms}->z", *parts, optimize="greedy")

  by_edges = {num: [connected(graph) for graph in graphs] for num, graphs in GRAPHS.items()}
  edge, pairs = by_edges[1][0], by_edges[2]
  doubles = [pairs[0] * pairs[0], pairs[0] * pairs[1], pairs[1] * pairs[1]]
  return [*by_edges[0], edge, *pairs, edge**2, *by_edges[3], *(part * edge for part in pairs), edge**3,
          *by_edges[4], *(part * edge for part in by_edges[3]), *doubles, *(part * edge**2 for part in pairs),
          edge**4]


def scaled(real: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Both sets of features [N, F] over the largest size of a real one."""
  most = np.abs(real).max(axis=0)
  most = np.where(most == 0, 1.0, most)
  return real / most, made / most


def frechet(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> np.ndarray:
  """Frechet distances [...] of Gaussians of means [..., F] and covariances [..., F, F]:
  |mean - mean'|^2 + tr(C + C' - 2 (C C')^(1/2)).
  """
  values, vectors = np.linalg.eigh(cov_a)
  root = (vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
  both = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum(axis=-1)
  trace = lambda matrix: np.trace(matrix, axis1=-2, axis2=-1)
  return np.square(mean_a - mean_b).sum(axis=-1) + trace(cov_a) + trace(cov_b) - 2 * both


def moments(x: np.ndarray, drawn: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Means [R, F] and covariances [R, F, F] of rows of x [N, F] that are drawn R times, each time those of an index."""
  N, F = x.shape
  times = np.stack([np.bincount(rows, minlength=N) / len(rows) for rows in drawn])
  centre = x.mean(axis=0)
  centred = x - centre
  mean = times @ centred
  square = (times @ (centred[:, :, None] * centred[:, None]).reshape(N, F * F)).reshape(-1, F, F)
  count = np.array([len(rows) for rows in drawn])[:, None, None]
  return mean + centre, (square - mean[:, :, None] * mean[:, None]) * (count / (count - 1))


def fpd(real: np.ndarray, made: np.ndarray, samples: tuple[int, int] = FPD_SAMPLES, num_points: int = FPD_POINTS,
        num_batches: int = FPD_BATCHES, seed: int = SEED) -> tuple[float, float]:
  """(Frechet physics distance, its uncertainty) of features [N, F]: the Frechet distance of Gaussians at samples of
  several sizes, drawn with replacement, extrapolated to infinite size.

  What few events add to the distance stays in it: equal distributions of N events have about 1 / N of their variance.
  """
  real, made = scaled(real, made)
  sizes = (1 / np.linspace(1 / samples[0], 1 / samples[1], num_points)).astype("int32")
  random, found = np.random.default_rng(seed), []
  for size in sizes:
    drawn = [[random.choice(len(part), size=size) for part in (real, made)] for _ in range(num_batches)]
    mean_a, cov_a = moments(real, [pair[0] for pair in drawn])
    found.append(frechet(mean_a, cov_a, *moments(made, [pair[1] for pair in drawn])).mean())
  value, covariance = optimize.curve_fit(lambda x, start, slope: start + slope * x, 1 / sizes, found,
                                         bounds=([0, 0], [np.inf, np.inf]))
  return float(value[0]), float(np.sqrt(covariance[0, 0]))


def kernel_sum(a: np.ndarray, times_a: np.ndarray, b: np.ndarray, times_b: np.ndarray) -> float:
  """Sum of the kernel (x y / F + 1)^4 over pairs of rows of a [n, F] and b [m, F] that count so many times each."""
  total = 0.0
  for start in range(0, len(a), ROWS):
    kernel = a[start:start + ROWS] @ b.T / a.shape[1] + 1.0
    np.square(kernel, out=kernel)
    np.square(kernel, out=kernel)
    total += times_a[start:start + ROWS] @ (kernel @ times_b)
  return float(total)


def discrepancy(a: np.ndarray, times_a: np.ndarray, b: np.ndarray, times_b: np.ndarray) -> float:
  """Unbiased squared mean discrepancy of that kernel, of rows that count so many times each: no row is paired with
  itself, but with its copies.
  """
  inside = 0.0
  for rows, times in ((a, times_a), (b, times_b)):
    own = times @ (np.square(rows).sum(axis=1) / a.shape[1] + 1.0)**4
    inside += (kernel_sum(rows, times, rows, times) - own) / (times.sum() * (times.sum() - 1))
  return inside - 2 * kernel_sum(a, times_a, b, times_b) / (times_a.sum() * times_b.sum())


def kpd(real: np.ndarray, made: np.ndarray, num_samples: int = KPD_SAMPLES, num_batches: int = KPD_BATCHES,
        seed: int = SEED) -> tuple[float, float]:
  """(kernel physics distance, its uncertainty) of features [N, F]: the median over batches of the unbiased squared mean
  discrepancy of a polynomial kernel, and half the distance of two percentiles.
  """
  both, found = scaled(real, made), []
  for k in range(num_batches):
    random = np.random.default_rng(seed + 1000 * k)
    drawn = [np.unique(random.choice(len(part), size=num_samples), return_counts=True) for part in both]
    (a, b), (times_a, times_b) = zip(*((part[rows], times.astype(float)) for part, (rows, times) in zip(both, drawn)))
    found.append(discrepancy(a, times_a, b, times_b))
  return float(np.median(found)), float(np.diff(np.percentile(found, KPD_SPREAD))[0] / 2)


def two_sample_auc(a: np.ndarray, b: np.ndarray, key: jax.Array, weight_a: np.ndarray | None = None,
                   weight_b: np.ndarray | None = None) -> tuple[float, float]:
  """(area under the curve of a classifier that tells rows of b [m, F] from rows of a [n, F], half width of its 95 %
  interval): 0.5 where it cannot.

  A small network is trained on a random half of each set, with its part STOPPING to choose the epoch, and judged on the
  other half. Both sets count alike in training, whatever their sizes. The interval is that of the judged rows and says
  nothing of the network's own variation.
  """
  parts_key, fit_key = jax.random.split(key)
  random = np.random.RandomState(np.asarray(jax.random.key_data(parts_key)).ravel().tolist())
  parts = ([], [], [])  # train, stop, judge: of (rows, weights) of a, then of b
  for rows, weight in ((a, weight_a), (b, weight_b)):
    weight = np.ones(len(rows)) if weight is None else np.asarray(weight, np.float64)
    order = random.permutation(len(rows))
    ends = (0, int((1 - STOPPING) * len(rows)) // 2, len(rows) // 2, len(rows))
    for part, start, end in zip(parts, ends, ends[1:]):
      part.append((rows[order[start:end]], weight[order[start:end]]))
  train, stop, judge = parts
  both = np.concatenate([rows for rows, _ in train])
  middle, spread = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-6)
  ready = lambda rows: jnp.asarray(np.clip((rows - middle) / spread, -10, 10), jnp.float32)
  columns = lambda part: (ready(np.concatenate([rows for rows, _ in part])),
                          jnp.concatenate([jnp.zeros(len(part[0][0])), jnp.ones(len(part[1][0]))]),
                          jnp.asarray(np.concatenate([weight / weight.sum() for _, weight in part]), jnp.float32))
  net = nets_mlp.MLP(HIDDEN, "gelu", "float32")
  params = fit_classifier(net, columns(train), columns(stop), fit_key)
  scores = [np.asarray(net.apply({"params": params}, ready(rows)), np.float64) for rows, _ in judge]
  return ranking.auroc(*scores, (judge[0][1], judge[1][1]), paired=False)


def fit_classifier(net: nets_mlp.MLP, train: tuple, stop: tuple, key: jax.Array):
  """Parameters after the epoch with the least weighted cross-entropy of `stop`.

  `train` and `stop` are (rows [n, F], targets [n], weights [n]); rows beyond the last whole batch of an epoch's order
  are left out of it.
  """
  def cost(params, rows, target, weight):
    out = net.apply({"params": params}, rows)
    return jnp.sum(weight * (jax.nn.softplus(out) - target * out))

  rows, target, weight = train
  num, size = len(rows), min(BATCH, len(rows))
  tx = optax.adamw(RATE, weight_decay=DECAY)

  def one_step(state, at):
    params, opt_state = state
    grads = jax.grad(cost)(params, rows[at], target[at], weight[at] * (num / size))
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), None

  def epoch(state, key):
    order = jax.random.permutation(key, num)[:num // size * size].reshape(-1, size)
    state, _ = jax.lax.scan(one_step, state, order)
    return state, (cost(state[0], *stop), state[0])

  first, then = jax.random.split(key)
  params = net.init(first, rows[:2])["params"]
  start = params, tx.init(params)
  _, (costs, found) = jax.jit(lambda start, keys: jax.lax.scan(epoch, start, keys))(
      start, jax.random.split(then, EPOCHS))
  return jax.tree.map(lambda part: part[jnp.argmin(costs)], found)
