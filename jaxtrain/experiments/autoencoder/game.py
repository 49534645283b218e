"""The game of an autoencoder and a critic of what comes back: losses of both sides, and what is measured of it.

A made event is what comes back of a real one with the decoder's noise; it keeps the types of the real one's objects.
Rows are weighted as those of the other losses.

Real events lie on thin surfaces: an azimuth's cos and sin have length 1, and the energy of a lepton follows from its
momentum. A critic that sees how far a made event is from a surface is always right and says nothing of the rest. So
the azimuths of made events are brought to length 1 before they are judged, and all events are blurred by Normal noise.

**Source:** noise on both sides: Sonderby et al. 2017 (Amortised MAP inference for image super-resolution), section 2.4;
Arjovsky & Bottou 2017 (Towards principled methods for training generative adversarial networks), section 3.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtrain import losses, rng, step
from jaxtrain.experiments.autoencoder import adversarial, nets, nets_critic, objective, scaling
from jaxtrain.experiments.autoencoder.nets_layers import Slots
from jaxtrain.experiments.autoencoder.problem import Output, Problem
from jaxtrain.types import Batch, Metrics, Over


class Game(NamedTuple):
  """What the losses of both sides need to know.

  Attributes:
    problem: of the autoencoder.
    critic: its network.
    settings: `config.model.critic`.
    last_layer: names on the way to the decoder's last layer among its parameters.
  """
  problem: Problem
  critic: nets_critic.Critic
  settings: Any
  last_layer: tuple[str, ...]

  @property
  def penalties(self) -> dict[str, float]:
    """The weight of each penalty of the critic's gradient that there is."""
    s = self.settings
    found = {"r1": s.r1_gamma / 2, "r2": s.r2_gamma / 2, "gradient_penalty": float(s.loss == "wgan_gp")}
    return {name: weight for name, weight in found.items() if weight}

  @property
  def critic_weights(self) -> dict[str, float]:
    """The weight of each term of the critic."""
    return {"critic_loss": 1.0} | self.penalties

  def judge(self, params: Any, slots: Slots) -> jax.Array:
    """Logits [B] of the critic of these parameters."""
    return self.critic.apply({"params": params}, slots)


def draw_blur(g: Game, key: jax.Array, num_rows: int) -> Batch:
  """The noise of real and of made events for the whole batch; nothing where there is none."""
  if not g.settings.noise:
    return {}
  cont_key, globals_key = jax.random.split(key)
  meta = g.problem.meta
  of_slots = (num_rows, 2, meta["num_slots"], meta["num_features"])
  return {"blur_cont": rng.normal(cont_key, of_slots),
          "blur_globals": rng.normal(globals_key, (num_rows, 2, len(meta["scaler"]["global_names"])))}


def both(g: Game, batch: Batch, out: Output) -> tuple[Slots, Slots]:
  """The real events of a batch and what came back of them, as the critic sees them."""
  real, scaler = nets.make_slots(batch), g.problem.meta["scaler"]
  made = real._replace(cont=scaling.on_circles(scaler["names"], out.decoded.cont),
                       globals=scaling.on_circles(scaler["global_names"], out.decoded.globals))
  if not g.settings.noise:
    return real, made
  blurred = lambda slots, k: slots._replace(cont=slots.cont + g.settings.noise * batch["blur_cont"][:, k],
                                            globals=slots.globals + g.settings.noise * batch["blur_globals"][:, k])
  return blurred(real, 0), blurred(made, 1)


def count_events(batch: Batch) -> jax.Array:
  """Real events of a batch, by their weights."""
  return jnp.sum(objective.row_weights(batch))


def verdict(g: Game, chunk: Batch, real: jax.Array, fake: jax.Array) -> Metrics:
  """What the critic says of real and of made events, by their logits [B]."""
  weight, events = objective.row_weights(chunk), count_events(chunk)
  rows = {"real_logit": real, "fake_logit": fake,
          "critic_accuracy": adversarial.accuracy_rows(g.settings.loss, real, fake)}
  return {name: (losses.sum_rows(weight, values), events) for name, values in rows.items()}


