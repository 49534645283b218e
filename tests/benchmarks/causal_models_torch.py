r"""PyTorch peers of the causal networks: wall and CPU seconds of one training step on the CPU.

The causal benchmark runs this file as a subprocess next to jaxtrain's `avici` and `bcnp`. It needs torch, numpy and
scipy, and prints one JSON line. A step is forward, loss, backward, clipping to global norm 1 and AdamW; the tasks
are made beforehand and turn round. No step reads a value back, except for the Hungarian algorithm of BCNP.

  avici   the official architecture: blocks of attention over variables and over rows in turn, maximum over rows,
          logits exp(tau) <u, v> + beta; binary cross-entropy and the spectral radius (10 power iterations).
  bcnp    encoder of attention over rows and over variables in turn, summary by a query row, two decoders; edge
          probabilities, and orders by Gumbel noise and 20 Sinkhorn iterations, made hard by SciPy's
          linear_sum_assignment, straight-through gradient; per-edge mixture over 10 orders.

What a careful user does is done: fused attention kernels, one matrix product for queries, keys and values (AVICI's
three layer norms are one, their gains folded into the product), one transpose a block, fused AdamW, foreach clipping,
16 random bits for each entry of a dropout mask, denormals flushed. `--compile` puts forward and loss through
torch.compile (needs a C++ compiler; the seconds are in `warmup_wall_s`). On the CPU it was written on that was slower
than eager at full size, for both models: quote the faster of the two. BCNP's attention weights are not dropped: torch's
encoder layer drops them, which would rule out the fused kernel.

Parameters at the sizes of the original: AVICI 3,210,626 (12 blocks); BCNP 1,986,313, of which it never uses 279,168
(decoder layers' cross-attention and its norm, the value projection of the edge scores). They are left out here:
`num_parameters` is what is trained, `num_parameters_original` counts them in.

Run it as

  OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/causal_models_torch.py --model=avici --tasks=4 --steps=5
"""

import argparse
import json
import math
import statistics
import time

import numpy as np
from scipy.optimize import linear_sum_assignment
import torch
from torch import nn
import torch.nn.functional as F

import causal_generator_torch

POWER_STEPS, DUAL = 10, 1e-4
ORDERS, SINKHORN_STEPS, CLAMP = 10, 20, 1e-6
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-4, 1e-4, 1.0
BLOCKS = {"avici": 12, "bcnp": 4}
DECODER_BLOCKS = 4


