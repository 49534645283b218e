"""The peers of gan_ae and diffusion_ae: equal weights give what the networks and losses of jaxtrain give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the peers are written in PyTorch")

import autoencoder_generative_torch as peers  # noqa: E402
import autoencoder_sets_torch as sets  # noqa: E402

from jaxtrain import config as config_lib  # noqa: E402
from jaxtrain.experiments.autoencoder import adversarial, diffusion, nets, nets_critic, prior  # noqa: E402
from jaxtrain.experiments.autoencoder.nets_layers import Manner, Slots  # noqa: E402

B, T, C, G, K, L = 6, 5, 4, 2, 8, 8
CRITIC = {"loss": "hinge", "hidden_dims": (8, 12), "num_blocks": 2, "num_heads": 2, "r1_gamma": 1.0, "r2_gamma": 0.5,
          "adaptive": False, "lambda_adv": 0.1, "d_steps": 1}
OPTIM = {"learning_rate": 1e-3, "betas": (0.9, 0.999), "clip_norm": 1.0, "ema_decay": 0.9}
NAMES = {"kernel": "weight", "bias": "bias", "table": "table"}


def model_config(loop: str, **fields):
  """`config.model` of small networks with one latent an event."""
  config = config_lib.read_file("configs/autoencoder.py:vae")
  kind = {"gan_ae": "gan", "diffusion_ae": "diffusion"}[loop]
  sizes = {"hidden_dims": (8, 12), "num_blocks": 2, "num_heads": 2}
  values = {"latent.per_object": False, "latent.dim": L, "prior.hidden_dim": 8, "prior.num_blocks": 2,
            "encoder.kind": kind, "decoder.kind": kind, "decoder.globals_dims": (8,)}
  values |= {f"{part}.{name}": value for part in ("encoder", "decoder") for name, value in sizes.items()}
  values |= {key.replace("__", "."): value for key, value in fields.items()}
  return config_lib.with_values(config, {f"model.{key}": value for key, value in values.items()}).model


def settings_of(loop: str, model) -> dict:
  """Settings of the peer."""
  part = {"process": "edm", "p_mean": -1.2, "p_std": 1.2}
  return {"loop": loop, "model": model.to_dict() | {"critic": CRITIC, "diffusion": part}, "num_features": C,
          "num_globals": G, "num_types": K, "num_slots": T, "optim": OPTIM, "optim_critic": OPTIM,
          "weights": {"cont": 1.0, "globals": 0.1, "kl": 0.01, "prior": 0.5, "denoise": 1.0}, "batch_size": 4}


def make_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Features, types with empty slots, and globals."""
  random = np.random.RandomState(3)
  ids = random.randint(1, K, size=(B, T))
  ids[np.arange(T)[None] >= random.randint(1, T + 1, size=B)[:, None]] = 0
  return random.normal(size=(B, T, C)).astype(np.float32), ids, random.normal(size=(B, G)).astype(np.float32)


