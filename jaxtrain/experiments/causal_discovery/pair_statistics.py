"""Statistics of each ordered pair of variables (i, j) of a task, from sums over its rows.

Every variable is first brought to mean 0 and deviation 1 over the rows in which no variable was set. `basis` holds
functions of one variable, each standardised too; their products give correlations between any function of i and any
function of j. All statistics follow from such sums, so that no array of rows x variables x variables is made:

  linear         correlation r; partial correlation r given all others; of each also arcsinh(sqrt(n) |r| / 4), which
                 says how sure n rows make it: 1 / sqrt(n) is about its standard error
  moments        correlation of nonlinear functions of i with j, and of functions of i with functions of j
  residual       correlation of nonlinear functions of i with the residual of j in a linear regression on all others
  regression     share of j that a nonlinear regression on i alone leaves, and how the squared residual depends on |i|
  additive       what the functions of i add to a regression of j on functions of all others: gain, slope, share left
  interventions  mean, spread and cross moments of j in the rows in which i was set

Beside them stand what belongs to one variable (linear R2 on all others, skewness, kurtosis), and the number of rows. In
place of the R2 = 1 - 1 / ((1 + ridge) P_jj), P the inverse, stands 1 - 1 / P_jj = R2 - ridge (1 - R2), at least 0.

Rows in which a variable was set count in `interventions` alone. A row counts for a pair if both cells are observed.
Inverses are of correlations over such rows divided by the geometric mean of the two variables' counts: these matrices
have no negative eigenvalue. Their ridge is the number of predictors over 6 times the number of rows.

**Source:** partial correlation and regression from the inverse: Lauritzen 1996 (Graphical models), 5.1; additive
regression and its gains as a score of edges: Buhlmann, Peters & Ernest 2014 (CAM); E[f(x) y] with nonlinear f for the
direction: Hyvarinen & Smith 2013 (Pairwise likelihood ratios).
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain.experiments.causal_discovery.posterior import matmul

ROWS_AT_A_TIME = 1024  # of a task: more are summed chunk after chunk
VALUE, SQUARE, CUBE, TANH, ABSOLUTE = range(5)  # positions in the basis
NONLINEAR = (SQUARE, CUBE, TANH, ABSOLUTE)
ADDITIVE = (VALUE, SQUARE, TANH, ABSOLUTE)  # of the additive regression; the value comes first
CONSTANT = 1e-6  # deviation of a variable that counts as none; tables are standardised before
FARTHEST = 30.0  # values are cut so many deviations away: their powers have to stay numbers
TINY = 1e-3  # least deviation of a function of a variable: a square of +-1 has none
MOST = 5.0  # statistics without a bound are cut here
PAIR_RIDGE = 0.05  # of the regression on one variable
HIGHEST = jax.lax.Precision.HIGHEST


def basis(z: jax.Array) -> jax.Array:
  """[..., K]: functions of standardised values z [...]."""
  return jnp.stack([z, z * z, z ** 3 - 3.0 * z, jnp.tanh(1.5 * z), jnp.abs(z)], -1)


def sum_rows(function: Callable, *arrays: jax.Array) -> Any:
  """Sum over rows of `function`, which maps chunks of rows [m, ...] to sums; rows are added in their order.

  At most `ROWS_AT_A_TIME` rows are in work at a time. The last chunk is filled with zeros.
  """
  n = arrays[0].shape[0]
  if n <= ROWS_AT_A_TIME:
    return function(*arrays)
  turns = -(-n // ROWS_AT_A_TIME)
  fill = lambda x: jnp.pad(x, [(0, turns * ROWS_AT_A_TIME - n)] + [(0, 0)] * (x.ndim - 1))
  chunks = [fill(x).reshape(turns, ROWS_AT_A_TIME, *x.shape[1:]) for x in arrays]
  add = lambda total, chunk: (jax.tree.map(jnp.add, total, function(*chunk)), None)
  start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, *(x[0] for x in chunks)))
  return jax.lax.scan(add, start, chunks)[0]


def standard(functions: Callable, x: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and standard deviation [D, K] of functions(x) [n, D, K] over the rows of weight 1; x and weights [n, D]."""
  count = jnp.maximum(jnp.sum(weights, 0), 1.0)[:, None]
  mean = sum_rows(lambda x, w: jnp.sum(functions(x) * w[..., None], 0), x, weights) / count
  from_mean = lambda x, w: jnp.sum(jnp.square(functions(x) - mean[None]) * w[..., None], 0)
  return mean, jnp.sqrt(sum_rows(from_mean, x, weights) / count)