def critic_sums(g: Game, params: Any, state: Any, chunk: Batch, key: jax.Array) -> step.Chunk:
  """Terms of the critic, whose parameters are `params`; `chunk` has `between` [B] in 0..1 for the gradient penalty."""
  given = {"params": state.params["model"]}
  _, out = objective.through(g.problem, given, chunk, objective.codes_of(state), key)
  real, fake = both(g, chunk, out)
  judge = functools.partial(g.judge, params)
  of_real, of_fake = judge(real), judge(fake)
  rows = {"critic_loss": sum(adversarial.critic_rows(g.settings.loss, of_real, of_fake))}
  penalties = {"r1": lambda: adversarial.penalty_rows(judge, real), "r2": lambda: adversarial.penalty_rows(judge, fake),
               "gradient_penalty": lambda: adversarial.gradient_penalty_rows(judge, real, fake, chunk["between"])}
  rows |= {name: penalties[name]() for name in g.penalties}
  weight = objective.row_weights(chunk)
  return step.Chunk({name: losses.sum_rows(weight, values) for name, values in rows.items()},
                    metrics=verdict(g, chunk, of_real, of_fake))


def model_sums(g: Game, params: Any, state: Any, chunk: Batch, key: jax.Array) -> step.Chunk:
  """Terms of the autoencoder, whose parameters are `params`, the adversarial one among them."""
  p = g.problem
  found, out = objective.through(p, {"params": params}, chunk, objective.codes_of(state), key)
  sums = objective.sums_of(p, params, state, chunk, found, out)
  real, fake = (g.judge(state.params["critic"], slots) for slots in both(g, chunk, out))
  rows = adversarial.generator_rows(g.settings.loss, real, fake)
  return sums._replace(terms=sums.terms | {"adversarial": losses.sum_rows(objective.row_weights(chunk), rows)})


def model_counts(g: Game, batch: Batch) -> dict[str, jax.Array]:
  """What each term of the autoencoder is divided by."""
  return objective.term_counts(g.problem, batch) | {"adversarial": count_events(batch)}


def critic_counts(g: Game, batch: Batch) -> dict[str, jax.Array]:
  """What each term of the critic is divided by."""
  return dict.fromkeys(g.critic_weights, count_events(batch))


def find_last_layer(decoder: Any) -> tuple[str, ...]:
  """Where among the parameters of `config.model.decoder` its last layer is."""
  last = ("stack", f"layer_{len(decoder.hidden_dims)}") if decoder.kind == "mlp" else ("heads",)
  return "decoder", *last


def pick(tree: Any, path: tuple[str, ...]) -> Any:
  """What stands at a path of a tree of dicts."""
  return functools.reduce(lambda part, name: part[name], path, tree)


def with_part(tree: Any, path: tuple[str, ...], part: Any) -> Any:
  """The tree with another part at the path."""
  first, *rest = path
  return tree | {first: with_part(tree[first], tuple(rest), part) if rest else part}


def ratio_of_gradients(g: Game, state: Any, batch: Batch, key: jax.Array, over: Over) -> jax.Array:
  """The adaptive weight [] of a batch: gradients at the decoder's last layer, of all other terms by their weights over
  that of the adversarial one.
  """
  params, counts = state.params["model"], model_counts(g, batch)
  weight = objective.weights(g.problem, state) | {"adversarial": 1.0}
  def chunk_grads(chunk, chunk_key):
    def scaled(layer):
      terms = model_sums(g, with_part(params, g.last_layer, layer), state, chunk, chunk_key).terms
      scale = lambda name: weight[name] / jnp.maximum(counts[name], 1.0) * terms[name]
      return sum(scale(name) for name in g.problem.terms), scale("adversarial")
    _, pull = jax.vjp(scaled, pick(params, g.last_layer))
    one, none = jnp.ones(()), jnp.zeros(())
    return pull((one, none))[0], pull((none, one))[0]
  return adversarial.adaptive_weight(*over(chunk_grads, batch, key))


def evaluate_batch(g: Game, state: Any, batch: Batch, key: jax.Array, over: Over) -> Metrics:
  """Terms of an evaluation batch, and what the critic says of it."""
  p, params = g.problem, state.applied["model"]
  def chunk_sums(chunk, _):
    found, out = objective.through(p, {"params": params}, chunk, objective.codes_of(state))
    real, fake = (g.judge(state.params["critic"], slots) for slots in both(g, chunk, out))
    rows = {"critic_loss": sum(adversarial.critic_rows(g.settings.loss, real, fake)),
            "adversarial": adversarial.generator_rows(g.settings.loss, real, fake)}
    weight, events = objective.row_weights(chunk), count_events(chunk)
    return objective.evaluated(p, params, state, chunk, found, out) | verdict(g, chunk, real, fake) | {
        name: (losses.sum_rows(weight, values), events) for name, values in rows.items()}
  noise_key, blur_key, rows_key = jax.random.split(key, 3)
  B = len(batch["weight"])
  return over(chunk_sums, batch | objective.draw(p, noise_key, B) | draw_blur(g, blur_key, B), rows_key)
