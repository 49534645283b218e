"""The original's autoencoder loop in PyTorch, as it was written and with care.

  python tests/benchmarks/autoencoder_torch.py --table=table.npz --loop=original --latent=vq --epochs=3 --out=out.json

Both loops train one model: an MLP of each slot on its features and an embedding of its type, (128, 128) hidden units
with the exact GELU, a latent of 32 numbers a slot, the mirror image as the decoder, and a head for the globals on the
plain mean of all slots. The loss is the plain mean of squared errors over all slots, empty ones included, plus that of
raw globals, plus the commitment. Adam at 1e-3, gradients cut to a norm of 1, batches of 128. There are 44,742
parameters with --latent=none, 45,798 with linear and 61,126 with vq, its codes among them.

  original  a Dataset that gives one event at a time and a DataLoader (--workers of the original's configuration: 4; the
            default here is 0, which is faster on one core); six values are read back at each step
  careful   tensors in memory, permuted once an epoch and cut into views, fused Adam, code counts without one-hot
            matrices, nothing read back before the epoch ends. Eager
  compiled  the careful loop with its forward and backward pass under torch.compile

The moving averages of the codes are the original's: counts start at 0 and sums at the codes, which leaves most codes
unused. TABLE.npz is what autoencoder.py writes. The result has wall seconds of each epoch, of its training steps alone
(`steps`) and with the validation events (`epochs`), the number of steps, and losses of the validation events.
"""

import json
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import data as torch_data

import bench

BATCH, RATE, CLIP = 128, 1e-3, 1.0
NUM_TYPES, EMBED, WIDTH, LATENT, GLOBALS_WIDTH = 8, 8, 128, 32, 32
NUM_CODES, COMMITMENT, DECAY, EPS = 512, 0.25, 0.99, 1e-5
LATENTS, LOOPS = ("none", "linear", "vq"), ("original", "careful", "compiled")
NUM_PARAMETERS = {"none": 44_742, "linear": 45_798, "vq": 61_126}
TERMS = ("cont", "commitment", "codebook", "globals")


def stack(*sizes: int) -> nn.Sequential:
  """Linear maps with an exact GELU between them."""
  layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.GELU())]
  return nn.Sequential(*layers[:-1])


class Quantiser(nn.Module):
  """The nearest of `NUM_CODES` codes for each slot, with the original's moving averages."""

  def __init__(self, lean: bool):
    super().__init__()
    self.lean = lean
    self.codes = nn.Parameter(torch.randn(NUM_CODES, LATENT), requires_grad=False)
    self.register_buffer("count", torch.zeros(NUM_CODES))
    self.register_buffer("total", self.codes.detach().clone())

  def forward(self, z):
    """(z_q [B, T, D], commitment, perplexity of the batch); z_q is of the codes before they move."""
    flat = z.reshape(-1, LATENT)
    with torch.no_grad():
      index, count, total = (self.assign_lean if self.lean else self.assign)(flat)
    picked = F.embedding(index, self.codes).view_as(z)
    commitment = COMMITMENT * F.mse_loss(z, picked)
    share = count / len(flat)
    perplexity = torch.exp(-(share * torch.log(share + 1e-10)).sum())
    if self.training:
      self.follow(count, total)
    return z + (picked - z).detach(), commitment, perplexity

  def assign(self, flat):
    """Nearest codes [N], how often each was chosen [K], and the sum of what chose it [K, D]."""
    distance = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ self.codes.t() + self.codes.pow(2).sum(1)
    index = distance.argmin(1)
    chosen = F.one_hot(index, NUM_CODES).type(flat.dtype)
    return index, chosen.sum(0), chosen.t() @ flat

  def assign_lean(self, flat):
    """The same without terms that are equal for all codes, and without one-hot matrices."""
    index = torch.addmm(self.codes.square().sum(1), flat, self.codes.t(), alpha=-2).argmin(1)
    total = torch.zeros_like(self.total)
    if self.training:
      total.index_add_(0, index, flat)
    return index, torch.zeros_like(self.count).index_add_(0, index, torch.ones_like(flat[:, 0])), total

  @torch.no_grad()
  def follow(self, count, total) -> None:
    """One step of the moving averages."""
    self.count.mul_(DECAY).add_(count, alpha=1 - DECAY)
    self.total.mul_(DECAY).add_(total, alpha=1 - DECAY)
    all_counts = self.count.sum()
    size = (self.count + EPS) / (all_counts + NUM_CODES * EPS) * all_counts
    self.codes.copy_(self.total / size[:, None])


class Autoencoder(nn.Module):
  """Encoder, latent and decoder of events."""

  def __init__(self, latent: str, num_features: int = 4, num_globals: int = 2, lean: bool = False):
    super().__init__()
    self.embedding = nn.Embedding(NUM_TYPES, EMBED)
    self.encoder = stack(num_features + EMBED, WIDTH, WIDTH, LATENT)
    self.latent = {"none": nn.Identity, "linear": lambda: nn.Linear(LATENT, LATENT),
                   "vq": lambda: Quantiser(lean)}[latent]()
    self.decoder = stack(LATENT, WIDTH, WIDTH, num_features)
    self.globals_head = stack(LATENT, GLOBALS_WIDTH, num_globals)
    count = sum(part.numel() for part in self.parameters())
    if (num_features, num_globals) == (4, 2) and count != NUM_PARAMETERS[latent]:
      raise ValueError(f"{latent}: got {count} parameters, want {NUM_PARAMETERS[latent]}")

  def forward(self, cont, ids):
    """(features [B, T, C], globals [B, G], commitment, perplexity)."""
    z = self.latent(self.encoder(torch.cat([cont, self.embedding(ids)], dim=-1)))
    z, commitment, perplexity = z if isinstance(z, tuple) else (z, z.new_zeros(()), z.new_zeros(()))
    return self.decoder(z), self.globals_head(z.mean(1)), commitment, perplexity

  def losses(self, cont, ids, event):
    """The total, its terms by name, and the perplexity."""
    features, found, commitment, perplexity = self(cont, ids)
    terms = {"cont": F.mse_loss(features, cont), "commitment": commitment, "codebook": commitment.new_zeros(()),
             "globals": F.mse_loss(found, event)}
    return sum(terms[name] for name in TERMS), {**terms, "perplexity": perplexity}