class Moments(NamedTuple):
  """What statistics are made of; rows with interventions count in the last two alone.

  Attributes:
    count: [D, D], rows in which both variables are observed, at least 1.
    cross: [K, K, D, D], correlation of function k of i with function l of j.
    third: [D, K, K], mean of k(i) l(i) |i|, functions standardised.
    mixed: [D, K, D], mean of k(i) |i| j, functions standardised.
    scale: [D, K], standard deviations of the functions of the standardised variables.
    powers: [D, 2], means of the third and of the fourth power: skewness and kurtosis.
    num_set: [D, D], rows in which i was set and j is observed.
    set_means: [4, D, D], means over those of j, j^2 - 1, i j, (i^2 - 1) j.
  """
  count: jax.Array
  cross: jax.Array
  third: jax.Array
  mixed: jax.Array
  scale: jax.Array
  powers: jax.Array
  num_set: jax.Array
  set_means: jax.Array


def moments(values: jax.Array, intervened: jax.Array, observed: jax.Array) -> Moments:
  """Moments of one task; all arguments are [n, D], `observed` is 0 where a cell is missing or padding."""
  values = jnp.where(observed > 0, values, 0.0)
  free = observed * jnp.all(intervened < 0.5, axis=1, keepdims=True)
  own = jnp.where(jnp.sum(free, 0) >= 2.0, free, observed * (1.0 - intervened))  # some tables hold no free rows
  mean, deviation = standard(lambda x: x[..., None], values, own)
  mean, deviation = mean[None, :, 0], deviation[None, :, 0]
  varies = (observed > 0) & (deviation > CONSTANT * (1.0 + jnp.abs(mean)))
  z = jnp.where(varies, jnp.clip((values - mean) / jnp.maximum(deviation, CONSTANT), -FARTHEST, FARTHEST), 0.0)
  centre, scale = standard(basis, z, free)

  def sums(z, free, intervened, observed):
    f = (basis(z) - centre[None]) / jnp.maximum(scale, TINY)[None] * free[..., None]
    m, D, K = f.shape
    product = lambda left, right: matmul(left.reshape(m, -1).T, right.reshape(m, -1))
    size, chosen, spread = f[..., ABSOLUTE], intervened * observed, (jnp.square(z) - 1.0) * observed
    return {"count": product(free, free), "cross": product(f, f).reshape(D, K, D, K),
            "third": jnp.einsum("nik,nil,ni->ikl", f, f, size, precision=HIGHEST),
            "mixed": product(f * size[..., None], f[..., VALUE]).reshape(D, K, D),
            "powers": jnp.stack([jnp.sum(z ** power * free, 0) for power in (3, 4)], -1),
            "num_set": product(chosen, observed),
            "set_means": jnp.stack([product(chosen, z), product(chosen, spread), product(chosen * z, z),
                                    product(chosen * spread, z)])}

  found = sum_rows(sums, z, free, intervened, observed)
  count = jnp.maximum(found["count"], 1.0)
  own = jnp.diagonal(count)
  return Moments(count, jnp.transpose(found["cross"] / count[:, None, :, None], (1, 3, 0, 2)),
                 found["third"] / own[:, None, None], found["mixed"] / count[:, None, :], scale,
                 found["powers"] / own[:, None], found["num_set"],
                 found["set_means"] / jnp.maximum(found["num_set"], 1.0)[None])


class Statistics(NamedTuple):
  """Lists of [D, D]: those that are the same for (i, j) and (j, i), and those that are not."""
  both: list[jax.Array]
  each: list[jax.Array]