def dropout(x: torch.Tensor, rate: float, train: bool) -> torch.Tensor:
  """Dropout from 16 random bits an entry: a third of the time of a uniform float each."""
  if not train or rate == 0:
    return x
  kept = round((1 - rate) * 2**16)
  bits = torch.empty(x.numel() // 4, dtype=torch.int64).random_(-2**63, None).view(torch.int16).view(x.shape)
  return x * (bits >= 2**15 - kept).to(x.dtype).mul_(2**16 / kept)


def kaiming(*shape: int) -> nn.Parameter:
  """Uniform with variance 2 / fan_in."""
  bound = math.sqrt(6 / shape[-1])
  return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def attend(qkv: torch.Tensor, heads: int) -> torch.Tensor:
  """[sequences, length, 3 * inner] to [sequences, length, inner]."""
  sequences, length, width = qkv.shape
  q, k, v = (part.view(sequences, length, heads, -1).transpose(1, 2) for part in qkv.chunk(3, -1))
  return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(sequences, length, width // 3)


class AviciBlock(nn.Module):
  """Attention with layer norms of their own for queries, keys and values; then the feed-forward part."""

  def __init__(self, dim: int, heads: int, key_size: int, ff: int, rate: float):
    super().__init__()
    inner = heads * key_size
    self.heads, self.rate = heads, rate
    self.gain, self.offset = nn.Parameter(torch.ones(3, dim)), nn.Parameter(torch.zeros(3, dim))
    self.qkv, self.qkv_bias = kaiming(3, inner, dim), nn.Parameter(torch.zeros(3, inner))
    self.out = nn.Linear(inner, dim)
    self.norm, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, ff), nn.Linear(ff, dim)
    for layer in (self.out, self.up, self.down):
      layer.weight, layer.bias = kaiming(*layer.weight.shape), nn.Parameter(torch.zeros_like(layer.bias))

  def forward(self, z: torch.Tensor) -> torch.Tensor:
    """[sequences, length, dim], attention along `length`."""
    weight = (self.qkv * self.gain[:, None]).flatten(0, 1)
    bias = torch.baddbmm(self.qkv_bias[..., None], self.qkv, self.offset[..., None]).flatten()
    x = attend(F.linear(F.layer_norm(z, z.shape[-1:]), weight, bias), self.heads)
    z = z + dropout(self.out(x), self.rate, self.training)
    return z + dropout(self.down(F.relu(self.up(self.norm(z)))), self.rate, self.training)


class BcnpBlock(nn.Module):
  """A pre-norm transformer layer without biases."""

  def __init__(self, dim: int, heads: int, ff: int, rate: float):
    super().__init__()
    self.heads, self.rate = heads, rate
    self.norm1, self.norm2 = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
    self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
    self.up, self.down = nn.Linear(dim, ff, bias=False), nn.Linear(ff, dim, bias=False)

  def forward(self, z: torch.Tensor) -> torch.Tensor:
    """[sequences, length, dim], attention along `length`."""
    z = z + dropout(self.out(attend(self.qkv(self.norm1(z)), self.heads)), self.rate, self.training)
    x = dropout(F.relu(self.up(self.norm2(z))), self.rate, self.training)
    return z + dropout(self.down(x), self.rate, self.training)


def alternate(blocks: nn.ModuleList, z: torch.Tensor) -> torch.Tensor:
  """Attention along axis 2 of [tasks, first, second, dim], the two axes swapped after every block."""
  for block in blocks:
    tasks, first, second, dim = z.shape
    z = block(z.reshape(tasks * first, second, dim)).view(tasks, first, second, dim).transpose(1, 2)
  return z


class Avici(nn.Module):
  """Loss of a batch of tasks under the official AVICI model."""

  def __init__(self, flags: argparse.Namespace):
    super().__init__()
    dim = flags.dim
    self.embed = nn.Linear(2, dim)
    self.blocks = nn.ModuleList(
        AviciBlock(dim, flags.heads, flags.key_size, flags.ff, flags.dropout) for _ in range(flags.blocks))
    self.norm = nn.LayerNorm(dim)
    self.u = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
    self.v = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
    self.tau, self.beta = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-3.0))

  def forward(self, x: torch.Tensor, graph: torch.Tensor) -> torch.Tensor:
    """`x` [tasks, rows, nodes, 2] and `graph` [tasks, nodes, nodes]."""
    z = self.norm(alternate(self.blocks, self.embed(x)))
    z = z.amax(1 if len(self.blocks) % 2 == 0 else 2)
    u, v = F.normalize(self.u(z), dim=-1), F.normalize(self.v(z), dim=-1)
    logits = self.tau.exp() * (u @ v.mT) + self.beta
    off = 1 - torch.eye(graph.shape[-1])
    error = (F.binary_cross_entropy_with_logits(logits, graph, reduction="none") * off).sum()
    return error / (off.sum() * len(graph)) + DUAL * spectral_radius(logits.sigmoid() * off).mean()


def spectral_radius(probs: torch.Tensor) -> torch.Tensor:
  """Largest eigenvalues by power iteration from positive vectors, which are constants in the gradient."""
  with torch.no_grad():
    u = v = torch.ones_like(probs[..., :1])
    for _ in range(POWER_STEPS):
      u, v = F.normalize(probs.mT @ u, dim=-2), F.normalize(probs @ v, dim=-2)
    scale = (u * v).sum(-2, keepdim=True)
  return (u.mT @ probs @ v / scale)[:, 0, 0]


