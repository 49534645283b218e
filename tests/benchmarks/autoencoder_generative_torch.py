"""The loops gan_ae and diffusion_ae in PyTorch, as the original's loop is written and with care.

  python tests/benchmarks/autoencoder_generative_torch.py --table=table.npz --settings=settings.json --loop=careful
      --epochs=3 --out=out.json

The original has both loops in name alone; these train the networks, losses and optimisers of ours that SETTINGS.json,
written by autoencoder.py, gives the sizes of. Each event has one latent, beside which the flow of its prior is trained.

  gan_ae        a step divides its rows into parts: a critic's update on each but the last, with the hinge loss and
                penalties of its gradient, then the autoencoder's, whose reconstruction the critic judges
  diffusion_ae  the decoder denoises the objects of events (EDM), given the latent and their types

and in both Adam, gradients cut to a norm, a moving average of the weights, that validation uses.

  original  as in autoencoder_torch.py; each value is read back at each step, gradients reach the critic's weights in
            the autoencoder's update too, and the moving average is a loop over parameters
  careful   as there: tensors in memory, fused Adam, nothing read back; the critic's weights are left out of the
            autoencoder's gradient, and the moving average is one call
"""

import copy
import json

import torch
from torch import nn
from torch.nn import functional as F

import bench
from autoencoder_sets_torch import Assembly, Critic, only_real
from autoencoder_torch import run

LOOPS = ("original", "careful")
MOMENTS_DECAY, LEAST_VARIANCE = 0.99, 1e-6
MOST_LOG_VAR, MOST_LOG_SIGMA = 20.0, 7.0
RARE = 1e-6


def flow_level(t):
  """log(sigma / alpha) of levels t of the flow, as a network is told it."""
  t = t.clamp(RARE, 1 - RARE)
  return (t.log() - (1 - t).log()).clamp(-MOST_LOG_SIGMA, MOST_LOG_SIGMA)


def draw(settings: dict, num: int) -> dict:
  """Random numbers of a step for `num` events; float32."""
  L, T, C = settings["model"]["latent"]["dim"], settings["num_slots"], settings["num_features"]
  found = {"latent": torch.randn(num, L), "prior": torch.randn(num, L), "prior_level": torch.rand(num)}
  if settings["loop"] == "gan_ae":
    return found | {"decoder": torch.randn(num, T, L)}
  process = settings["model"]["diffusion"]
  log_sigma = process["p_mean"] + process["p_std"] * torch.randn(num)
  return found | {"decoder": torch.randn(num, T, C), "log_sigma": log_sigma}


class Trainee:
  """Model, moving averages and optimisers of a loop; `lean` is the careful manner.

  Attributes:
    model: the networks. average: the moving average of them. moments: [2, L], of latents.
    batch_size: events of a step.
  """

  def __init__(self, settings: dict, lean: bool):
    if settings["loop"] == "diffusion_ae" and settings["model"]["diffusion"]["process"] != "edm":
      raise ValueError(f"got {settings['model']['diffusion']['process']!r}, the peer's process is edm")
    self.settings, self.lean, self.batch_size = settings, lean, settings["batch_size"]
    self.model = Assembly(settings)
    self.average = copy.deepcopy(self.model).requires_grad_(False)
    self.moments = torch.stack([torch.zeros(settings["model"]["latent"]["dim"]),
                                torch.ones(settings["model"]["latent"]["dim"])])
    self.optimiser = self.adam(self.model, settings["optim"])

  def adam(self, network, optim: dict) -> torch.optim.Adam:
    """Adam of a network by a section of the config."""
    return torch.optim.Adam(network.parameters(), lr=optim["learning_rate"], betas=tuple(optim["betas"]),
                            fused=self.lean)

  def update(self, network, optimiser, loss, optim: dict) -> None:
    """A step of an optimiser down the gradient of a loss."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), optim["clip_norm"])
    optimiser.step()

  @torch.no_grad()
  def follow(self, z) -> None:
    """The moving averages after a step with latents z [B, L]."""
    self.moments.lerp_(torch.stack([z.mean(0), z.square().mean(0)]), 1 - MOMENTS_DECAY)
    decay = self.settings["optim"]["ema_decay"]
    both = list(self.average.parameters()), list(self.model.parameters())
    if self.lean:
      torch._foreach_lerp_(*both, 1 - decay)
    else:
      for old, new in zip(*both):
        old.mul_(decay).add_(new, alpha=1 - decay)

  def latent(self, model, batch, draws):
    """(z [B, L], mask [B, T], divergence [B] of a vae or 0) of a batch."""
    cont, ids, event = batch
    mask = (ids > 0).type(cont.dtype)
    z = model.encode(cont, ids, event, mask)
    if self.settings["model"]["latent"]["kind"] != "vae":
      return z, mask, torch.zeros_like(z[:, 0])
    mean, log_var = z.chunk(2, dim=-1)
    log_var = log_var.clamp(-MOST_LOG_VAR, MOST_LOG_VAR)
    divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)
    return mean + (0.5 * log_var).exp() * draws["latent"], mask, divergence

  def prior_loss(self, model, z, ids, draws):
    """Mean squared error of the flow's velocity; no gradient reaches z."""
    deviation = (self.moments[1] - self.moments[0].square()).clamp(min=LEAST_VARIANCE).sqrt()
    x, t = (z.detach() - self.moments[0]) / deviation, draws["prior_level"][:, None]
    velocity = model.prior((1 - t) * x + t * draws["prior"], flow_level(t[:, 0]), ids)
    return (velocity - (draws["prior"] - x)).square().mean()

  def terms(self, model, batch, draws):
    """(terms of the loss by name, z, mask, features of the reconstruction, its globals)."""
    cont, ids, event = batch
    z, mask, divergence = self.latent(model, batch, draws)
    found, x, target, level = {}, draws["decoder"], cont, None
    if self.settings["loop"] == "diffusion_ae":
      level = draws["log_sigma"]
      sigma = level.exp()[:, None, None]
      length = (1 + sigma.square()).sqrt()
      x, target = (cont + sigma * draws["decoder"]) / length, (sigma * cont - draws["decoder"]) / length
    features, whole = model.decode(z, x, level, ids, mask)
    error = only_real(features - target, mask).square().mean(-1).sum() / mask.sum()
    found["cont" if level is None else "denoise"] = error
    found["globals"] = (whole - event).square().mean()
    if self.settings["model"]["latent"]["kind"] == "vae":
      found["kl"] = divergence.mean()
    return found, z, mask, features, whole

  def weigh(self, terms: dict):
    """The sum of terms by their weights."""
    return sum(self.settings["weights"][name] * value for name, value in terms.items())

  def step(self, batch) -> tuple:
    """(loss, what else is read of a step by name) of one step of training."""
    draws = draw(self.settings, len(batch[0]))
    terms, z, *_ = self.terms(self.model, batch, draws)
    terms["prior"] = self.prior_loss(self.model, z, batch[1], draws)
    loss = self.weigh(terms)
    self.update(self.model, self.optimiser, loss, self.settings["optim"])
    self.follow(z)
    return loss, terms

  def judge(self, batch) -> tuple:
    """The same of events that are not trained on, by the moving average; the prior's loss is no part of it."""
    terms, *_ = self.terms(self.average, batch, draw(self.settings, len(batch[0])))
    return self.weigh(terms), terms


