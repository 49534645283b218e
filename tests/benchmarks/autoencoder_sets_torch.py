"""The networks of gan_ae and diffusion_ae in PyTorch: those of jaxtrain with one latent an event, module for module.

Modules have the names of the parameters of jaxtrain's networks, so that these can be put in: a test does, and compares
what comes out. Slots of mask 0 hold nothing and have no part in what comes out of others.

`settings` of a network is a dict: `model` of the config, and of the data `num_features`, `num_types`, `num_globals`.
Encoders are of the kinds mlp, gan and diffusion, decoders of gan and diffusion, latents of none, linear and vae.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

WAVES = tuple(2.0**k for k in range(-1, 5))
LEAST_LOG_SIGMA = -6.2
MASKED = -1e9


def only_real(x, mask):
  """x [B, T, F] with zeros in empty slots."""
  return x * mask[..., None]


def masked_mean(x, mask):
  """Mean [B, F] of x [B, T, F] over slots of mask 1."""
  return only_real(x, mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def normalise(x):
  """LayerNorm without a scale or a shift of its own."""
  return F.layer_norm(x, x.shape[-1:])


class Stack(nn.Module):
  """Linear maps with the exact GELU between them; `context` is a map of the event's vector [B, E], added to the first.
  """

  def __init__(self, width_in: int, widths: tuple[int, ...], features: int, context: int = 0):
    super().__init__()
    self.depth = len(widths)
    for i, (a, b) in enumerate(zip((width_in, *widths), (*widths, features))):
      self.add_module(f"layer_{i}", nn.Linear(a, b))
    self.context = zeroed(nn.Linear(context, (*widths, features)[0])) if context else None

  def forward(self, x, context=None):
    for i in range(self.depth + 1):
      x = getattr(self, f"layer_{i}")(x)
      if context is not None and i == 0:
        x = x + self.context(context)[:, None]
      if i < self.depth:
        x = F.gelu(x)
    return x


def zeroed(linear: nn.Linear) -> nn.Linear:
  """The layer with all its parameters 0."""
  nn.init.zeros_(linear.weight)
  nn.init.zeros_(linear.bias)
  return linear


class Embedding(nn.Module):
  """Vectors of object types."""

  def __init__(self, num_types: int, dim: int):
    super().__init__()
    self.table = nn.Parameter(torch.randn(num_types, dim))

  def forward(self, ids):
    return F.embedding(ids, self.table)


class SetBlock(nn.Module):
  """Self-attention over real slots, then a layer of `ff_dim` units, each after a norm.

  `twice` writes the attention out, because PyTorch's fused one has no second derivative, which penalties of a critic
  need.
  """

  def __init__(self, dim: int, ff_dim: int, num_heads: int, conditioned: bool, twice: bool):
    super().__init__()
    self.num_heads, self.twice = num_heads, twice
    self.condition = zeroed(nn.Linear(dim, 6 * dim)) if conditioned else None
    self.query_key_value, self.attended = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
    self.hidden, self.output = nn.Linear(dim, ff_dim), nn.Linear(ff_dim, dim)

  def attend(self, qkv, mask):
    """[B, T, D] of queries, keys and values [B, T, 3 D]."""
    B, T, _ = qkv.shape
    q, k, v = qkv.view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
    real = mask[:, None, None] > 0
    if self.twice:
      scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~real, MASKED)
      found = scores.softmax(-1) @ v
    else:
      found = F.scaled_dot_product_attention(q, k, v, attn_mask=real)
    return found.transpose(1, 2).reshape(B, T, -1)

  def forward(self, x, mask, condition=None):
    if condition is None:
      x = x + self.attended(self.attend(self.query_key_value(normalise(x)), mask))
      return x + self.output(F.gelu(self.hidden(normalise(x))))
    shift = self.condition(F.gelu(condition))[:, None].chunk(6, dim=-1)
    y = self.attend(self.query_key_value(normalise(x) * (1 + shift[0]) + shift[1]), mask)
    x = x + shift[2] * self.attended(y)
    return x + shift[5] * self.output(F.gelu(self.hidden(normalise(x) * (1 + shift[3]) + shift[4])))


class SetTransformer(nn.Module):
  """Blocks over a stream of width dims[0] with layers of dims[-1] units; [B, T, F] to [B, T, dims[0]], normalised."""

  def __init__(self, width_in: int, dims: tuple[int, ...], num_blocks: int, num_heads: int, context: int = 0,
               conditioned: bool = False, twice: bool = False):
    super().__init__()
    self.num_blocks = num_blocks
    self.embedding = Stack(width_in, (), dims[0], context)
    for i in range(num_blocks):
      self.add_module(f"block_{i}", SetBlock(dims[0], dims[-1], num_heads, conditioned, twice))

  def forward(self, x, mask, event=None, condition=None):
    h = self.embedding(x, event)
    for i in range(self.num_blocks):
      h = getattr(self, f"block_{i}")(h, mask, condition)
    return normalise(h)


class NoiseLevel(nn.Module):
  """A vector [B, dim] of a noise level [B], a logarithm."""

  def __init__(self, dim: int):
    super().__init__()
    self.register_buffer("waves", torch.tensor(WAVES), persistent=False)
    self.stack = Stack(2 * len(WAVES), (dim,), dim)

  def forward(self, level):
    angle = level[:, None] / 4 * self.waves
    return self.stack(torch.cat([angle.cos(), angle.sin()], dim=-1))


class Inputs(nn.Module):
  """Features and embedding of each slot's object."""

  def __init__(self, num_types: int, dim: int):
    super().__init__()
    self.types = Embedding(num_types, dim)

  def forward(self, cont, ids):
    return torch.cat([cont, self.types(ids)], dim=-1)