class Bcnp(nn.Module):
  """Loss of a batch of tasks under the Bayesian causal neural process."""

  def __init__(self, flags: argparse.Namespace):
    super().__init__()
    assert flags.blocks % 2 == 0 and flags.decoder_blocks % 2 == 0, "bcnp needs even numbers of blocks"
    dim, self.heads = flags.dim, flags.heads
    sizes = (dim, flags.heads, flags.ff, flags.dropout)
    self.embed = nn.Sequential(nn.Linear(2, dim, bias=False), nn.ReLU(), nn.Linear(dim, dim, bias=False))
    self.encoder = nn.ModuleList(BcnpBlock(*sizes) for _ in range(flags.blocks))
    self.query, self.key_value, self.summary = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
    self.order_decoder = nn.Sequential(*(BcnpBlock(*sizes) for _ in range(flags.decoder_blocks // 2)))
    self.edge_decoder = nn.Sequential(*(BcnpBlock(*sizes) for _ in range(flags.decoder_blocks // 2)))
    self.edge_query, self.edge_key = nn.Linear(dim, dim), nn.Linear(dim, dim)
    self.head_weight, self.edge_bias = kaiming(1, flags.heads), nn.Parameter(torch.zeros(()))
    self.order = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.ReLU(), nn.Linear(dim, 1, bias=False))

  def summarise(self, x: torch.Tensor) -> torch.Tensor:
    """[tasks, rows, nodes, 2] to [tasks, nodes, dim]; the query row comes last."""
    z = F.pad(self.embed(x.transpose(1, 2)), (0, 0, 0, 1))
    z = alternate(self.encoder, z)
    tasks, nodes, _, dim = z.shape
    split = (tasks * nodes, -1, self.heads, dim // self.heads)
    k, v = self.key_value(z[:, :, :-1]).chunk(2, -1)
    q, k, v = (part.reshape(split).transpose(1, 2) for part in (self.query(z[:, :, -1]), k, v))
    return self.summary(F.scaled_dot_product_attention(q, k, v).reshape(tasks, nodes, dim))

  def forward(self, x: torch.Tensor, graph: torch.Tensor) -> torch.Tensor:
    """`x` [tasks, rows, nodes, 2] and `graph` [tasks, nodes, nodes]."""
    nodes, dim = graph.shape[-1], self.query.in_features
    order_tokens = self.order_decoder(self.summarise(x))
    tokens = self.edge_decoder(order_tokens)
    weight = self.head_weight.mT.expand(-1, dim // self.heads).flatten() / math.sqrt(dim)
    edges = (self.edge_query(tokens) * weight) @ self.edge_key(tokens).mT + self.edge_bias
    edges = (edges + edges.mT) / 2
    scores = F.logsigmoid(self.order(order_tokens) * torch.arange(1.0, nodes + 1))
    orders = permutations(scores)
    allowed = orders @ torch.ones(nodes, nodes).tril(-1) @ orders.mT
    probs = (edges.sigmoid()[:, None] * allowed).clamp(CLAMP, 1 - CLAMP)
    likelihood = torch.where(graph[:, None] > 0, probs, 1 - probs).mean(1)
    off = 1 - torch.eye(nodes)
    return -(likelihood.log() * off).sum() / (off.sum() * len(graph))


def permutations(scores: torch.Tensor) -> torch.Tensor:
  """[tasks, nodes, nodes] to [tasks, orders, nodes, nodes]: hard forward, Sinkhorn backward."""
  tasks, nodes, _ = scores.shape
  noisy = scores[:, None] - torch.empty(tasks, ORDERS, nodes, nodes).exponential_().log()
  soft = noisy
  for _ in range(SINKHORN_STEPS):
    soft = soft - soft.logsumexp(-1, keepdim=True)
    soft = soft - soft.logsumexp(-2, keepdim=True)
  soft = soft.exp()
  return soft + (assign(noisy.detach()) - soft.detach())


@torch.compiler.disable
def assign(noisy: torch.Tensor) -> torch.Tensor:
  """The best assignments, on the host."""
  columns = [linear_sum_assignment(matrix, maximize=True)[1] for matrix in noisy.flatten(0, 1).numpy()]
  return F.one_hot(torch.from_numpy(np.stack(columns)), noisy.shape[-1]).to(noisy.dtype).view(noisy.shape)


def unused_parameters(flags: argparse.Namespace) -> int:
  """Parameters that the original BCNP has and never uses."""
  if flags.model == "avici":
    return 0
  return flags.decoder_blocks // 2 * 2 * (4 * flags.dim ** 2 + flags.dim) + flags.dim ** 2 + flags.dim


def make_batches(flags: argparse.Namespace, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
  """Batches of tasks of all mechanisms, without interventions."""
  batches = []
  for i in range(count):
    tasks = [causal_generator_torch.sample_task(i * flags.tasks + t, "mixture", flags.nodes, flags.rows)
             for t in range(flags.tasks)]
    values = torch.stack([task[0] for task in tasks])
    graphs = torch.from_numpy(np.stack([task[1] for task in tasks])).float()
    batches.append((torch.stack([values, torch.zeros_like(values)], -1), graphs))
  return batches


def run(flags: argparse.Namespace) -> dict:
  """Trains for the steps asked for; seconds of each step after the warm-up, and facts."""
  torch.set_num_threads(flags.threads)
  torch.set_flush_denormal(True)
  torch.manual_seed(0)
  batches = make_batches(flags, 4)
  model = {"avici": Avici, "bcnp": Bcnp}[flags.model](flags).train()
  loss_of = torch.compile(model, dynamic=False) if flags.compile else model
  optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
  wall, cpu, losses = [], [], []
  for step in range(flags.warmup + flags.steps):
    start, start_cpu = time.perf_counter(), time.process_time()
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of(*batches[step % len(batches)])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM, foreach=True)
    optimizer.step()
    losses.append(loss.detach())
    wall.append(time.perf_counter() - start)
    cpu.append(time.process_time() - start_cpu)
  timed, count = wall[flags.warmup:], sum(p.numel() for p in model.parameters())
  return {
      "wall_s": statistics.median(timed), "wall_s_range": [min(timed), max(timed)],
      "cpu_s": statistics.median(cpu[flags.warmup:]), "warmup_wall_s": wall[:flags.warmup],
      "num_parameters": count, "num_parameters_original": count + unused_parameters(flags),
      "losses": torch.stack(losses).tolist(), "torch_version": torch.__version__,
  } | vars(flags)


def main() -> None:
  """Measures one model and prints a JSON line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--model", required=True, choices=sorted(BLOCKS))
  parser.add_argument("--tasks", type=int, default=4)
  parser.add_argument("--nodes", type=int, default=20)
  parser.add_argument("--rows", type=int, default=256)
  parser.add_argument("--dim", type=int, default=128)
  parser.add_argument("--blocks", type=int, default=0, help="attention blocks (of the encoder); 0: avici 12, bcnp 4")
  parser.add_argument("--decoder_blocks", type=int, default=DECODER_BLOCKS, help="bcnp: of both decoders together")
  parser.add_argument("--heads", type=int, default=8)
  parser.add_argument("--key_size", type=int, default=32, help="avici: width of a head (bcnp: dim / heads)")
  parser.add_argument("--ff", type=int, default=512)
  parser.add_argument("--dropout", type=float, default=0.1)
  parser.add_argument("--steps", type=int, default=5, help="timed steps")
  parser.add_argument("--warmup", type=int, default=2)
  parser.add_argument("--threads", type=int, default=1)
  parser.add_argument("--compile", action="store_true")
  flags = parser.parse_args()
  flags.blocks = flags.blocks or BLOCKS[flags.model]
  print(json.dumps(run(flags)))


if __name__ == "__main__":
  main()
