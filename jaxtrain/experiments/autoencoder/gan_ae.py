"""An autoencoder of events whose reconstructions a critic judges beside: an experiment with two optimisers.

A step divides its batch into `d_steps` parts for as many updates of the critic and one for the other networks, so that
each update sees rows of its own. A made event is what comes back of a real one with the decoder's noise, which a
decoder of the kind `gan` reads; it keeps the types of its objects. To the loss of `objective` comes

  adversarial   the loss that the critic's verdict makes, by `adversarial`; 0 before `start_step`

whose weight is `lambda_adv`, and with `adaptive` that times the ratio of gradients at the decoder's last layer. Up to
`start_step` the critic stays as it is. The moving average is of the autoencoder alone.

**Source:** Esser et al. 2021 (Taming transformers for high-resolution image synthesis), eq. 5 to 7; the moving average:
Karras et al. 2018 (Progressive growing of GANs), section 4.1.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain import optim, rng, step
from jaxtrain.config import limits
from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder import adversarial, ae, evaluate, game, nets_critic, objective, training
from jaxtrain.experiments.autoencoder.problem import Problem
from jaxtrain.types import Batch, Experiment, Metric, Over, TrainState

INIT_ROWS = ae.INIT_ROWS
CODE = ae.CODE
TRACEABLE = (*ae.TRACEABLE, "model.critic.lambda_adv")
METRICS = ae.METRICS | {
    "critic_loss": Metric("", "loss of the critic, without penalties of its gradient"),
    "adversarial": Metric("", "loss that the critic's verdict makes"),
    "adversarial_weight": Metric("", "weight of the adversarial loss"),
    "real_logit": Metric("", "logit of the critic for real events, mean"),
    "fake_logit": Metric("", "logit of the critic for events that came back, mean"),
    "critic_accuracy": Metric("", "share of events that the critic takes for what they are", "", 0.5),
    "r1": Metric("", "squared gradient of the critic's logit at real events, mean"),
    "r2": Metric("", "squared gradient of the critic's logit at events that came back, mean"),
    "gradient_penalty": Metric("", "squared distance of the norm of the critic's gradient from 1, times 10, mean"),
    "critic_lr": Metric("", "learning rate of the critic"),
    "critic_grad_norm": Metric("", "norm of the critic's gradient before clipping"),
}
TAKEN = (*METRICS, *ae.TAKEN)
LIMITS = ae.LIMITS | {
    "model.critic.loss": limits.one_of(*adversarial.KINDS),
    "model.critic.hidden_dims": limits.each(limits.whole(1, limits.MOST_WIDTH), 1, limits.MOST_DEPTH),
    "model.critic.num_blocks": limits.whole(1, 64),
    "model.critic.num_heads": limits.whole(1, 64),
    "model.critic.r1_gamma": limits.at_least(0),
    "model.critic.r2_gamma": limits.at_least(0),
    "model.critic.noise": limits.at_least(0),
    "model.critic.lambda_adv": limits.at_least(0),
    "model.critic.adaptive": limits.switch(),
    "model.critic.start_step": limits.whole(0),
    "model.critic.d_steps": limits.whole(1, 64),
}
SURE = 0.99  # accuracy of a critic that events are too easy for

load = ae.load


def autoencoder_of(state: Any) -> Any:
  """The state without its critic, as what assesses and applies an autoencoder takes it."""
  return state.replace(params=state.params["model"], ema=None if state.ema is None else state.ema["model"])


def of_autoencoder(function):
  """A function whose first argument is a state of an autoencoder, for states with a critic."""
  return lambda state, *more: function(autoencoder_of(state), *more)


def alarms(p: Problem, means: dict[str, float]) -> list[str]:
  """What has degenerated: as of any autoencoder, and a critic that the game is too easy for."""
  found = evaluate.alarms(p, means)
  if "val_critic_accuracy" in means and means["val_critic_accuracy"] > SURE:
    found.append(f"the critic tells {means['val_critic_accuracy']:.1%} of events that came back from real ones: its "
                 "verdict hardly says how to do better; a larger model.critic.r1_gamma makes it smoother")
  return found


def make_problem(config, meta) -> Problem:
  """The autoencoder of a config and the meta of its data. Raises UserError."""
  return ae.make_problem(config, meta, TAKEN)


def make_game(config, meta) -> game.Game:
  """The autoencoder and its critic. Raises UserError."""
  if config.model.critic.adaptive and config.model.decoder.own:
    raise UserError("config.model.critic.adaptive: got True with a decoder of your own, allowed False: it compares "
                    "gradients at the last layer, which is known of the decoders that are built in")
  critic = nets_critic.build_critic(config.model, meta, config.train.precision)
  return game.Game(make_problem(config, meta), critic, config.model.critic, game.find_last_layer(config.model.decoder))


def make_train_step(g: game.Game, config, tx: optim.Optimizer, critic_tx: optim.Optimizer):
  """Returns pure `train_step(state, batch, key, over) -> (state, metrics)`."""
  p, s = g.problem, config.model.critic
  num_parts = s.d_steps + 1
  critic_gradient = step.make_gradient(
      functools.partial(game.critic_sums, g), functools.partial(game.critic_counts, g), lambda state: g.critic_weights,
      of=lambda state: state.params["critic"])

  def update_critic(state, rows, key, over, is_last):
    """(state after an update of the critic, its metrics)."""
    draws_key, between_key, blur_key, rows_key = jax.random.split(key, 4)
    B = len(rows["weight"])
    rows = rows | objective.draw(p, draws_key, B) | game.draw_blur(g, blur_key, B)
    if s.loss == "wgan_gp":
      rows |= {"between": jax.random.uniform(between_key, rows["weight"].shape)}
    found = critic_gradient(state, rows, rows_key, over)
    old = state.params["critic"], state.opt_state["critic"]
    *new, seen = critic_tx.update(found.grads, old[1], old[0], state.step, found.metrics["loss"], is_last)
    params, opt_state = jax.tree.map(lambda x, y: jnp.where(state.step >= s.start_step, x, y), tuple(new), old)
    state = state.replace(params=state.params | {"critic": params}, opt_state=state.opt_state | {"critic": opt_state})
    return state, {name: value for name, value in found.metrics.items() if name != "loss"} | step.counted(seen)

  def update_model(state, rows, key, over):
    """(state after an update of the autoencoder, its metrics)."""
    draws_key, blur_key, rows_key = jax.random.split(key, 3)
    rows = training.with_draws(p, rows, draws_key) | game.draw_blur(g, blur_key, len(rows["weight"]))
    weight = jnp.where(state.step >= s.start_step, s.lambda_adv, 0.0)
    if s.adaptive:
      weight = weight * game.ratio_of_gradients(g, state, rows, rows_key, over)
    gradient = step.make_gradient(
        functools.partial(game.model_sums, g), functools.partial(game.model_counts, g),
        lambda state: objective.weights(p, state) | {"adversarial": weight}, of=lambda state: state.params["model"])
    found = gradient(state, rows, rows_key, over)
    params, opt_state, seen = tx.update(found.grads, state.opt_state["model"], state.params["model"], state.step,
                                        found.metrics["loss"])
    ema = None if state.ema is None else {
        "model": optim.update_ema(state.ema["model"], params, config.optim.ema_decay)}
    state = state.replace(params=state.params | {"model": params}, opt_state=state.opt_state | {"model": opt_state},
                          model_state=training.follow(p, state.model_state, found, rows, config.model.latent), ema=ema)
    return state, found.metrics | step.counted(seen | {"adversarial_weight": weight})

  def train_step(state, batch, key, over: Over):
    seen = []
    for k in range(s.d_steps):
      state, metrics = update_critic(state, step.part(batch, k, num_parts), rng.step_key(key, k), over,
                                     k == s.d_steps - 1)
      seen.append(metrics)
    state, metrics = update_model(state, step.part(batch, s.d_steps, num_parts), rng.step_key(key, s.d_steps), over)
    return state.replace(step=state.step + 1), metrics | jax.tree.map(lambda *x: sum(x), *seen)

  return train_step


def notes(p: Problem, config, meta) -> tuple[str, ...]:
  """What of the config has no effect, or less than its words say."""
  said, start = list(training.note_no_prior(p)), config.model.critic.start_step
  said += training.note_no_noise(p, config.model.decoder)
  steps = config.train.num_steps or config.train.num_epochs * meta["steps_per_epoch"]
  if start >= steps:
    said.append(f"config.model.critic.start_step={start:,} is not before the end of the run's {steps:,} steps: the "
                "critic has no say")
  return tuple(said)


def make(config, meta) -> Experiment:
  """The experiment's pure functions. Learning rates, loss weights and `lambda_adv` may be tracers."""
  g = make_game(config, meta)
  p = g.problem
  tx = optim.make(config.optim, meta["steps_per_epoch"])
  critic_tx = optim.make(config.optim_critic, meta["steps_per_epoch"], "critic_")

  def init(key, sample: Batch):
    params_key, codes_key, critic_key = jax.random.split(rng.stream_key(key, "init"), 3)
    params, followed = training.start(p, params_key, codes_key, sample)
    first = jax.tree.map(lambda leaf: leaf[:2], p.input_of(sample))
    critic = g.critic.init(critic_key, first)["params"]
    ema = {"model": jax.tree.map(jnp.copy, params)} if config.optim.ema_decay else None
    return TrainState(step=jnp.zeros((), jnp.int32), key=key, params={"model": params, "critic": critic},
                      model_state=followed, opt_state={"model": tx.init(params), "critic": critic_tx.init(critic)},
                      ema=ema, guard=step.init_guard())

  def observe(state, means):
    return state.replace(opt_state={"model": tx.observe(state.opt_state["model"], means),
                                    "critic": critic_tx.observe(state.opt_state["critic"], means)})

  judged = training.judged(p)
  judged |= {"eval_step": functools.partial(game.evaluate_batch, g), "alarms": functools.partial(alarms, p),
             "assess": {name: of_autoencoder(part) for name, part in judged["assess"].items()},
             "predict": {name: verb._replace(run=of_autoencoder(verb.run)) for name, verb in judged["predict"].items()}}
  return Experiment(init=init, train_step=make_train_step(g, config, tx, critic_tx), observe=observe,
                    notes=notes(p, config, meta),
                    batch_parts=config.model.critic.d_steps + 1, **judged)