class Events(torch_data.Dataset):
  """One event at a time."""

  def __init__(self, cont, ids, event):
    self.cont, self.ids, self.event = cont, ids, event

  def __len__(self):
    return len(self.cont)

  def __getitem__(self, i):
    return self.cont[i], self.ids[i], self.event[i]


def as_tensors(table, part: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
  """Features [N, T, C], types [N, T] and globals [N, G] of a part of the table."""
  cont, ids, event = (torch.from_numpy(table[f"{part}_{name}"]) for name in ("cont", "ids", "globals"))
  return cont, ids.long(), event


def train_step(model, optimiser, batch) -> tuple:
  """One step of Adam; returns the loss and the terms, detached nowhere."""
  optimiser.zero_grad(set_to_none=True)
  loss, terms = model.losses(*batch)
  loss.backward()
  nn.utils.clip_grad_norm_(model.parameters(), CLIP)
  optimiser.step()
  return loss, terms


class Trainee:
  """What a loop trains: this model and its optimiser."""
  batch_size = BATCH

  def __init__(self, given):
    self.model = Autoencoder(given.latent, lean=given.loop != "original")
    self.optimiser = torch.optim.Adam(self.model.parameters(), lr=RATE, fused=given.loop != "original")
    if given.loop == "compiled":
      self.model.losses = torch.compile(self.model.losses)

  def step(self, batch) -> tuple:
    """(loss, what else is read of a step by name) of one step of training."""
    return train_step(self.model, self.optimiser, batch)

  def judge(self, batch) -> tuple:
    """The same of events that are not trained on."""
    return self.model.losses(*batch)


def original_epochs(trainee, table, given) -> dict:
  """Seconds of each epoch of the original's loop over a `Trainee`."""
  loaders = {part: torch_data.DataLoader(Events(*as_tensors(table, part)), trainee.batch_size, part == "train",
                                         num_workers=given.workers) for part in ("train", "val")}
  found = {"steps": [], "epochs": [], "val_loss": []}
  for _ in range(given.epochs):
    began = time.perf_counter()
    trainee.model.train()
    sums, rows = {}, 0
    for batch in loaders["train"]:
      loss, terms = trainee.step(batch)
      add_up(sums, {"loss": loss, **terms}, len(batch[0]))
      rows += len(batch[0])
    found["steps"].append(time.perf_counter() - began)
    trainee.model.eval()
    sums, rows = {}, 0
    with torch.no_grad():
      for batch in loaders["val"]:
        loss, terms = trainee.judge(batch)
        add_up(sums, {"loss": loss, **terms}, len(batch[0]))
        rows += len(batch[0])
    found["epochs"].append(time.perf_counter() - began)
    found["val_loss"].append(sums["loss"] / rows)
  return found | {"num_steps": len(loaders["train"])}


def add_up(sums: dict, values: dict, rows: int) -> None:
  """Adds values, read back, times the rows of their batch."""
  for name, value in values.items():
    sums[name] = (sums[name] if name in sums else 0.0) + value.item() * rows


def careful_epochs(trainee, table, given) -> dict:
  """Seconds of each epoch of the careful loop over a `Trainee`."""
  torch.set_flush_denormal(True)
  train, val = as_tensors(table, "train"), as_tensors(table, "val")
  found = {"steps": [], "epochs": [], "val_loss": []}
  for _ in range(given.epochs):
    began, total = time.perf_counter(), torch.zeros(())
    trainee.model.train()
    order = torch.randperm(len(train[0]))
    batches = list(zip(*(column[order].split(trainee.batch_size) for column in train)))
    for batch in batches:
      loss, _ = trainee.step(batch)
      total += loss.detach() * len(batch[0])
    total.item()
    found["steps"].append(time.perf_counter() - began)
    trainee.model.eval()
    with torch.no_grad():
      found["val_loss"].append(trainee.judge(val)[0].item())
    found["epochs"].append(time.perf_counter() - began)
  return found | {"num_steps": len(batches)}


def run(parser, make_trainee) -> None:
  """Runs the loop of the flags over the trainee that `make_trainee` makes of them, and writes its seconds."""
  parser.add_argument("--workers", type=int, default=0, help="processes of the original's DataLoader")
  given = parser.parse_args()
  torch.set_num_threads(1)
  torch.manual_seed(0)
  with np.load(given.table) as table:
    found = (original_epochs if given.loop == "original" else careful_epochs)(make_trainee(given), dict(table), given)
  with open(given.out, "w", encoding="utf-8") as file:
    json.dump(found, file)


def main() -> None:
  """Runs a loop and writes its seconds."""
  parser = bench.peer_parser(__doc__, LOOPS)
  parser.add_argument("--latent", choices=LATENTS, required=True)
  run(parser, Trainee)


if __name__ == "__main__":
  main()
