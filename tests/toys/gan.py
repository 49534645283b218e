"""A generative adversarial network: two optimisers, several updates of the critic per step, each on fresh rows, and a
moving average of the generator alone.

**Source:** Goodfellow et al. 2014 (Generative adversarial nets), algorithm 1, with the loss of section 3 that does not
saturate; the moving average: Karras et al. 2018 (Progressive growing of GANs), section 4.1.
"""

import jax
import jax.numpy as jnp

from jaxtrain import losses, optim, rng, step
from jaxtrain.config import limits, optimiser
from jaxtrain.types import Experiment, Metric, TrainState
from toys import rows

NOISE_DIM, WIDTH = 2, 4
LIMITS = {"model.d_steps": limits.whole(1)}
METRICS = {"critic_loss": Metric("nats", "Loss of the critic per row.", "", 1.3863)}


def get_config(variant=""):
  """Two updates of the critic a step."""
  config = rows.short("toys.gan", 24)
  config.data.num_rows, config.train.num_epochs = 96, 10
  config.optim_critic = optimiser()
  config.optim_critic.learning_rate, config.optim_critic.schedule = 0.05, "cosine"
  config.optim.ema_decay = 0.9
  config.model = {"d_steps": 2}
  config.loss.weights = {"real": 1.0, "fake": 1.0, "fool": 1.0}
  return config


load = rows.load


def generate(params, z):
  """[B, D] rows from noise [B, L]."""
  return z @ params["w"] + params["b"][None]


def judge(params, x):
  """[B] logits: positive for rows that look real."""
  return (jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"])[:, 0]


def make(config, meta):
  """Both networks are a layer or two; `config` may hold tracers as learning rates."""
  tx, critic_tx = rows.optimiser_of(config.optim, meta), rows.optimiser_of(config.optim_critic, meta, "critic_")
  weights, num_parts = config.loss.weights, config.model.d_steps + 1

  def init(key, sample):
    k = [rng.step_key(rng.stream_key(key, "init"), i) for i in range(3)]
    D = rows.NUM_FEATURES
    params = {"generator": {"w": rows.matrix(k[0], NOISE_DIM, D), "b": jnp.zeros(D)},
              "critic": {"w": rows.matrix(k[1], D, WIDTH), "b": jnp.zeros(WIDTH), "v": rows.matrix(k[2], WIDTH, 1)}}
    opt_state = {"generator": tx.init(params["generator"]), "critic": critic_tx.init(params["critic"])}
    ema = {"generator": jax.tree.map(jnp.copy, params["generator"])}
    return TrainState(jnp.zeros((), jnp.int32), key, params, {}, opt_state, ema, step.init_guard())

  def critic_sums(params, state, chunk, key):
    fake = generate(state.params["generator"], chunk["z"])
    mean = lambda nats: losses.sum_rows(chunk["weight"], nats)
    return step.Chunk({"real": mean(jax.nn.softplus(-judge(params, chunk["x"]))),
                       "fake": mean(jax.nn.softplus(judge(params, fake)))})

  def fool_sums(params, state, chunk, key):
    logits = judge(state.params["critic"], generate(params, chunk["z"]))
    return step.Chunk({"fool": losses.sum_rows(chunk["weight"], jax.nn.softplus(-logits))})

  critic_gradient = step.make_gradient(
      critic_sums, lambda batch: {name: rows.count_rows(batch) for name in ("real", "fake")},
      lambda state: {"real": weights.real, "fake": weights.fake}, of=lambda state: state.params["critic"])
  fool_gradient = step.make_gradient(fool_sums, lambda batch: {"fool": rows.count_rows(batch)},
                                     lambda state: {"fool": weights.fool}, of=lambda state: state.params["generator"])

  def update(name, tx, gradient, state, batch, key, over):
    """The state after an update of one network, and its metrics."""
    found = gradient(state, batch, key, over)
    params, opt_state, seen = tx.update(found.grads, state.opt_state[name], state.params[name], state.step,
                                        found.metrics["loss"])
    state = state.replace(params=state.params | {name: params}, opt_state=state.opt_state | {name: opt_state})
    return state, found.metrics, step.counted(seen)

  def train_step(state, batch, key, over):
    batch = with_noise(batch, rng.step_key(key, num_parts))
    totals = []
    for k in range(config.model.d_steps):
      state, metrics, seen = update("critic", critic_tx, critic_gradient, state, step.part(batch, k, num_parts),
                                    rng.step_key(key, k), over)
      totals.append({f"critic_{name}": value for name, value in metrics.items()} | seen)
    state, metrics, seen = update("generator", tx, fool_gradient, state, step.part(batch, num_parts - 1, num_parts),
                                  rng.step_key(key, num_parts - 1), over)
    ema = {"generator": optim.update_ema(state.ema["generator"], state.params["generator"], config.optim.ema_decay)}
    return state.replace(step=state.step + 1, ema=ema), metrics | seen | jax.tree.map(lambda *x: sum(x), *totals)

  def eval_step(state, batch, key, over):
    state = state.replace(params=state.params | state.ema)
    sums = over(lambda chunk, k: fool_sums(state.params["generator"], state, chunk, k).terms, with_noise(batch, key),
                key)
    return {"loss": (sums["fool"], rows.count_rows(batch))}

  def observe(state, means):
    seen = {"generator": tx.observe(state.opt_state["generator"], means),
            "critic": critic_tx.observe(state.opt_state["critic"], means)}
    return state.replace(opt_state=seen)

  return Experiment(init, train_step, eval_step, observe=observe, batch_parts=num_parts)


def with_noise(batch, key):
  """The batch with noise `z` [B, L], drawn for all rows at once, so that it is the same however the batch is cut."""
  return batch | {"z": jax.random.normal(key, (len(batch["weight"]), NOISE_DIM))}
