r"""PyTorch peers of the tabular VAE benchmark: one training run, timed an epoch at a time on one CPU thread.

The tabular benchmark runs this file as a subprocess next to jaxtrain's `vae` system. It needs torch and numpy
only, and writes one JSON file. All loops train the same model with the same objective, optimiser and schedule
for the same number of steps (the last partial batch is kept): they differ in speed and random numbers only.

  dataloader  the loop as it is usually written: TensorDataset, DataLoader(shuffle=True), Adam with its
              defaults, boolean indexing for the masked entries, `.item()` on every term of every step.
  foreach     the loop a careful user writes: permuted tensor cut into views, foreach Adam, nothing read back.
  fast        eager PyTorch tuned for this size of model: the table is permuted once an epoch and cut into
              views, noise and masks are drawn once an epoch, parameters and gradients are views of one flat
              vector (so that fused Adam, clipping and zeroing are one call each), and no step reads a value
              back. Denormals are flushed.
  compiled    whole training steps (forward, gradient, clipping, Adam, running statistics), `UNROLL` of them a
              call, as one `torch.compile` graph with a C++ wrapper. Compilation happens before the first
              timed epoch and is reported as `compile_seconds`. Needs a C++ compiler.

Run it as (one core: put `taskset -c 0` in front)

  python tests/benchmarks/tabular_vae_torch.py --table=TABLE.npz --recipe=standard --kind=semisup \
    --loop=fast --epochs=5 --seed=42 --out=RESULT.json

TABLE.npz holds `x` [N, 6] float32, already scaled, and `label` [N] int64 in 0..138. `history` in the result
holds means over the samples of an epoch; `eval` is measured on the whole table after training, in evaluation
mode (reconstruction from mu, nothing masked). `seconds_per_epoch` is wall time; where it exceeds
`cpu_seconds_per_epoch` by more than a few per cent the core was shared, and the timing is not to be quoted.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

FEATURES, LATENTS, CLASSES = 6, 10, 139
WIDTHS = (64, 32)
NUM_PARAMETERS = {'unsup': 6426, 'semisup': 16165}
DROPOUT = 0.3
MASK_RATIO, MASK_WEIGHT = 0.1, 0.5
BETA_START, BETA_END, ANNEAL_EPOCHS = 1e-6, 0.5, 30
ALPHA = {'standard': 0.1, 'hybrid': 0.5}
CLIP_NORM = 1.0
LEARNING_RATE, BETA1, BETA2, ADAM_EPS = 1e-3, 0.9, 0.999, 1e-8
UNROLL = 7


class VAE(nn.Module):
  """[Linear, ReLU, BatchNorm] encoder and decoder; `semisup` adds a classifier on the latent sample."""

  def __init__(self, kind):
    super().__init__()
    self.encoder = _blocks(FEATURES, *WIDTHS)
    self.fc_mu = nn.Linear(WIDTHS[-1], LATENTS)
    self.fc_logvar = nn.Linear(WIDTHS[-1], LATENTS)
    self.decoder = _blocks(LATENTS, *reversed(WIDTHS))
    self.fc_out = nn.Linear(WIDTHS[0], FEATURES)
    self.classifier = None
    if kind == 'semisup':
      self.classifier = nn.Sequential(
          nn.Linear(LATENTS, 64), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(64, CLASSES))
    count = sum(p.numel() for p in self.parameters())
    assert count == NUM_PARAMETERS[kind], count

  def encode(self, x):
    h = self.encoder(x)
    return self.fc_mu(h), self.fc_logvar(h)

  def decode(self, z):
    return self.fc_out(self.decoder(z))

  def forward(self, x, noise=None, keep=None):
    """`noise` [B, 10] and the scaled dropout mask `keep` [B, 64] are drawn here unless they are given."""
    mu, logvar = self.encode(x)
    std = torch.exp(0.5 * logvar)
    z = torch.addcmul(mu, torch.randn_like(std) if noise is None else noise, std)
    logits = None
    if self.classifier is not None:
      first, relu, dropout, last = self.classifier
      hidden = relu(first(z))
      logits = last(dropout(hidden) if keep is None else hidden * keep)
    return self.decode(z), mu, logvar, logits


def _blocks(*sizes):
  layers = []
  for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
    layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.BatchNorm1d(fan_out)]
  return nn.Sequential(*layers)


def term_names(recipe, kind):
  return (['loss', 'recon', 'kl'] + (['masked'] if recipe == 'hybrid' else [])
          + (['class'] if kind == 'semisup' else []))


def objective(recipe, output, x, label, mask, beta):
  """The terms of `term_names`: sums over the batch for the standard recipe, means for the hybrid one.

  `mask` marks the hidden inputs of the hybrid recipe: boolean to index with, or float to weigh with.
  """
  recon, mu, logvar, logits = output
  divergence = 1 + logvar - mu.pow(2) - logvar.exp()
  if recipe == 'standard':
    terms = [F.mse_loss(recon, x, reduction='sum'), -0.5 * divergence.sum()]
    loss = terms[0] + beta * terms[1]
  else:
    if mask.dtype == torch.bool:
      masked = F.mse_loss(recon[mask], x[mask]) if mask.any() else torch.zeros(())
      terms = [F.mse_loss(recon, x), -0.5 * divergence.mean(), masked]
    else:
      squared = (recon - x).square()
      masked = (squared * mask).sum() / mask.sum().clamp(min=1)
      terms = [squared.mean(), -0.5 * divergence.mean(), masked]
    loss = terms[0] + MASK_WEIGHT * terms[2] + beta * terms[1]
  if logits is not None:
    terms.append(F.cross_entropy(logits, label, reduction='sum' if recipe == 'standard' else 'mean'))
    loss = loss + ALPHA[recipe] * terms[-1]
  return [loss] + terms


def beta_of(recipe, epoch):
  if recipe == 'standard':
    return 1.0
  return BETA_START + (BETA_END - BETA_START) * min(epoch / ANNEAL_EPOCHS, 1.0)


class Dataloader:
  """The loop as it is usually written."""

  def __init__(self, model, x, label, args):
    self.model, self.args, self.rows = model, args, len(x)
    self.names = term_names(args.recipe, args.kind)
    data = TensorDataset(x, label) if args.kind == 'semisup' else TensorDataset(x)
    self.loader = DataLoader(data, batch_size=args.batch_size, shuffle=True)
    self.optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

  def epoch(self, beta):
    recipe, totals = self.args.recipe, [0.0] * len(self.names)
    for x, *label in self.loader:
      mask, inputs = None, x
      if recipe == 'hybrid':
        mask = torch.rand_like(x) < MASK_RATIO
        inputs = x.clone()
        inputs[mask] = 0
      self.optimizer.zero_grad()
      terms = objective(recipe, self.model(inputs), x, label[0] if label else None, mask, beta)
      terms[0].backward()
      if recipe == 'hybrid':
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
      self.optimizer.step()
      weight = 1 if recipe == 'standard' else len(x)
      for i, term in enumerate(terms):
        totals[i] += term.item() * weight
    return [total / self.rows for total in totals]

  def finish(self):
    pass


class Foreach:
  """The usual tuned loop: the table permuted once an epoch and cut into views, foreach Adam, no value read back."""

  def __init__(self, model, x, label, args):
    self.model, self.x, self.label, self.args = model, x, label, args
    self.optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, foreach=True)

  def epoch(self, beta):
    order, recipe, history = torch.randperm(len(self.x)), self.args.recipe, []
    columns = [self.x[order]] + ([self.label[order]] if self.args.kind == 'semisup' else [])
    for x, *label in zip(*(column.split(self.args.batch_size) for column in columns)):
      mask = (torch.rand_like(x) < MASK_RATIO).float() if recipe == 'hybrid' else None
      self.optimizer.zero_grad(set_to_none=True)
      inputs = x if mask is None else x * (1 - mask)
      terms = objective(recipe, self.model(inputs), x, label[0] if label else None, mask, beta)
      terms[0].backward()
      if recipe == 'hybrid':
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM, foreach=True)
      self.optimizer.step()
      history.append(torch.stack([term.detach() for term in terms]) * (1 if recipe == 'standard' else len(x)))
    return (torch.stack(history).double().sum(0) / len(self.x)).tolist()

  def finish(self):
    pass


class Flat:
  """What the tuned loops share: flat parameters, and the table of an epoch with all its random numbers."""

  def __init__(self, model, x, label, args):
    torch.set_flush_denormal(True)
    self.model, self.x, self.label, self.args = model, x, label, args
    for module in model.modules():
      if isinstance(module, nn.BatchNorm1d):
        module.num_batches_tracked = None
    self.flat = nn.Parameter(nn.utils.parameters_to_vector(model.parameters()).detach())
    self.flat.grad = torch.zeros_like(self.flat)
    self.optimizer = torch.optim.Adam([self.flat], lr=LEARNING_RATE, fused=True)

  def shuffled(self):
    """[x, noise], label and dropout mask if semisup, inputs and mask if hybrid: one row a sample."""
    order = torch.randperm(len(self.x))
    table = {'x': self.x[order], 'noise': torch.randn(len(self.x), LATENTS)}
    if self.args.kind == 'semisup':
      table['label'] = self.label[order]
      table['keep'] = _dropout_mask(len(self.x), 64)
    if self.args.recipe == 'hybrid':
      mask = torch.rand_like(table['x']) < MASK_RATIO
      table['inputs'] = table['x'].masked_fill(mask, 0)
      table['mask'] = mask.float()
    return table

  def terms(self, model, batch, beta):
    output = model(batch.get('inputs', batch['x']), batch['noise'], batch.get('keep'))
    return objective(self.args.recipe, output, batch['x'], batch.get('label'), batch.get('mask'), beta)

  def finish(self):
    pass


def _dropout_mask(rows, width):
  """Scaled dropout mask from 16 random bits an entry: several times cheaper than a uniform float each."""
  kept = round((1 - DROPOUT) * 2**16)
  bits = torch.empty(rows, width // 4, dtype=torch.int64).random_(-2**63, None).view(torch.int16)
  return (bits >= 2**15 - kept).float().mul_(2**16 / kept)


def _clip_scale(grad):
  return (CLIP_NORM / (torch.linalg.vector_norm(grad) + 1e-6)).clamp(max=1.0)


def split(table, rows):
  """Batches of a table as dicts of views."""
  columns = [value.split(rows) for value in table.values()]
  return [dict(zip(table, values)) for values in zip(*columns)]


class Fast(Flat):
  """Tuned eager loop."""

  def __init__(self, model, x, label, args):
    super().__init__(model, x, label, args)
    offset = 0
    for p in model.parameters():
      part = slice(offset, offset + p.numel())
      p.data, p.grad = self.flat.data[part].view(p.shape), self.flat.grad[part].view(p.shape)
      offset += p.numel()

  def epoch(self, beta):
    history = []
    for batch in split(self.shuffled(), self.args.batch_size):
      self.flat.grad.zero_()
      terms = self.terms(self.model, batch, beta)
      terms[0].backward()
      weight = 1
      if self.args.recipe == 'hybrid':
        self.flat.grad.mul_(_clip_scale(self.flat.grad))
        weight = len(batch['x'])
      self.optimizer.step()
      history.append(torch.stack([term.detach() for term in terms]) * weight)
    return (torch.stack(history).double().sum(0) / len(self.x)).tolist()


class Compiled(Flat):
  """Several whole training steps a call, compiled; the optimiser only holds the learning rate."""

  def __init__(self, model, x, label, args):
    super().__init__(model, x, label, args)
    self.shapes = {name: p.shape for name, p in model.named_parameters()}
    flat = self.flat.detach().clone()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    self.state = (flat, torch.zeros_like(flat), torch.zeros_like(flat), buffers, torch.zeros(()))
    self.steps = torch.compile(self._steps, dynamic=False, fullgraph=True, options={'cpp_wrapper': True})
    start = time.perf_counter()
    for block in self._blocks()[-2:]:
      self.steps(self.state, block, torch.ones(()), torch.ones(()))
    self.compile_seconds = time.perf_counter() - start

  def _blocks(self):
    return split(self.shuffled(), UNROLL * self.args.batch_size)

  def _loss(self, flat, buffers, batch, beta):
    sizes = [shape.numel() for shape in self.shapes.values()]
    views = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), flat.split(sizes))}
    buffers = {name: value.clone() for name, value in buffers.items()}

    def model(*inputs):
      return torch.func.functional_call(self.model, {**views, **buffers}, inputs)

    terms = self.terms(model, batch, beta)
    return terms[0], (torch.stack([term.detach() for term in terms]), buffers)

  def _steps(self, state, block, beta, lr):
    flat, first, second, buffers, count = state
    history = 0
    for batch in split(block, self.args.batch_size):
      gradient = torch.func.grad(self._loss, has_aux=True)
      grad, (terms, buffers) = gradient(flat, buffers, batch, beta)
      weight = 1
      if self.args.recipe == 'hybrid':
        grad = grad * _clip_scale(grad)
        weight = len(batch['x'])
      count = count + 1
      first = torch.lerp(first, grad, 1 - BETA1)
      second = BETA2 * second + (1 - BETA2) * grad * grad
      scale = (1 - BETA2 ** count).sqrt()
      flat = flat - lr / (1 - BETA1 ** count) * first / (second.sqrt() / scale + ADAM_EPS)
      history = history + terms * weight
    return (flat, first, second, buffers, count), history

  def epoch(self, beta):
    beta, lr = torch.tensor(beta), torch.tensor(self.optimizer.param_groups[0]['lr'])
    history = []
    for block in self._blocks():
      self.state, terms = self.steps(self.state, block, beta, lr)
      history.append(terms)
    return (torch.stack(history).double().sum(0) / len(self.x)).tolist()

  def finish(self):
    nn.utils.vector_to_parameters(self.state[0], self.model.parameters())
    self.model.load_state_dict(self.state[3], strict=False)


LOOPS = {'dataloader': Dataloader, 'fast': Fast, 'compiled': Compiled, 'foreach': Foreach}


def train(loop, args):
  """Runs the epochs; wall and CPU seconds of each, and the mean of every term."""
  names = term_names(args.recipe, args.kind)
  history, wall, cpu = {name: [] for name in names}, [], []
  plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(loop.optimizer, patience=10, factor=0.5)
  for epoch in range(args.epochs):
    start, start_cpu = time.perf_counter(), time.process_time()
    means = loop.epoch(beta_of(args.recipe, epoch))
    if args.recipe == 'hybrid':
      plateau.step(means[0])
    wall.append(time.perf_counter() - start)
    cpu.append(time.process_time() - start_cpu)
    for name, value in zip(names, means):
      history[name].append(value)
  loop.finish()
  return wall, cpu, history


@torch.no_grad()
def evaluate(model, x):
  model.eval()
  mu, logvar = model.encode(x)
  squared = (model.decode(mu) - x).double().square()
  total = (x.double() - x.double().mean(0)).square().sum(0)
  divergence = -0.5 * (1 + logvar - mu.square() - logvar.exp()).double()
  return {
      'recon_mse': squared.mean().item(),
      'r2_per_feature': (1 - squared.sum(0) / total).tolist(),
      'kl_per_sample': divergence.sum(1).mean().item(),
  }


def read_table(path):
  with np.load(path) as table:
    x, label = table['x'], table['label']
  if x.dtype != np.float32 or x.shape[1:] != (FEATURES,):
    raise ValueError(f'{path}: x must be [N, {FEATURES}] float32, got {x.shape} {x.dtype}')
  if label.dtype != np.int64 or label.shape != x.shape[:1]:
    raise ValueError(f'{path}: label must be [{len(x)}] int64, got {label.shape} {label.dtype}')
  if label.min() < 0 or label.max() >= CLASSES:
    raise ValueError(f'{path}: labels must lie in 0..{CLASSES - 1}, got {label.min()}..{label.max()}')
  return torch.from_numpy(x), torch.from_numpy(label)


def parse_args():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--table', required=True)
  parser.add_argument('--recipe', required=True, choices=sorted(ALPHA))
  parser.add_argument('--kind', required=True, choices=sorted(NUM_PARAMETERS))
  parser.add_argument('--loop', required=True, choices=sorted(LOOPS))
  parser.add_argument('--epochs', required=True, type=int)
  parser.add_argument('--seed', required=True, type=int)
  parser.add_argument('--out', required=True)
  parser.add_argument('--batch_size', default=256, type=int)
  return parser.parse_args()


def main():
  args = parse_args()
  torch.set_num_threads(1)
  torch.set_num_interop_threads(1)
  torch.manual_seed(args.seed)
  np.random.seed(args.seed)
  x, label = read_table(args.table)
  model = VAE(args.kind)
  model.train()
  loop = LOOPS[args.loop](model, x, label, args)
  wall, cpu, history = train(loop, args)
  result = {
      'seconds_per_epoch': wall, 'cpu_seconds_per_epoch': cpu,
      'history': history, 'eval': evaluate(model, x),
      'compile_seconds': getattr(loop, 'compile_seconds', 0.0),
      'torch_version': torch.__version__, 'threads': torch.get_num_threads(),
      'num_parameters': NUM_PARAMETERS[args.kind], 'rows': len(x), 'batch_size': args.batch_size,
      'loop': args.loop, 'recipe': args.recipe, 'kind': args.kind, 'seed': args.seed,
  }
  with open(args.out, 'w') as f:
    json.dump(result, f, indent=1)


if __name__ == '__main__':
  main()