class Encoder(nn.Module):
  """An MLP of each slot, or a set transformer, by `model.encoder.kind`."""

  def __init__(self, settings: dict):
    super().__init__()
    part, dim = settings["model"]["encoder"], settings["model"]["latent"]["dim"]
    hidden, width_in = tuple(part["hidden_dims"]), settings["num_features"] + part["embed_dim"]
    self.kind = part["kind"]
    self.inputs = Inputs(settings["num_types"], part["embed_dim"])
    if self.kind == "mlp":
      self.stack = Stack(width_in, hidden, dim)
      return
    self.noise_level = NoiseLevel(hidden[0]) if self.kind == "diffusion" else None
    self.transformer = SetTransformer(width_in, hidden, part["num_blocks"], part["num_heads"],
                                      conditioned=self.kind == "diffusion")
    self.to_latent = nn.Linear(hidden[0], dim)

  def forward(self, cont, ids, mask):
    x = self.inputs(cont, ids)
    if self.kind == "mlp":
      return self.stack(x)
    condition = None if self.noise_level is None else self.noise_level(x.new_full((len(x),), LEAST_LOG_SIGMA))
    return self.to_latent(self.transformer(x, mask, None, condition))


class Maps(nn.Module):
  """The linear map into a latent of the kinds linear and vae."""

  def __init__(self, settings: dict):
    super().__init__()
    latent = settings["model"]["latent"]
    width = {"none": 0, "linear": 1, "vae": 2}[latent["kind"]] * latent["dim"]
    self.into = nn.Linear(latent["dim"], width) if width else None

  def forward(self, z):
    return z if self.into is None else self.into(z)


