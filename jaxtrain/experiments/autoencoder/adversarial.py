"""Losses of a critic and of what it judges, penalties of its gradient, and the adaptive weight: pure functions.

With r the critic's logit of a real event and f that of a made one, all are minimised:

  kind      the critic's loss                               the generator's loss
  hinge     relu(1 - r) + relu(1 + f)                       -f
  nonsat    softplus(-r) + softplus(f)                      softplus(-f)
  lsgan     (r - 1)^2 / 2 + f^2 / 2                         (f - 1)^2 / 2
  wgan_gp   f - r + 10 (|gradient| - 1)^2                   -f
  rpgan     softplus(f - r)                                 softplus(r - f)

A made event is the reconstruction of a real one, so that rows are pairs: rpgan compares the two of a row, and the
gradient penalty of wgan_gp is taken between them, slot by slot.

**Source:** hinge: Lim & Ye 2017 (Geometric GAN); nonsat: Goodfellow et al. 2014 (Generative adversarial nets), section
3; lsgan: Mao et al. 2017 (Least squares GANs), eq. 9; wgan_gp: Gulrajani et al. 2017 (Improved training of Wasserstein
GANs), eq. 3; rpgan: Jolicoeur-Martineau 2019 (The relativistic discriminator), in the form of Huang et al. 2024 (The
GAN is dead; long live the GAN!), eq. 2. R1 and R2: Mescheder et al. 2018 (Which training methods for GANs do actually
converge?), section 4.1. Adaptive weight: Esser et al. 2021 (Taming transformers), eq. 7.
"""

from typing import Any, Callable

import chex
import jax
import jax.numpy as jnp
import optax

from jaxtrain.experiments.autoencoder.nets_layers import Slots, only_real

KINDS = ("hinge", "nonsat", "lsgan", "wgan_gp", "rpgan")
PENALTY_WEIGHT = 10.0  # of the gradient penalty of wgan_gp: Gulrajani et al. 2017, section 4
TINY_SQUARE = 1e-12  # added to a squared norm, so that its root has a gradient at 0
TINY_NORM = 1e-6  # added to the norm of the adversarial gradient: delta of Esser et al. 2021, eq. 7
MOST_ADAPTIVE = 1e4  # the largest ratio of norms


def critic_rows(kind: str, real: jax.Array, fake: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The critic's loss of each row, without penalties, as a share of real events and one of made events, both [B].

  Args:
    kind: one of KINDS.
    real, fake: [B] logits of real events, and of what was made of the same ones.

  Returns:
    Two arrays [B] to add. Of rpgan, whose loss is one of pairs, each is a half.
  """
  check_pairs(kind, real, fake)
  if kind == "hinge":
    return jax.nn.relu(1 - real), jax.nn.relu(1 + fake)
  if kind == "nonsat":
    return jax.nn.softplus(-real), jax.nn.softplus(fake)
  if kind == "lsgan":
    return 0.5 * jnp.square(real - 1), 0.5 * jnp.square(fake)
  if kind == "wgan_gp":
    return -real, fake
  half = 0.5 * jax.nn.softplus(fake - real)
  return half, half


def generator_rows(kind: str, real: jax.Array, fake: jax.Array) -> jax.Array:
  """The loss [B] of what made the events, of the same arguments as `critic_rows`; only rpgan looks at real events."""
  check_pairs(kind, real, fake)
  if kind == "nonsat":
    return jax.nn.softplus(-fake)
  if kind == "lsgan":
    return 0.5 * jnp.square(fake - 1)
  return jax.nn.softplus(real - fake) if kind == "rpgan" else -fake


def accuracy_rows(kind: str, real: jax.Array, fake: jax.Array) -> jax.Array:
  """How much of a row the critic gets right [B]: 0, 1/2 or 1 of its two events, by the side of the threshold between
  what the loss asks of real and of made ones. Losses that look at differences alone ask for the larger logit of a pair.
  """
  check_pairs(kind, real, fake)
  if kind in ("wgan_gp", "rpgan"):
    return (real > fake).astype(jnp.float32)
  threshold = 0.5 if kind == "lsgan" else 0.0
  return 0.5 * ((real > threshold).astype(jnp.float32) + (fake < threshold).astype(jnp.float32))


def check_pairs(kind: str, real: jax.Array, fake: jax.Array) -> None:
  """Raises ValueError for a kind not in KINDS, AssertionError for logits that are no pairs."""
  if kind not in KINDS:
    raise ValueError(f"adversarial loss: got {kind!r}, allowed {', '.join(KINDS)}")
  chex.assert_rank([real, fake], 1)
  chex.assert_equal_shape([real, fake])


def penalty_rows(critic: Callable[[Slots], jax.Array], slots: Slots) -> jax.Array:
  """Squared norm [B] of the gradient of each event's logit, by the features of its objects and its globals.

  R1 is gamma / 2 times its mean over real events, R2 over made ones.

  Args:
    critic: `(slots) -> logits [B]`, each of its own row alone.
    slots: the events; what is in an empty slot has no gradient.
  """
  total = lambda cont, of_event: jnp.sum(critic(slots._replace(cont=cont, globals=of_event)))
  by_cont, by_event = jax.grad(total, argnums=(0, 1))(slots.cont, slots.globals)
  by_cont = only_real(by_cont, slots.mask)
  return jnp.sum(jnp.square(by_cont), axis=(1, 2)) + jnp.sum(jnp.square(by_event), axis=1)


def gradient_penalty_rows(critic: Callable[[Slots], jax.Array], real: Slots, fake: Slots, share: jax.Array
                          ) -> jax.Array:
  """PENALTY_WEIGHT (|gradient| - 1)^2 [B] at events between real and made ones, with `share` [B] in 0..1 of the real.

  Both have the same types in the same slots.
  """
  share = share[:, None]
  mix = lambda x, y, weight: weight * x + (1 - weight) * y
  between = real._replace(cont=mix(real.cont, fake.cont, share[..., None]),
                          globals=mix(real.globals, fake.globals, share))
  norm = jnp.sqrt(penalty_rows(critic, between) + TINY_SQUARE)
  return PENALTY_WEIGHT * jnp.square(norm - 1)


def adaptive_weight(rec_grads: Any, adv_grads: Any) -> jax.Array:
  """[] |rec_grads| / (|adv_grads| + TINY_NORM), at most MOST_ADAPTIVE, without a gradient.

  With it the adversarial loss moves the decoder's last layer as far as the others do.

  Args:
    rec_grads, adv_grads: gradients of the other terms, and of the adversarial one, by the parameters of that layer;
      over the whole batch.
  """
  ratio = optax.tree.norm(rec_grads) / (optax.tree.norm(adv_grads) + TINY_NORM)
  return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, MOST_ADAPTIVE))