def invert(x: jax.Array) -> jax.Array:
  """Inverse of positive definite matrices [..., D, D] by Gauss-Jordan elimination, which needs no pivots for them.

  All matrices go through each step together: for many small ones that takes less time than a library call for each, and
  a fifth of the time to compile.
  """
  D = x.shape[-1]
  def eliminate(k, x):
    chosen = jnp.arange(D) == k
    row, column = jnp.take(x, k, axis=-2), jnp.take(x, k, axis=-1)
    pivot = 1.0 / jnp.take(row, k, axis=-1)[..., None]
    row = jnp.where(chosen, 1.0, row) * pivot
    column = jnp.where(chosen, -1.0, column)
    return jnp.where(chosen[:, None] | chosen[None, :], 0.0, x) - column[..., :, None] * row[..., None, :]
  return jax.lax.fori_loop(0, D, eliminate, x)


def unit_diagonal(x: jax.Array, value: float | jax.Array = 1.0) -> jax.Array:
  """x [D, D] with its diagonal replaced."""
  eye = jnp.eye(len(x))
  return x * (1.0 - eye) + value * eye


def shrunk(m: Moments, functions: tuple[int, ...], node_mask: jax.Array) -> jax.Array:
  """Correlations [D K, D K] of functions, without a negative eigenvalue and with their ridge on the diagonal."""
  own = jnp.diagonal(m.count)
  D, K, share = len(own), len(functions), m.count / jnp.sqrt(own[:, None] * own[None, :])
  picked = jnp.asarray(functions)
  joint = m.cross[picked][:, picked] * share[None, None]
  ridge = jnp.clip(K * jnp.sum(node_mask) / (6.0 * jnp.max(own)), 1e-3, 1.0)
  return unit_diagonal(jnp.transpose(joint, (2, 0, 3, 1)).reshape(D * K, D * K), 1.0 + ridge)


def linear(m: Moments, precision: jax.Array) -> Statistics:
  """Correlation and partial correlation r, their sizes, and arcsinh(sqrt(n) |r| / 4) of both."""
  own = jnp.diagonal(precision)
  r, partial = unit_diagonal(m.cross[VALUE, VALUE]), unit_diagonal(-precision / jnp.sqrt(own[:, None] * own[None, :]))
  in_errors = lambda r: jnp.arcsinh(jnp.sqrt(m.count) * jnp.abs(r) / 4.0)
  return Statistics([r, jnp.abs(r), in_errors(r), partial, jnp.abs(partial), in_errors(partial)], [])


def of_functions(m: Moments, precision: jax.Array) -> Statistics:
  """Correlations of functions of both, and of nonlinear functions of one with the other."""
  del precision
  return Statistics([m.cross[k, k] for k in (SQUARE, TANH, ABSOLUTE)], [m.cross[k, VALUE] for k in NONLINEAR])


def residual(m: Moments, precision: jax.Array) -> Statistics:
  """Correlations of nonlinear functions of i with the residual of j given all others, sum_k precision_jk k."""
  r = unit_diagonal(m.cross[VALUE, VALUE])
  deviation = jnp.sqrt(jnp.maximum(jnp.sum(precision * matmul(r, precision), 0), 1e-6))
  return Statistics([], [matmul(m.cross[k, VALUE], precision) / deviation[None] for k in NONLINEAR])


def regression(m: Moments, precision: jax.Array) -> Statistics:
  """Share of the variance of j that a regression on all functions of i leaves; mean of its squared residual times |i|.
  """
  del precision
  own = jnp.transpose(jnp.diagonal(m.cross, axis1=2, axis2=3), (2, 0, 1))  # [D, K, K]
  with_j = jnp.transpose(m.cross[:, VALUE], (1, 0, 2))  # [i, K, j]
  slopes = matmul(invert(own + PAIR_RIDGE * jnp.eye(own.shape[1])[None]), with_j)
  squared = lambda matrix: jnp.sum(slopes * matmul(matrix, slopes), 1)
  left = 1.0 - 2.0 * jnp.sum(slopes * with_j, 1) + squared(own)
  depends = m.cross[ABSOLUTE, SQUARE] * m.scale[None, :, SQUARE] - 2.0 * jnp.sum(slopes * m.mixed, 1) + squared(m.third)
  return Statistics([], [left, depends])


