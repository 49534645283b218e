"""Floating-point operations of a training step's matrix products, by formula: forward and backward, once each.

A product of [T, D] and [D, F] costs 2 T D F forwards and twice that backwards. What is computed again to save memory,
norms, activations, noise, the optimiser and the making of data are left out, so a utilisation from these numbers is a
lower bound. A family of experiments without an entry in `FORMULAS` has no formula.
"""

from typing import Any

import jax


def of_step(config, params) -> float | None:
  """Operations of one step of a config, from the shapes of its parameters; None where its family has no formula."""
  family = config.experiment.split(".")[-2]
  return FORMULAS[family](config, params) if family in FORMULAS else None


def count_weights(tree: Any) -> int:
  """Number of entries of all kernels [D, F] of a tree."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree) if len(leaf.shape) == 2)


def of_table_step(config, params) -> float:
  """Of a network that reads rows of a table: every kernel works once on each row."""
  return 6.0 * count_weights(params) * config.train.batch_size


def of_joint_step(config, params) -> float:
  """Of networks that each read every row; those of the arms have kernels [K, D, F], one for each class."""
  kernels = (leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "kernel")
  return 6.0 * sum(leaf.size for leaf in kernels) * config.train.batch_size


def of_codec_step(config, params) -> float:
  """Of a codec of states: the kernels, and the linear maps beside them, work once on each row; densities are left out.
  """
  matrices = (leaf for path, leaf in jax.tree.leaves_with_path(params)
              if path[-1].key in ("kernel", "matrix_in", "matrix_out"))
  return 6.0 * sum(leaf.size for leaf in matrices) * config.train.batch_size


def of_tasks_step(config, params) -> float:
  """Of a network with attention over variables and samples of a task, for the largest padded number of variables."""
  model, encoder, is_bcnp = config.model, params["encoder"], config.experiment.endswith(".bcnp")
  nodes = max(config.data.pad_to or config.data.num_nodes)
  rows = config.data.num_rows + config.data.num_rows_int + is_bcnp  # BCNP adds a row that asks
  variables = config.train.batch_size * nodes
  per_token = count_weights({name: tree for name, tree in encoder.items() if name.startswith(("block", "embedding"))})
  products = 6.0 * (per_token * rows + count_weights(params) - per_token) * variables
  inner = model.num_heads * model.key_size if "key_size" in model else model.dim
  num_blocks = model.num_blocks if "num_blocks" in model else model.num_layers
  attended = num_blocks / 2 * (rows + nodes) * rows  # half the blocks attend to samples, half to variables
  if is_bcnp:
    attended += model.num_layers_decoder * nodes
  return products + 12.0 * inner * attended * variables


def of_event_step(config, params) -> float:
  """Of MLPs of the slots of an event: a kernel works once on each slot, those of the event as a whole once on each
  event; and each latent is compared with the codes.
  """
  model, of_event, of_slot = config.model, 0, 0
  for path, leaf in jax.tree.leaves_with_path(params):
    names = [key.key for key in path]
    if names[-1] == "kernel" and set(names) & {"event", "globals", "context"}:
      of_event += leaf.size
    elif names[-1] == "kernel":
      of_slot += leaf.size
  slots = config.data.num_slots
  compared = (slots + model.globals_slot) * model.latent.num_codes * model.latent.dim * (model.latent.kind == "vq")
  return (6.0 * (slots * of_slot + of_event) + 2.0 * compared) * config.train.batch_size


FORMULAS = {"tabular_vae": of_table_step, "causal_discovery": of_tasks_step, "causal_consistency": of_joint_step,
            "semantic_compression": of_codec_step, "autoencoder": of_event_step}
