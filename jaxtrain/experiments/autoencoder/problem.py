"""An autoencoder as its loss, its evaluation and its verbs take it: its networks with all that is known of them, and
what comes out of them.
"""

import math
from typing import Any, Callable, NamedTuple

import jax

from jaxtrain.experiments.autoencoder import denoising, latents, nets, nets_images
from jaxtrain.types import Batch


class Output(NamedTuple):
  """What a term or a metric of the user's own sees beside the batch.

  Attributes:
    decoded: what the decoder says of the slots; of images their logits [B, H, W, 1].
    z: [B, S, L], the latents that it was given.
    index: [B, S, Q] int32, their codes; None where there are none.
    mask: [B, S], 1 for latents of something that is there.
    error: [B], `denoise` of an event, where `decoded` says what noisy objects are taken for; None elsewhere.
  """
  decoded: Any
  z: jax.Array
  index: jax.Array | None
  mask: jax.Array
  error: jax.Array | None


class Problem(NamedTuple):
  """What the loss needs to know.

  Attributes:
    model: the networks.
    plan: what its latents are.
    loss: `config.loss`; its weights may be tracers.
    meta: of the data.
    legacy: whether the loss is the original's.
    draws: whether the decoder reads noise.
    prior_steps: from noise to the latent of a new event.
    denoising: how the decoder denoises; None of others.
    extra_terms, extra_metrics: the user's own functions by name.
  """
  model: nets.Assembly | nets_images.ImageAssembly
  plan: latents.Plan
  loss: Any
  meta: dict
  legacy: bool
  draws: bool
  prior_steps: int
  denoising: denoising.Denoising | None
  extra_terms: dict[str, Callable]
  extra_metrics: dict[str, Callable]

  @property
  def of_images(self) -> bool:
    """Whether the data are images."""
    return self.meta["kind"] == "images"

  @property
  def decodes_types(self) -> bool:
    """Whether types, and which slots hold an object, come back; otherwise they are taken over."""
    return not (self.of_images or self.legacy or self.model.given_types)

  @property
  def has_prior(self) -> bool:
    """Whether a prior of the event's latent is trained beside."""
    return not self.of_images and self.model.prior is not None

  @property
  def has_event(self) -> bool:
    """Whether the event as a whole has a latent, the last one."""
    return not self.of_images and self.model.event_dims is not None

  @property
  def terms(self) -> tuple[str, ...]:
    """Names of the loss's terms."""
    of_objects = "denoise" if self.denoising else "cont"
    of_events = (of_objects, *(("id", "exists") if self.decodes_types else ()), "globals")
    own = {"vq": ("commitment",), "rvq": ("commitment",), "vae": ("kl",), "own": ("commitment", "kl")}
    return (*(("image",) if self.of_images else of_events), *(own[self.plan.kind] if self.plan.kind in own else ()),
            *(("prior",) if self.has_prior else ()), *self.extra_terms)

  @property
  def judged(self) -> tuple[str, ...]:
    """Names of the terms of an evaluation's loss, which say how an event comes back and what it costs. The distance
    from codes does neither, and grows while events come back better; the original's loss has it. The prior's loss is
    about new events.
    """
    return tuple(name for name in self.terms if name != "prior" and (name != "commitment" or self.legacy))

  @property
  def num_latents(self) -> int:
    """S."""
    if self.of_images:
      return math.prod(self.meta["image_shape"][:2]) // nets_images.SHRINK**2
    return 1 if self.model.given_types else self.meta["num_slots"] + self.has_event

  @property
  def count_bits(self) -> float:
    """What it costs to say how many objects an event has."""
    return 0.0 if self.of_images else math.log2(self.meta["num_slots"] + 1)

  def input_of(self, batch: Batch) -> Any:
    """What the encoder reads of a batch."""
    return batch["image"] if self.of_images else nets.make_slots(batch)