def shaken(params, seed: int):
  """Parameters moved at random, so that none is 0."""
  leaves, tree = jax.tree.flatten(params)
  random = np.random.RandomState(seed)
  return jax.tree.unflatten(tree, [leaf + 0.2 * random.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def put_in(module, params) -> None:
  """Puts parameters of a flax module into the peer, each of which must have a place there. Our kernels have the longer
  side last, and those of layers that do not narrow are the transpose of the peer's.
  """
  found = {}
  for path, value in jax.tree_util.tree_flatten_with_path(params)[0]:
    *names, last = [key.key for key in path]
    found[".".join([name for name in names if name != "linear"] + [NAMES[last]])] = torch.tensor(np.asarray(value))
  own = module.state_dict()
  assert found.keys() == own.keys()
  turned = lambda name: name.endswith("weight") and own[name].shape[0] >= own[name].shape[1]
  module.load_state_dict({name: value.T if turned(name) else value for name, value in found.items()})


def make_pair(loop: str, kind: str = "vae", encoder: str = ""):
  """(our network bound to parameters, the peer's trainee with the same)."""
  more = {"encoder__kind": encoder} if encoder else {}
  model = model_config(loop, latent__kind=kind, **more)
  meta = {"kind": "events", "num_features": C, "num_globals": G, "num_types": K, "num_slots": T, "scaler": {}}
  net = nets.build(model, meta, "float32")
  cont, ids, event = map(jnp.asarray, make_batch())
  params = shaken(net.init(jax.random.key(0), slots_of(cont, ids, event))["params"], 1)
  trainee = {"gan_ae": peers.Adversary, "diffusion_ae": peers.Trainee}[loop](settings_of(loop, model), lean=False)
  put_in(trainee.model, params)
  return net.bind({"params": params}), trainee


def slots_of(cont, ids, event) -> Slots:
  """Events as our encoders see them."""
  return Slots(cont, ids, event, (ids > 0).astype(jnp.float32))


def tensors(batch) -> list:
  """The batch for the peer."""
  return [torch.from_numpy(column) for column in batch]


@pytest.mark.parametrize("loop, kind, encoder", [("gan_ae", "vae", ""), ("diffusion_ae", "linear", ""),
                                                 ("gan_ae", "none", "mlp")])
def test_networks_are_ours(loop, kind, encoder):
  """Equal parameters, all of which have a place, give equal latents, velocities of the prior and events."""
  ours, trainee = make_pair(loop, kind, encoder)
  batch, random = make_batch(), np.random.RandomState(5)
  cont, ids, event = tensors(batch)
  mask = (ids > 0).float()
  z, _ = ours.encode(slots_of(*map(jnp.asarray, batch)))
  with torch.no_grad():
    assert_close(trainee.model.encode(cont, ids, event, mask), z[:, 0])
    x, level, latent = (random.normal(size=shape).astype(np.float32) for shape in ((B, T, C), (B,), (B, L)))
    assert_close(trainee.model.prior(*map(torch.from_numpy, (latent, level)), ids), ours.prior(latent, level, batch[1]))
    noise = x if loop == "diffusion_ae" else random.normal(size=(B, T, L)).astype(np.float32)
    found = trainee.model.decode(torch.from_numpy(latent), torch.from_numpy(noise), torch.from_numpy(level), ids, mask)
  ones = jnp.ones((B, 1))
  wanted = (ours.raw(noise, level, latent[:, None], ones, batch[1]) if loop == "diffusion_ae" else
            ours.decode(latent[:, None], ones, noise, batch[1]))
  assert_close(sets.only_real(found[0], mask), np.asarray(wanted.cont) * mask.numpy()[..., None])
  assert_close(found[1], wanted.globals)


def assert_close(found, wanted) -> None:
  """Asserts that the peer's numbers are ours."""
  np.testing.assert_allclose(found.detach().numpy(), np.asarray(wanted), rtol=2e-4, atol=2e-5)


def test_the_critic_and_its_penalties_are_ours():
  """Logits and mean squared norms of their gradients, of real events and of those that came back."""
  torch.manual_seed(0)
  _, trainee = make_pair("gan_ae")
  critic = nets_critic.Critic(K, trainee.settings["model"]["encoder"]["embed_dim"], CRITIC["hidden_dims"],
                              CRITIC["num_blocks"], CRITIC["num_heads"], Manner("gelu", 0.0, "float32"))
  batch = make_batch()
  slots = slots_of(*map(jnp.asarray, batch))
  params = shaken(critic.init(jax.random.key(0), slots)["params"], 2)
  put_in(trainee.critic, params)
  judge = lambda given: critic.apply({"params": params}, given)
  draws = peers.draw(trainee.settings, B)
  with torch.no_grad():
    *_, features, whole = trainee.terms(trainee.model, tensors(batch), draws)
  made = slots._replace(cont=features.numpy(), globals=whole.numpy())
  loss, found = trainee.critic_loss(tensors(batch), draws)
  real, fake = judge(slots), judge(made)
  wanted = {"real_logit": real, "fake_logit": fake, "r1": adversarial.penalty_rows(judge, slots),
            "r2": adversarial.penalty_rows(judge, made)}
  for name, values in wanted.items():
    np.testing.assert_allclose(found[name].item(), values.mean(), rtol=1e-3, atol=1e-5, err_msg=name)
  total = sum(rows.mean() for rows in adversarial.critic_rows("hinge", real, fake))
  total += 0.5 * sum(CRITIC[f"{name}_gamma"] * wanted[name].mean() for name in ("r1", "r2"))
  np.testing.assert_allclose(loss.item(), total, rtol=1e-3)


def test_losses_of_denoising_and_of_the_prior_are_ours():
  """By `diffusion`, of equal levels and noise."""
  ours, trainee = make_pair("diffusion_ae", "linear")
  batch = make_batch()
  cont, ids, event = tensors(batch)
  torch.manual_seed(0)
  draws = peers.draw(trainee.settings, B)
  trainee.moments = torch.stack([torch.full((L,), 0.3), torch.full((L,), 1.7)])
  terms, z, *_ = trainee.terms(trainee.model, (cont, ids, event), draws)
  mask = (batch[1] > 0).astype(np.float32)
  latent, ones = ours.encode(slots_of(*map(jnp.asarray, batch)))
  network = lambda x, level: ours.raw(x, level, latent, ones, batch[1]).cont
  given = [draws[name].numpy() for name in ("log_sigma", "decoder")]
  rows, _ = diffusion.loss_rows(diffusion.Process("edm"), network, batch[0], np.exp(given[0]), given[1], mask)
  np.testing.assert_allclose(terms["denoise"].item(), rows.sum() / mask.sum(), rtol=2e-4)
  fields = {"ids": batch[1], "prior_level": draws["prior_level"].numpy(), "prior_noise": draws["prior"].numpy()}
  with jax.numpy_rank_promotion("allow"):
    wanted = prior.loss_rows(ours, jnp.asarray(trainee.moments.numpy()), fields, latent).mean()
  np.testing.assert_allclose(trainee.prior_loss(trainee.model, z, ids, draws).item(), wanted, rtol=2e-4)


def test_a_vae_has_its_divergence_and_its_sample():
  ours, trainee = make_pair("gan_ae")
  batch = make_batch()
  draws = peers.draw(trainee.settings, B)
  z, _, divergence = trainee.latent(trainee.model, tensors(batch), draws)
  both, _ = ours.encode(slots_of(*map(jnp.asarray, batch)))
  mean, log_var = np.split(np.asarray(both[:, 0], np.float64), 2, axis=1)
  assert_close(z, mean + np.exp(log_var / 2) * draws["latent"].numpy())
  assert_close(divergence, 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(axis=1))


def test_the_critic_is_blind_to_order_and_padding_and_its_penalty_is_a_difference_quotient():
  """In float64, of one event: the gradient by each feature and global by central differences of 1e-5."""
  torch.manual_seed(2)
  _, trainee = make_pair("gan_ae")
  critic = trainee.critic.double()
  cont, ids, event = (column.double() if column.is_floating_point() else column for column in tensors(make_batch()))
  mask, order = (ids > 0).double(), torch.randperm(T)
  logits = critic(cont, ids, event, mask)
  other = torch.where(mask[..., None] > 0, cont, 7.0)
  torch.testing.assert_close(critic(other[:, order], ids[:, order], event, mask[:, order]), logits)
  _, penalty = trainee.penalty(cont, ids, event, mask)
  total = 0.0
  for of in (cont, event):
    for k in range(of[0].numel()):
      step = torch.zeros_like(of)
      step.view(B, -1)[:, k] = 1e-5
      moved = lambda sign: critic(cont + sign * step if of is cont else cont, ids,
                                  event + sign * step if of is event else event, mask)
      total += ((moved(1) - moved(-1)) / 2e-5).square()
  torch.testing.assert_close(penalty, total.mean(), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("loop", ["gan_ae", "diffusion_ae"])
def test_the_original_and_the_careful_loop_take_the_same_steps(loop):
  """From equal weights and random numbers, two steps."""
  batch, found = tensors(make_batch()), []
  for lean in (False, True):
    torch.manual_seed(1)
    trainee = {"gan_ae": peers.Adversary, "diffusion_ae": peers.Trainee}[loop](
        settings_of(loop, model_config(loop)), lean)
    for _ in range(2):
      trainee.step(batch)
    assert np.isfinite(trainee.judge(batch)[0].item())
    found.append(trainee)
  parts = ["model", "average"] + ["critic"] * (loop == "gan_ae")
  for part in parts:
    first, second = (getattr(trainee, part).state_dict() for trainee in found)
    for name, value in first.items():
      np.testing.assert_allclose(value.numpy(), second[name].numpy(), rtol=1e-3, atol=2e-5, err_msg=f"{part}.{name}")
