"""The EM loop and the SVI of the original system in PyTorch and Pyro, as its users ran them, and both tuned.

  python tests/benchmarks/causal_consistency_torch.py --table=table.npz --loop=dataloader --epochs=5 --out=out.json

The model is the original's: a trunk of two layers of 64 with exact GELU and dropout 0.1 that x and z share, linear
heads for z given y, y given z, x given y; 4,818 parameters, Adam at 1e-3, batches of 32. An epoch is one pass over the
rows with a treatment and then one over those without.

  dataloader  EM as the original wrote it: two DataLoaders of TensorDatasets, sums over classes in a Python loop
  tuned       the same losses as a careful user writes them: rows by index, classes in one batch, no dropout, foreach
  svi         Pyro: a plate, observed sites, Adam; rows without a treatment by TraceEnum_ELBO, which the original meant
"""

import json
import time

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import bench

K, BATCH, RATE, BETA, TAU = 2, 32, 1e-3, 1.0, 1.0


class Model(nn.Module):
  """Trunk and heads; x and z of one dimension."""

  def __init__(self, dropout: float):
    super().__init__()
    layer = lambda a, b: [nn.Linear(a, b), nn.GELU(), nn.Dropout(dropout)]
    self.trunk = nn.Sequential(*layer(1, 64), *layer(64, 64))
    self.head_z, self.head_x = nn.Linear(64 + K, 2), nn.Linear(64 + K, 2)
    self.head_y, self.head_w = nn.Linear(64 + 1, K), nn.Linear(64, 2)

  def z_of(self, x, y):
    return self.head_z(torch.cat([self.trunk(x), F.one_hot(y, K).float()], -1)).chunk(2, -1)

  def y_of(self, x, z):
    return self.head_y(torch.cat([self.trunk(x), z], -1))

  def x_of(self, y, z):
    return self.head_x(torch.cat([self.trunk(z), F.one_hot(y, K).float()], -1)).chunk(2, -1)


def nll(normal, value):
  """Negative log-likelihood of each row under (mean, log sd)."""
  mean, log_sd = normal
  return (0.5 * ((value - mean) / log_sd.exp()) ** 2 + log_sd).sum(-1)


def labelled_loss(model, x, y, z):
  """Means of the three terms."""
  return nll(model.z_of(x, y), z).mean() + F.cross_entropy(model.y_of(x, z), y) + nll(model.x_of(y, z), x).mean()


def unlabelled_loss(model, x, z, at_once: bool):
  """Expected terms under the head's probabilities less their entropy."""
  q = (model.y_of(x, z) / TAU).softmax(-1)
  if at_once:
    y = torch.arange(K).repeat(len(x))
    cost = nll(model.z_of(x.repeat_interleave(K, 0), y), z.repeat_interleave(K, 0))
    cost = (cost + nll(model.x_of(y, z.repeat_interleave(K, 0)), x.repeat_interleave(K, 0))).view(-1, K)
  else:
    columns = []
    for k in range(K):
      y = torch.full((len(x),), k)
      columns.append(nll(model.z_of(x, y), z) + nll(model.x_of(y, z), x))
    cost = torch.stack(columns, -1)
  entropy = -(q * (q + 1e-8).log()).sum(-1)
  return (BETA * (q * cost).sum(-1) - TAU * entropy).mean()


def em_epochs(table, num_epochs: int, tuned: bool) -> list[float]:
  """Seconds of each epoch of EM."""
  x, y, z = (torch.from_numpy(table[name]) for name in ("x", "label", "z"))
  seen = y >= 0
  model = Model(0.0 if tuned else 0.1)
  optimiser = torch.optim.Adam(model.parameters(), lr=RATE, foreach=tuned)
  parts = [(x[seen], y[seen], z[seen]), (x[~seen], z[~seen])]
  loaders = [DataLoader(TensorDataset(*part), batch_size=BATCH, shuffle=True) for part in parts]

  def batches(k):
    if not tuned:
      yield from loaders[k]
      return
    for rows in torch.randperm(len(parts[k][0])).split(BATCH):
      yield [column[rows] for column in parts[k]]

  seconds = []
  for _ in range(num_epochs):
    began = time.perf_counter()
    for k, loss_of in enumerate((labelled_loss, lambda *b: unlabelled_loss(*b, tuned))):
      for batch in batches(k):
        optimiser.zero_grad()
        loss_of(model, *batch).backward()
        optimiser.step()
    seconds.append(time.perf_counter() - began)
  return seconds


def svi_epochs(table, num_epochs: int) -> list[float]:
  """Seconds of each epoch of Pyro's SVI."""
  x, y, z = (torch.from_numpy(table[name]) for name in ("x", "label", "z"))
  seen, net = y >= 0, Model(0.1)

  def sites(x, y, z):
    shape = torch.broadcast_shapes(y.shape, x.shape[:1])  # enumerated: [K, rows]
    one_hot = F.one_hot(y.expand(shape), K).float()
    trunk = lambda v: net.trunk(v).expand(*shape, 64)
    mean, log_sd = net.head_z(torch.cat([trunk(x), one_hot], -1)).chunk(2, -1)
    pyro.sample("z", dist.Normal(mean, log_sd.exp()).to_event(1), obs=z)
    mean, log_sd = net.head_x(torch.cat([trunk(z), one_hot], -1)).chunk(2, -1)
    pyro.sample("x", dist.Normal(mean, log_sd.exp()).to_event(1), obs=x)

  def labelled(x, y, z):
    pyro.module("net", net)
    with pyro.plate("rows", len(x)):
      pyro.sample("y", dist.Categorical(logits=net.y_of(x, z)), obs=y)
      sites(x, y, z)

  @config_enumerate
  def unlabelled(x, z):
    pyro.module("net", net)
    with pyro.plate("rows", len(x)):
      sites(x, pyro.sample("y", dist.Categorical(logits=net.y_of(x, z))), z)

  optimiser = pyro.optim.Adam({"lr": RATE})
  steps = [SVI(labelled, lambda x, y, z: None, optimiser, Trace_ELBO()),
           SVI(unlabelled, lambda x, z: None, optimiser, TraceEnum_ELBO(max_plate_nesting=1))]
  parts = [(x[seen], y[seen], z[seen]), (x[~seen], z[~seen])]
  loaders = [DataLoader(TensorDataset(*part), batch_size=BATCH, shuffle=True) for part in parts]
  seconds = []
  for _ in range(num_epochs):
    began = time.perf_counter()
    for step, loader in zip(steps, loaders):
      for batch in loader:
        step.step(*batch)
    seconds.append(time.perf_counter() - began)
  return seconds


def main() -> None:
  """Runs a loop and writes its seconds per epoch."""
  given = bench.peer_flags(__doc__, ("dataloader", "tuned", "svi"))
  torch.set_num_threads(1)
  torch.manual_seed(0)
  table = np.load(given.table)
  seconds = svi_epochs(table, given.epochs) if given.loop == "svi" else em_epochs(table, given.epochs,
                                                                                  given.loop == "tuned")
  with open(given.out, "w", encoding="utf-8") as file:
    json.dump({"seconds_per_epoch": seconds}, file)


if __name__ == "__main__":
  main()