class Decoder(nn.Module):
  """A set transformer of types, of noise or noisy features, and of the event's vector; and an MLP of that vector."""

  def __init__(self, settings: dict):
    super().__init__()
    part, dim, C = settings["model"]["decoder"], settings["model"]["latent"]["dim"], settings["num_features"]
    hidden, denoises = tuple(part["hidden_dims"]), part["kind"] == "diffusion"
    self.noise_level = NoiseLevel(hidden[0]) if denoises else None
    width_in = dim + (C if denoises else dim)
    self.transformer = SetTransformer(width_in, hidden, part["num_blocks"], part["num_heads"], dim, denoises)
    self.heads = nn.Linear(hidden[0], C)
    self.globals = Stack(dim, tuple(part["globals_dims"]), settings["num_globals"])

  def forward(self, types, x, level, event, mask):
    """(features [B, T, C], globals [B, G]); x is noise [B, T, L], or noisy features [B, T, C] at a level [B]."""
    condition = None if self.noise_level is None else self.noise_level(level)
    h = self.transformer(torch.cat([types, only_real(x, mask)], dim=-1), mask, event, condition)
    return self.heads(h), self.globals(event)


class Prior(nn.Module):
  """The velocity of a latent [B, L] at a level [B] for objects of types ids [B, T]."""

  def __init__(self, settings: dict):
    super().__init__()
    part, dim = settings["model"]["prior"], settings["model"]["latent"]["dim"]
    width, self.num_types, self.num_blocks = part["hidden_dim"], settings["num_types"], part["num_blocks"]
    self.noise_level = NoiseLevel(width)
    self.embedding = nn.Linear(dim + self.num_types - 1, width)
    for i in range(self.num_blocks):
      self.add_module(f"hidden_{i}", nn.Linear(width, 2 * width))
      self.add_module(f"output_{i}", nn.Linear(2 * width, width))
    self.to_latent = zeroed(nn.Linear(width, dim))

  def forward(self, x, level, ids):
    counts = F.one_hot(ids, self.num_types)[..., 1:].sum(1).type(x.dtype)
    level = self.noise_level(level)
    h = self.embedding(torch.cat([x, counts.log1p()], dim=-1)) + level
    for i in range(self.num_blocks):
      y = getattr(self, f"hidden_{i}")(normalise(h) + level)
      h = h + getattr(self, f"output_{i}")(F.gelu(y))
    return self.to_latent(normalise(h))


class Assembly(nn.Module):
  """Encoder, the event's latent, its prior and decoder."""

  def __init__(self, settings: dict):
    super().__init__()
    model, dim = settings["model"], settings["model"]["latent"]["dim"]
    self.encoder, self.maps = Encoder(settings), Maps(settings)
    self.event = Stack(settings["num_globals"] + dim, tuple(model["encoder"]["hidden_dims"]), dim)
    self.types, self.prior = Embedding(settings["num_types"], dim), Prior(settings)
    self.decoder = Decoder(settings)

  def encode(self, cont, ids, event, mask):
    """What becomes the event's latent, [B, L] or of a vae [B, 2 L]."""
    z = self.encoder(only_real(cont, mask), ids, mask)
    return self.maps(self.event(torch.cat([event, masked_mean(z, mask)], dim=-1)))

  def decode(self, z, x, level, ids, mask):
    """As `Decoder` returns, of a latent z [B, L]."""
    return self.decoder(only_real(self.types(ids), mask), x, level, z, mask)


class Critic(nn.Module):
  """One logit [B] for an event; `config.model.critic` has its sizes."""

  def __init__(self, settings: dict):
    super().__init__()
    part, embed = settings["model"]["critic"], settings["model"]["encoder"]["embed_dim"]
    hidden, whole = tuple(part["hidden_dims"]), settings["num_globals"] + 1
    self.inputs = Inputs(settings["num_types"], embed)
    self.transformer = SetTransformer(settings["num_features"] + embed, hidden, part["num_blocks"], part["num_heads"],
                                      whole, twice=True)
    self.event = Stack(hidden[0] + whole, hidden, 1)

  def forward(self, cont, ids, event, mask):
    whole = torch.cat([event, mask.sum(1, keepdim=True).log1p()], dim=-1)
    h = self.transformer(self.inputs(only_real(cont, mask), ids), mask, whole)
    return self.event(torch.cat([masked_mean(h, mask), whole], dim=-1))[:, 0]
