"""The training loop of the original system in PyTorch, and a careful one of the same network and loss as ours.

  python tests/benchmarks/semantic_compression_torch.py --table=table.npz --loop=original --epochs=5 --out=out.json

  original  15 raw columns; [Linear, BatchNorm, LeakyReLU] of 256, 128, 64, a latent of 32, the entropy compressor (a
            net, shifts, Normal noise in training and rounding after it), 101,743 parameters; sums over the batch of
            squared errors, the divergence at 0.1, the loss of seven features of an older layout at 0.5, the penalty;
            Adam at 1e-3 with L2 1e-6, a cosine by epoch. Slices of a fixed tensor in order; five values are read back
            at each step; 2,000 states are evaluated in batches after each epoch, and ten for the drift.
  careful   the network, density and loss of our default (92,561 parameters): linear maps with networks of 256, 128, 64
            beside them, uniform noise for rounding, eight logistics a slot, tanh-GELU. Rows are permuted once an epoch
            and cut into views, noise is drawn once an epoch, fused Adam, a cosine by step; nothing is read back before
            the epoch ends; 2,000 states are evaluated at once. Eager: nothing is compiled.

TABLE.npz is what semantic_compression.py writes. The result has wall seconds of each epoch, of its training steps alone
(`steps`) and whole (`epochs`), and losses of the validation states.
"""

import json
import math
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import bench

BATCH, RATE, WIDTHS = 64, 1e-3, (256, 128, 64)
NUM_PARAMETERS = {"original": 101_743, "careful": 92_561}
FEATURE_SLICES = {"position": slice(0, 2), "health": slice(2, 3), "energy": slice(4, 5)}  # of the older layout
GROUPS = {"spatial": ("position",), "resources": ("health", "energy"),
          "performance": ("is_alive", "has_target", "threatened"), "role": ("role",)}
GROUP_WEIGHTS = {"spatial": 0.554, "resources": 0.251, "performance": 0.105, "role": 0.050}
LOSS_WEIGHTS = {"recon": 1.0, "kl": 0.1, "semantic": 0.5}
DRIFT_STATES = 10


class Compressor(nn.Module):
  """The original's entropy compressor at level c."""

  def __init__(self, width: int, level: float):
    super().__init__()
    self.width, self.level = width, level
    self.net = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.01), nn.Linear(width, 2 * width))
    self.shift, self.log_scale = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

  def forward(self, z):
    mean, log_scale = self.net(z).chunk(2, dim=-1)
    mean, log_scale = (mean + self.shift) / self.level, log_scale + self.log_scale - math.log(self.level)
    penalty = (0.5 * torch.exp(2 * log_scale) + 0.5 * math.log(2 * math.pi)).mean()
    if self.training:
      return mean + torch.exp(log_scale) * torch.randn_like(mean), penalty
    return torch.round(mean), penalty


class Original(nn.Module):
  """The original's autoencoder, 15 columns to a latent of 32 and back."""

  def __init__(self, width: int = 15, latent: int = 32):
    super().__init__()
    def blocks(*sizes):
      pairs = zip(sizes, sizes[1:])
      return nn.Sequential(*(layer for a, b in pairs
                             for layer in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.LeakyReLU(0.01))))
    self.encoder, self.decoder = blocks(width, *WIDTHS), blocks(latent, *WIDTHS[::-1])
    self.mean, self.log_var = nn.Linear(WIDTHS[-1], latent), nn.Linear(WIDTHS[-1], latent)
    self.compressor, self.out = Compressor(latent, 1.0), nn.Linear(WIDTHS[0], width)

  def forward(self, x):
    h = self.encoder(x)
    mean, log_var = self.mean(h), self.log_var(h)
    z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean) if self.training else mean
    z, penalty = self.compressor(z)
    return self.out(self.decoder(z)), mean, log_var, penalty


def old_features(v):
  """The seven features as the original reads them, from the columns of a layout that its states do not have."""
  found = {name: v[:, at] for name, at in FEATURE_SLICES.items()}
  found["role"] = v[:, 5:10].argmax(dim=1, keepdim=True).float() / 5
  found["has_target"] = v[:, 3:4].clamp(0, 1)  # a probability, which its cross-entropy needs
  found["is_alive"] = (v[:, 2:3] > 0.1).float()
  found["threatened"] = ((v[:, 3:4] == 1) & (v[:, 2:3] < 0.3)).float()
  return found


def feature_losses(x, r):
  """The loss of each of the seven features."""
  a, b = old_features(x), old_features(r)
  return {name: F.binary_cross_entropy(b[name], a[name]) if name in GROUPS["performance"] else
          F.mse_loss(b[name], a[name]) for name in a}


