"""The peers of the autoencoder: their sizes, and one step of the loss against the formulas in float64 NumPy."""

import numpy as np
import pytest
from scipy import special

torch = pytest.importorskip("torch", reason="the peers are written in PyTorch")

import autoencoder_torch as peers  # noqa: E402

B, T, C, G = 6, 5, 4, 2


def make_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Features, types with empty slots, and raw globals in float64."""
  random = np.random.RandomState(3)
  ids = random.randint(1, peers.NUM_TYPES, size=(B, T))
  ids[np.arange(T)[None] >= random.randint(1, T + 1, size=B)[:, None]] = 0
  return random.normal(size=(B, T, C)), ids, np.stack([random.gamma(2.0, 60.0, B), random.uniform(-3, 3, B)], axis=1)


def run_stack(weights: dict, name: str, x: np.ndarray) -> np.ndarray:
  """Linear maps with x Phi(x) between them."""
  places = sorted({int(key.split(".")[1]) for key in weights if key.startswith(f"{name}.")})
  for k in places:
    x = x @ weights[f"{name}.{k}.weight"].T + weights[f"{name}.{k}.bias"]
    if k != places[-1]:
      x = x * special.ndtr(x)
  return x


def formula(weights: dict, latent: str, batch: tuple) -> dict:
  """The legacy loss, its terms, and after one step the codes, all in NumPy."""
  cont, ids, event = batch
  z = run_stack(weights, "encoder", np.concatenate([cont, weights["embedding.weight"][ids]], axis=-1))
  found = {"commitment": 0.0, "perplexity": 0.0}
  if latent == "linear":
    z = z @ weights["latent.weight"].T + weights["latent.bias"]
  if latent == "vq":
    codes, flat = weights["latent.codes"], z.reshape(-1, peers.LATENT)
    index = np.argmin(((flat[:, None] - codes) ** 2).sum(-1), axis=1)
    found["commitment"] = 0.25 * np.mean((flat - codes[index]) ** 2)
    count = np.bincount(index, minlength=len(codes))
    share = count[count > 0] / count.sum()
    found["perplexity"] = np.exp(-np.sum(share * np.log(share)))
    total = np.zeros_like(codes)
    np.add.at(total, index, flat)
    n, w = 0.01 * count, 0.99 * codes + 0.01 * total
    found["codes"] = w / ((n + 1e-5) / (n.sum() + len(codes) * 1e-5) * n.sum())[:, None]
    z = codes[index].reshape(z.shape)
  found["cont"] = np.mean((run_stack(weights, "decoder", z) - cont) ** 2)
  found["globals"] = np.mean((run_stack(weights, "globals_head", z.mean(axis=1)) - event) ** 2)
  return found | {"loss": found["cont"] + found["commitment"] + found["globals"]}


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("latent", peers.LATENTS)
def test_one_loss_of_the_peer_is_the_formula(latent, lean):
  torch.manual_seed(1)
  model = peers.Autoencoder(latent, lean=lean).double()
  batch = make_batch()
  wanted = formula({name: value.detach().numpy().copy() for name, value in model.state_dict().items()}, latent, batch)
  loss, terms = model.losses(*map(torch.from_numpy, batch))
  np.testing.assert_allclose(loss.item(), wanted["loss"], rtol=1e-12)
  for name in ("cont", "commitment", "globals", "perplexity"):
    np.testing.assert_allclose(terms[name].item(), wanted[name], rtol=1e-7 if name == "perplexity" else 1e-12)
  if latent == "vq":
    np.testing.assert_allclose(model.latent.codes.numpy(), wanted["codes"], rtol=1e-10)


def test_gradients_go_straight_through_the_codes():
  """The gradient of the encoder's output is that of the picked codes, plus that of the commitment."""
  quantiser = peers.Quantiser(lean=False).double()
  z = torch.randn(2, 3, peers.LATENT, dtype=torch.float64, requires_grad=True)
  weight, start = torch.randn_like(z), quantiser.codes.detach().clone()
  out, commitment, _ = quantiser(z)
  ((out * weight).sum() + commitment).backward()
  picked = torch.cdist(z.detach().reshape(-1, peers.LATENT), start).argmin(1)
  wanted = weight + 2 * 0.25 * (z.detach() - start[picked].view_as(z)) / z.numel()
  np.testing.assert_allclose(z.grad.numpy(), wanted.numpy(), rtol=1e-12)


@pytest.mark.parametrize("latent, wanted", [("none", 44_742), ("linear", 45_798), ("vq", 61_126)])
def test_sizes_are_the_originals(latent, wanted):
  assert sum(part.numel() for part in peers.Autoencoder(latent).parameters()) == wanted


@pytest.mark.parametrize("latent", peers.LATENTS)
def test_the_original_and_the_careful_loop_take_the_same_step(latent):
  """From equal weights, one Adam step on one batch."""
  batch, stepped = [torch.from_numpy(column) for column in make_batch()], []
  for lean in (False, True):
    torch.manual_seed(1)
    model = peers.Autoencoder(latent, lean=lean).double()
    peers.train_step(model, torch.optim.Adam(model.parameters(), lr=peers.RATE, fused=lean), batch)
    stepped.append(model.state_dict())
  for name, value in stepped[0].items():
    np.testing.assert_allclose(value.numpy(), stepped[1][name].numpy(), rtol=1e-8, atol=1e-11, err_msg=name)