def additive(m: Moments, node_mask: jax.Array) -> Statistics:
  """Regression of each j on functions of all others, from one inverse.

  The functions of j itself but its value are marginalised out of the inverse by a Schur complement. Row j of what is
  left holds j's slopes on all others; the block of i says by how much its functions, removed, raise j's residual.

  Returns:
    Of each pair: log of j's residual variance without i over that with it; the logarithm of this; the slope on the
    value of i; and the log of j's residual variance.
  """
  K, D = len(ADDITIVE), len(node_mask)
  inverse = invert(shrunk(m, ADDITIVE, node_mask)).reshape(D, K, D, K)
  own = jnp.transpose(jnp.diagonal(inverse, axis1=0, axis2=2), (2, 0, 1))  # [D, K, K]
  rest = inverse[:, 1:].reshape(D, K - 1, D * K)
  solved = matmul(invert(own[:, 1:, 1:]), rest)
  row = inverse[:, 0].reshape(D, D * K) - jnp.sum(own[:, 0, 1:, None] * solved, 1)
  row = row.reshape(D, D, K)  # [j, i, K]
  own_row = jnp.sum(row[..., 0] * jnp.eye(D), 1)  # 1 / residual variance of j
  split = lambda x: jnp.swapaxes(x.reshape(D, K - 1, D, K), 1, 2)
  blocks = own[None] - matmul(jnp.swapaxes(split(rest), 2, 3), split(solved))  # [j, i, K, K]
  eye = jnp.eye(D)[..., None, None]
  blocks = blocks * (1.0 - eye) + eye * jnp.eye(K)[None, None]
  ratio = jnp.sum(row * matmul(invert(blocks), row[..., None])[..., 0], -1) / own_row[:, None]
  gain = unit_diagonal(-jnp.log(jnp.clip(1.0 - ratio, TINY, 1.0)), 0.0)
  slope = unit_diagonal(-row[..., 0] / own_row[:, None], 0.0)
  left = jnp.broadcast_to(-jnp.log(jnp.maximum(own_row, TINY))[:, None], gain.shape)
  return Statistics([], [gain.T, jnp.log(gain.T + TINY), slope.T, left.T])


def interventions(m: Moments) -> Statistics:
  """Moments of j in the rows in which i was set, and the number of these rows."""
  return Statistics([], [*m.set_means, jnp.log1p(m.num_set)])


GROUPS = ("linear", "moments", "residual", "regression", "additive", "interventions")


def of_task(values: jax.Array, intervened: jax.Array, observed: jax.Array, node_mask: jax.Array,
            groups: tuple[str, ...]) -> jax.Array:
  """Statistics [D, D, F] of one task; F depends on `groups` alone. Arguments as of `of_tasks`."""
  real = node_mask > 0
  m = moments(values, jnp.where(real[None], intervened, 0.0), jnp.where(real[None], observed, 0.0))
  precision = invert(shrunk(m, (VALUE,), node_mask))
  makers = {"linear": lambda: linear(m, precision), "moments": lambda: of_functions(m, precision),
            "residual": lambda: residual(m, precision), "regression": lambda: regression(m, precision),
            "additive": lambda: additive(m, node_mask), "interventions": lambda: interventions(m)}
  found = [makers[group]() for group in groups]
  across = lambda node: jnp.broadcast_to(node[:, None], m.count.shape)
  both = [jnp.eye(len(node_mask)), jnp.log(m.count / 100.0), *(x for one in found for x in one.both)]
  each = [across(1.0 - 1.0 / jnp.maximum(jnp.diagonal(precision), 1.0)), across(jnp.abs(m.powers[:, 0])),
          across(jnp.log(m.powers[:, 1] + TINY)), *(x for one in found for x in one.each)]
  each = jnp.stack(each, -1)
  joined = jnp.concatenate([jnp.stack(both, -1), each, jnp.swapaxes(each, 0, 1)], -1)
  pair = real[:, None, None] & real[None, :, None]
  return jnp.where(pair, jnp.clip(joined, -MOST, MOST), 0.0)


def of_tasks(values: jax.Array, intervened: jax.Array, observed: jax.Array, node_mask: jax.Array,
             groups: tuple[str, ...]) -> jax.Array:
  """Statistics of all ordered pairs, 0 where either variable is padding.

  Args:
    values, intervened, observed: [B, n, D]; where `observed` is 0 the cell is missing, whatever stands there.
    node_mask: [B, D].
    groups: of `GROUPS`.

  Returns:
    [B, D, D, F] float32.
  """
  return jax.vmap(lambda *task: of_task(*task, groups))(values, intervened, observed, node_mask)