def original_loss(model, x):
  """The total and its four parts, sums over the batch as the original has them."""
  r, mean, log_var, penalty = model(x)
  parts = {"recon": F.mse_loss(r, x, reduction="sum"),
           "kl": -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp()),
           "semantic": torch.stack(list(feature_losses(x, r).values())).mean()}
  total = sum(LOSS_WEIGHTS[name] * parts[name] for name in parts) + penalty
  return {"total": total, **parts, "penalty": penalty}


def track_drift(model, x):
  """What the original tracks of ten states after each epoch: similarity by feature and group, and its means."""
  with torch.no_grad():
    r = model(x)[0]
    alike = {name: 1 / (1 + loss.sqrt().item()) for name, loss in feature_losses(x, r).items()}
    a, b = old_features(x), old_features(r)
    right = {name: ((a[name] > 0.5) == (b[name] > 0.5)).float().mean().item() if name in GROUPS["performance"]
             else math.exp(-F.mse_loss(b[name], a[name]).sqrt().item()) for name in a}
  kept = {group: sum(alike[name] for name in names) / len(names) for group, names in GROUPS.items()}
  overall = sum(GROUP_WEIGHTS[group] * kept[group] for group in kept) / sum(GROUP_WEIGHTS.values())
  return {"preservation": overall, "drift": 1 - overall, "fidelity": sum(right.values()) / len(right), **kept}


def original_epochs(table, num_epochs: int) -> dict:
  """Seconds of each epoch of the original's loop."""
  x, val = torch.from_numpy(table["raw_train"]), torch.from_numpy(table["raw_val"])
  model = Original(x.shape[1])
  check_size(model, "original")
  optimiser = torch.optim.Adam(model.parameters(), lr=RATE, weight_decay=1e-6)
  schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=num_epochs)
  found = {"steps": [], "epochs": [], "val_loss": []}
  for _ in range(num_epochs):
    began, sums = time.perf_counter(), {}
    model.train()
    for i in range(len(x) // BATCH):
      batch = x[i * BATCH:(i + 1) * BATCH]
      optimiser.zero_grad()
      losses = original_loss(model, batch)
      losses["total"].backward()
      optimiser.step()
      for name, value in losses.items():
        sums[name] = sums[name] + value.item() if name in sums else value.item()
    found["steps"].append(time.perf_counter() - began)
    schedule.step()
    model.eval()
    total, count = 0.0, len(val) // BATCH
    with torch.no_grad():
      for i in range(count):
        losses = original_loss(model, val[i * BATCH:(i + 1) * BATCH])
        total += {name: value.item() for name, value in losses.items()}["total"]
    track_drift(model, val[:DRIFT_STATES])
    found["epochs"].append(time.perf_counter() - began)
    found["val_loss"].append(total / count)
  return found


class Careful(nn.Module):
  """Our network and its densities; `table` has the first matrices, the ranges of slots and the weights of features."""

  def __init__(self, table, level: float = 1.0):
    super().__init__()
    at = lambda name: torch.from_numpy(table[name].astype(np.float32))
    self.matrix_in, self.shift_in, self.matrix_out, self.shift_out = (
        nn.Parameter(at(name)) for name in ("matrix_in", "shift_in", "matrix_out", "shift_out"))
    slots, width = self.matrix_out.shape
    def stack(*sizes):
      layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.GELU("tanh"))][:-1]
      nn.init.zeros_(layers[-1].weight)
      nn.init.zeros_(layers[-1].bias)
      return nn.Sequential(*layers)
    self.encoder, self.decoder = stack(width, *WIDTHS, slots), stack(slots, *WIDTHS[::-1], width)
    low, high, M = at("low"), at("high"), int(table["num_components"])
    cells = (high - low)[:, None] / M
    self.log_gain, self.share = nn.Parameter(torch.zeros(slots)), nn.Parameter(torch.zeros(slots, M))
    self.centre = nn.Parameter(low[:, None] + cells * (torch.arange(M) + 0.5))
    self.log_scale = nn.Parameter((cells / 4).log().repeat(1, M))
    self.middle, self.reach = (low + high) / 2, 4.0 * (high - low)
    self.first, self.unit = at("steps") / level, torch.where(at("numeric") > 0, level / 100, 1.0)
    self.numeric_weight = at("numeric") / (2 * math.log(2) * (level / 100) ** 2) + 0.5 * at("feature_column_weight")
    self.alive, self.threatened = (float(table[name]) for name in ("alive_weight", "threatened_weight"))
    self.binary_weight = 20 / math.log(2) + 0.5 * float(table["target_weight"])
    self.class_weight = 20 / math.log(2) + 0.5 * float(table["role_weight"])
    self.health, self.bit, self.classes = int(table["health"]), int(table["bit"]), int(table["classes"])
    self.thresholds = [float(value) for value in table["thresholds"]]

  def bits(self, y, s):
    """Bits of each slot [B, L] of the whole numbers around y."""
    def between(low, high, centre, scale):
      a, b = (low - centre) / scale, (high - centre) / scale
      sign = torch.where(a + b > 0, -1.0, 1.0)
      return (torch.sigmoid(sign * b) - torch.sigmoid(sign * a)).abs()
    low, high = (y - 0.5) / s, (y + 0.5) / s
    near = between(low[..., None], high[..., None], self.centre, self.log_scale.exp())
    near = (near * self.share.softmax(-1)).sum(-1)
    return -torch.log2(((1 - 1e-4) * near + 1e-4 * between(low, high, self.middle, self.reach)).clamp(min=1e-9))

  def soft_bits(self, v, both: bool):
    """(ln p, ln(1 - p)) of a health above the first threshold, and with `both` below the second one."""
    z = (v[:, self.health] - self.thresholds[0]) / 0.02
    yes, no = F.logsigmoid(z), F.logsigmoid(-z)
    if both:
      z = (self.thresholds[1] - v[:, self.health]) / 0.02
      yes, no = yes + F.logsigmoid(z), torch.logaddexp(no, yes + F.logsigmoid(-z))
    return yes, no

  def forward(self, x, noise):
    """The loss in bits [B]; `noise` None rounds."""
    s = self.first * self.log_gain.exp()
    y = s * (x @ self.matrix_in + self.shift_in) + self.encoder(x)
    y = y.round() if noise is None else y + noise
    u = y / s
    r = u @ self.matrix_out + self.shift_out + self.unit * self.decoder(u)
    loss = self.bits(y, s).sum(-1) + (r - x).square() @ self.numeric_weight
    loss = loss + self.binary_weight * F.softplus(-2 * x[:, self.bit] * r[:, self.bit])
    places = slice(self.classes, None)
    loss = loss - self.class_weight * (x[:, places] * r[:, places].log_softmax(-1)).sum(-1)
    for weight, both in ((self.alive, False), (self.threatened, True)):
      p, q = self.soft_bits(x, both), self.soft_bits(r, both)
      loss = loss + 0.5 * weight * sum(one.exp() * (one - other) for one, other in zip(p, q))
    return loss