class Adversary(Trainee):
  """`Trainee` with a critic."""

  def __init__(self, settings: dict, lean: bool):
    super().__init__(settings, lean)
    self.critic = Critic(settings)
    self.critic_optimiser = self.adam(self.critic, settings["optim_critic"])
    if settings["model"]["critic"]["loss"] != "hinge" or settings["model"]["critic"]["adaptive"]:
      raise ValueError("the peer's critic has the hinge loss and a fixed weight")

  def penalty(self, cont, ids, event, mask):
    """(logits [B], mean squared norm of their gradients by features and globals)."""
    cont, event = cont.detach().requires_grad_(), event.detach().requires_grad_()
    logits = self.critic(cont, ids, event, mask)
    by_cont, by_event = torch.autograd.grad(logits.sum(), (cont, event), create_graph=True)
    rows = only_real(by_cont, mask).square().sum((1, 2)) + by_event.square().sum(1)
    return logits, rows.mean()

  def critic_loss(self, batch, draws) -> tuple:
    """(loss, what else is read) of the critic on a part of a batch."""
    cont, ids, event = batch
    part = self.settings["model"]["critic"]
    with torch.no_grad():
      _, _, mask, features, whole = self.terms(self.model, batch, draws)
    found = {}
    if part["r1_gamma"]:
      real, found["r1"] = self.penalty(cont, ids, event, mask)
    else:
      real = self.critic(cont, ids, event, mask)
    if part["r2_gamma"]:
      fake, found["r2"] = self.penalty(features, ids, whole, mask)
    else:
      fake = self.critic(features, ids, whole, mask)
    loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    loss = loss + sum(0.5 * part[f"{name}_gamma"] * value for name, value in found.items())
    accuracy = 0.5 * ((real > 0).type(real.dtype).mean() + (fake < 0).type(real.dtype).mean())
    return loss, found | {"critic_loss": loss, "real_logit": real.mean(), "fake_logit": fake.mean(),
                          "critic_accuracy": accuracy}

  def step(self, batch) -> tuple:
    num_parts, seen = self.settings["model"]["critic"]["d_steps"] + 1, {}
    for k in range(num_parts - 1):
      part = [column[k::num_parts] for column in batch]
      loss, seen = self.critic_loss(part, draw(self.settings, len(part[0])))
      self.update(self.critic, self.critic_optimiser, loss, self.settings["optim_critic"])
    part = [column[num_parts - 1::num_parts] for column in batch]
    draws = draw(self.settings, len(part[0]))
    terms, z, mask, features, whole = self.terms(self.model, part, draws)
    terms["prior"] = self.prior_loss(self.model, z, part[1], draws)
    self.critic.requires_grad_(not self.lean)
    adversarial = -self.critic(features, part[1], whole, mask).mean()
    loss = self.weigh(terms) + self.settings["model"]["critic"]["lambda_adv"] * adversarial
    self.update(self.model, self.optimiser, loss, self.settings["optim"])
    self.critic.requires_grad_(True)
    self.follow(z)
    return loss, terms | seen | {"adversarial": adversarial}


def make_trainee(given) -> Trainee:
  """The trainee of the flags."""
  with open(given.settings, encoding="utf-8") as file:
    settings = json.load(file)
  return {"gan_ae": Adversary, "diffusion_ae": Trainee}[settings["loop"]](settings, given.loop != "original")


def main() -> None:
  """Runs a loop and writes its seconds."""
  parser = bench.peer_parser(__doc__, LOOPS)
  parser.add_argument("--settings", required=True)
  run(parser, make_trainee)


if __name__ == "__main__":
  main()
