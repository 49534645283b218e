"""A vector-quantised autoencoder whose codes follow moving averages: they start from data, and dead ones are revived.

**Source:** van den Oord et al. 2017 (Neural discrete representation learning), appendix A.1, for the moving averages;
Zeghidour et al. 2021 (SoundStream), section III.C, for the start from data and the revival of dead codes.
"""

import jax
import jax.numpy as jnp

from jaxtrain import losses, rng, step
from jaxtrain.config import limits
from jaxtrain.types import Experiment, Metric, TrainState
from toys import rows

NUM_CODES, CODE_DIM = 4, 2
INIT_ROWS = 32
LIMITS = {"codes.decay": limits.between(0, 1), "codes.patience": limits.whole(1)}
METRICS = {"perplexity": Metric("", "Codes in use: exp of the entropy of their frequencies.", "higher", 1.0)}


def get_config(variant=""):
  """A code that no row has chosen for `codes.patience` steps is dead."""
  config = rows.short("toys.codebook")
  config.codes = {"decay": 0.8, "patience": 2}
  config.loss.weights = {"recon": 1.0, "commit": 0.25}
  return config


load = rows.load


def encode(params, x):
  """[B, L] latents."""
  return x @ params["tokeniser"]["w"]


def nearest(codes, z):
  """[B] int32, index of the nearest code."""
  return jnp.argmin(jnp.sum(jnp.square(z[:, None] - codes[None]), axis=-1), axis=-1)


def farthest_first(z, weight):
  """[K, L] rows: the first, then each time the one that is farthest from those chosen; only rows with a weight."""
  def choose(near, _):
    row = z[jnp.argmax(near)]
    return jnp.minimum(near, weight * jnp.sum(jnp.square(z - row[None]), axis=-1)), row
  near = jnp.zeros(len(z)).at[0].set(1.0)
  _, first = choose(near, None)
  near = weight * jnp.sum(jnp.square(z - first[None]), axis=-1)
  return jnp.concatenate([first[None], jax.lax.scan(choose, near, length=NUM_CODES - 1)[1]])


def make(config, meta):
  """Linear encoder and decoder. The codebook lives in `model_state` and holds float32, int32 and bfloat16 arrays, which
  are never averaged over chunks; the collection `stats` is.
  """
  tx, settings = rows.optimiser_of(config.optim, meta), config.codes

  def init(key, sample):
    k = [rng.step_key(rng.stream_key(key, "init"), i) for i in range(2)]
    params = {"tokeniser": {"w": rows.matrix(k[0], rows.NUM_FEATURES, CODE_DIM)},
              "decoder": {"w": rows.matrix(k[1], CODE_DIM, rows.NUM_FEATURES)}}
    codes = farthest_first(encode(params, sample["x"]), sample["weight"])
    book = {"codes": codes, "counts": jnp.ones(NUM_CODES), "sums": codes, "idle": jnp.zeros(NUM_CODES, jnp.int32),
            "start": codes.astype(jnp.bfloat16)}
    model_state = {"book": book, "stats": {"mean": jnp.zeros(rows.NUM_FEATURES)}}
    return TrainState(**rows.begin(key, params, tx, model_state=model_state))

  def quantise(params, state, chunk):
    """(latents, one-hot codes of the real rows, codes of the rows)."""
    codes, z = state.model_state["book"]["codes"], encode(params, chunk["x"])
    index = nearest(codes, z)
    return z, jax.nn.one_hot(index, NUM_CODES) * chunk["weight"][:, None], codes[index]

  def loss_sums(params, state, chunk, key):
    z, one_hot, q = quantise(params, state, chunk)
    through = z + jax.lax.stop_gradient(q - z)
    weight, still = chunk["weight"], jax.lax.stop_gradient(z)
    terms = {"recon": losses.sum_rows(weight, losses.squared_error(chunk["x"], through @ params["decoder"]["w"])),
             "commit": losses.sum_rows(weight, losses.squared_error(z, jax.lax.stop_gradient(q)))}
    mean = losses.sum_rows(weight, chunk["x"]) / jnp.maximum(jnp.sum(weight), 1.0)
    used = jnp.sum(one_hot, axis=0)
    return step.Chunk(terms, {"used": used, "sums": one_hot.T @ still, "fresh": chunk["pick"].T @ still},
                      {"stats": {"mean": 0.9 * state.model_state["stats"]["mean"] + 0.1 * mean}},
                      {"usage": (used, jnp.sum(weight))})

  gradient = step.make_gradient(loss_sums, lambda batch: {name: rows.count_rows(batch) for name in ("recon", "commit")},
                                lambda state: {"recon": config.loss.weights.recon,
                                               "commit": config.loss.weights.commit})

  def train_step(state, batch, key, over):
    found = gradient(state, batch | {"pick": picked(batch["weight"], rng.step_key(key, 0))}, rng.step_key(key, 1), over)
    params, opt_state, seen = tx.update(found.grads, state.opt_state, state.params, state.step, found.metrics["loss"])
    book, num_revived = follow(state.model_state["book"], found.sums, settings)
    new = state.replace(step=state.step + 1, params=params, opt_state=opt_state,
                        model_state=step.with_averages(state.model_state | {"book": book}, found.averages))
    return new, found.metrics | step.counted(seen | {"revived": num_revived})

  def eval_step(state, batch, key, over):
    def sums(chunk, k):
      _, one_hot, q = quantise(state.params, state, chunk)
      error = losses.squared_error(chunk["x"], q @ state.params["decoder"]["w"])
      return losses.sum_rows(chunk["weight"], error), jnp.sum(one_hot, axis=0)
    error, used = over(sums, batch, key)
    return {"loss": (error, rows.count_rows(batch)), "usage": (used, rows.count_rows(batch))}

  return Experiment(init, train_step, eval_step, summarise)


def picked(weight, key):
  """[B, K] one-hot leaf of the batch: K different real rows, drawn once for all chunks."""
  _, index = jax.lax.top_k(weight * jax.random.uniform(key, weight.shape, minval=0.5), NUM_CODES)
  return jax.nn.one_hot(index, len(weight)).T


def follow(book, sums, settings):
  """(the codebook after a step, how many codes were revived)."""
  decay, used = settings.decay, sums["used"]
  idle = jnp.where(used > 0, 0, book["idle"] + 1)
  dead = idle >= settings.patience
  counts = jnp.where(dead, 1.0, decay * book["counts"] + (1 - decay) * used)
  totals = jnp.where(dead[:, None], sums["fresh"], decay * book["sums"] + (1 - decay) * sums["sums"])
  moved = {"codes": totals / counts[:, None], "counts": counts, "sums": totals, "idle": jnp.where(dead, 0, idle)}
  return book | moved, jnp.sum(dead)


def summarise(totals):
  """What only the whole usage tells."""
  share = totals["usage"][0] / jnp.maximum(totals["usage"][1], 1.0)
  return {"perplexity": jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-9))))}