def careful_epochs(table, num_epochs: int) -> dict:
  """Seconds of each epoch of the careful loop."""
  torch.set_flush_denormal(True)
  x, val = torch.from_numpy(table["train"]), torch.from_numpy(table["val"])
  model = Careful(table)
  check_size(model, "careful")
  optimiser = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
  count = num_epochs * -(-len(x) // BATCH)
  schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 0.5 * (1 + math.cos(math.pi * k / count)))
  found = {"steps": [], "epochs": [], "val_loss": []}
  for _ in range(num_epochs):
    began, total = time.perf_counter(), torch.zeros(())
    noise = torch.rand(len(x), model.matrix_out.shape[0]) - 0.5
    for batch, drawn in zip(x[torch.randperm(len(x))].split(BATCH), noise.split(BATCH)):
      optimiser.zero_grad(set_to_none=True)
      loss = model(batch, drawn).mean()
      loss.backward()
      optimiser.step()
      schedule.step()
      total += loss.detach()
    total.item()
    found["steps"].append(time.perf_counter() - began)
    with torch.no_grad():
      found["val_loss"].append(model(val, None).mean().item())
    found["epochs"].append(time.perf_counter() - began)
  return found


def check_size(model: nn.Module, loop: str) -> None:
  """Raises ValueError where a model has not as many parameters as the one it stands for."""
  count = sum(part.numel() for part in model.parameters())
  if count != NUM_PARAMETERS[loop]:
    raise ValueError(f"{loop}: got {count} parameters, want {NUM_PARAMETERS[loop]}")


def main() -> None:
  """Runs a loop and writes its seconds."""
  given = bench.peer_flags(__doc__, ("original", "careful"))
  torch.set_num_threads(1)
  torch.manual_seed(0)
  table = np.load(given.table)
  found = (original_epochs if given.loop == "original" else careful_epochs)(table, given.epochs)
  with open(given.out, "w", encoding="utf-8") as file:
    json.dump(found, file)


if __name__ == "__main__":
  main()
