"""Networks of events that are small and quick to compile: settings, meta and slots for tests of the autoencoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import made_events
from jaxtrain.experiments.autoencoder import events as events_lib, latents, nets, scaling
from jaxtrain.nn import quantisers

NUM_TYPES, NUM_SLOTS = 8, 6


def model(encoder="mlp", decoder="mlp", latent="vq", dims=(8, 12), dim=8, **changes):
  """`config.model` with narrow layers; changes are values at dotted keys written with __ for dots."""
  part = {"hidden_dims": dims, "embed_dim": 4, "num_blocks": 2, "num_heads": 2, "own": ()}
  found = ConfigDict({
      "encoder": part | {"kind": encoder}, "decoder": part | {"kind": decoder, "globals_dims": (6,)},
      "latent": {"kind": latent, "dim": dim, "num_codes": 16, "num_stages": 2, "levels": (4, 3), "decay": 0.9,
                 "revive_below": 0.1, "gradient": "straight", "own": (), "per_object": True},
      "prior": {"hidden_dim": 8, "num_blocks": 1, "num_steps": 4},
      "activation": "gelu", "dropout": 0.0, "globals_slot": True, "legacy": False})
  with found.unlocked():
    found.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
  return found


def original(latent):
  """`config.model` of the original's network at its own sizes."""
  return model(latent=latent, dims=(128, 128), dim=32, encoder__embed_dim=8, decoder__globals_dims=(32,), legacy=True,
               latent__num_codes=512)


def events(num_events=12, num_slots=NUM_SLOTS, seed=0):
  """Events of `made_events`, of which the first has no object and the second one."""
  found = made_events.draw(num_events, num_slots, seed)
  ids = found.ids.copy()
  ids[0], ids[1, 1:] = 0, 0
  return events_lib.assemble(ids, found.momenta, found.globals)


def slots_and_meta(norm="physics", **sizes):
  """Normalised slots of `events` in NumPy, and the meta that a network needs."""
  of = events(**sizes)
  scaler = scaling.fit(of, norm, ("e", "pt", "eta", "phi"))
  cont, of_event = scaling.forward(scaler, of)
  meta = {"kind": "events", "num_types": NUM_TYPES, "num_features": cont.shape[-1],
          "num_globals": of_event.shape[-1], "scaler": scaler, "image_shape": []}
  batch = {"cont": cont, "ids": of.ids, "globals": of_event}
  slots = jax.jit(nets.make_slots)({name: jnp.asarray(x) for name, x in batch.items()})
  return jax.tree.map(np.asarray, slots), meta  # arithmetic in NumPy compiles nothing


def codes_of(plan, seed=0):
  """Codes of a plan, all of them used, of a codebook at random; None where there are none."""
  if plan.kind not in latents.WITH_CODES:
    return None
  draw, width = np.random.RandomState(seed), len(plan.levels) or plan.dim
  codes = draw.normal(0, 0.5, (plan.num_stages, plan.num_codes, width)).astype(np.float32)
  use = draw.dirichlet(np.ones(plan.num_codes), plan.num_stages).astype(np.float32)
  return quantisers.Codebook(*map(jnp.asarray, (codes, use, codes * use[..., None])))


def random_params(net, inputs, seed=0):
  """Parameters of a network, none of which is 0: what starts at zero would hide what it lets through."""
  draw = np.random.RandomState(seed)
  shapes = jax.eval_shape(net.init, jax.random.key(0), inputs)["params"]
  return jax.tree.map(lambda x: jnp.asarray(draw.normal(0, 0.4, x.shape), jnp.float32), shapes)


@functools.cache
def same_kind(kind):
  """(network, parameters) with encoder and decoder of one kind, and no latent of a kind."""
  slots, meta = slots_and_meta()
  net = nets.build(model(kind, kind, "none", encoder__num_blocks=1, decoder__num_blocks=1), meta, "float32")
  return net, random_params(net, slots)


def image_meta(side=28):
  """Meta of images of side x side pixels."""
  return {"kind": "images", "num_types": 0, "num_features": 0, "num_globals": 0, "image_shape": [side, side, 1]}
