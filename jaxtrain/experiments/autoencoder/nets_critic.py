"""A critic of events: one logit for an event, whatever the order of its objects.

A set transformer over the slots that hold an object, the mean of its output over them, and an MLP of this mean and of
what an event has as a whole: its globals and how many objects it has. An event of no object is judged by these alone.

**Source:** Goodfellow et al. 2014 (Generative adversarial nets). Set transformer: Lee et al. 2019 (Set transformer).
Pooling by a mean: Zaheer et al. 2017 (Deep sets), theorem 2.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtrain.errors import UserError
from jaxtrain.experiments.autoencoder.nets_layers import Inputs, Manner, Slots, Stack, masked_mean, only_real
from jaxtrain.experiments.autoencoder.nets_sets import SetTransformer


class Critic(nn.Module):
  """Whether events look real: `critic(slots) -> logits [B]`, float32; a large one says that an event is real.

  Attributes:
    num_types, embed_dim: of the types' embedding.
    hidden_dims: the first is the width of the set transformer's stream, the last that of its layers; all of them are
      the widths of the MLP of the event.
    num_blocks, num_heads: of the set transformer.
    manner: of the layers.
  """
  num_types: int
  embed_dim: int
  hidden_dims: tuple[int, ...]
  num_blocks: int
  num_heads: int
  manner: Manner

  @nn.compact
  def __call__(self, slots: Slots) -> jax.Array:
    chex.assert_rank([slots.cont, slots.ids, slots.globals, slots.mask], [3, 2, 2, 2])
    mask = slots.mask
    slots = slots._replace(cont=only_real(slots.cont, mask), ids=jnp.where(mask > 0, slots.ids, 0))
    count = jnp.sum(mask, axis=1, keepdims=True)
    whole = jnp.concatenate([slots.globals, jnp.log1p(count)], axis=-1)
    x = Inputs(self.num_types, self.embed_dim, self.manner.precision, name="inputs")(slots)
    net = SetTransformer(self.hidden_dims, self.num_blocks, self.num_heads, self.manner, name="transformer")
    h = masked_mean(only_real(net(x, mask, whole, None), mask), mask)
    logits = Stack(self.hidden_dims, 1, self.manner, name="event")(jnp.concatenate([h, whole], axis=-1))
    return logits[:, 0].astype(jnp.float32)


def build_critic(settings: Any, meta: dict, precision: str) -> Critic:
  """The critic of `config.model` for events of `meta`, computed in the dtype named `precision`; it drops nothing.

  Raises UserError where `config.model.critic` does not fit itself, or the data are no events.
  """
  part = settings.critic
  if meta["kind"] != "events":
    raise UserError(f"config.data.source: got {meta['kind']}, allowed events, which the critic judges")
  if not part.hidden_dims:
    raise UserError("config.model.critic.hidden_dims: got none, the critic needs the width of its stream")
  if part.hidden_dims[0] % part.num_heads:
    raise UserError(f"config.model.critic.num_heads: got {part.num_heads}, allowed divisors of the first width "
                    f"{part.hidden_dims[0]}")
  return Critic(meta["num_types"], settings.encoder.embed_dim, tuple(part.hidden_dims), part.num_blocks, part.num_heads,
                Manner(settings.activation, 0.0, precision))
