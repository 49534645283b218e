"""Parameters of the outcome networks as global latent variables: their draw, their KL, and draws after training.

All other networks stay point estimates. The posterior is a product of Normals, the prior of each parameter
N(0, s^2 / n) with n the inputs of its layer and s `model.prior_sd`. One draw serves all rows of a step, so the step
makes it and adds the KL once, whatever the devices; where the parameters are no latent variables the functions give
them back.

**Source:** Graves 2011 (Practical variational inference for neural networks); reparameterised draws, Blundell et al.
2015 (Weight uncertainty in neural networks), section 3.2.
"""

from typing import Any

import jax
import jax.numpy as jnp

LATENT = "outcome"  # the network whose parameters are latent
START_SD = 0.02  # of the posterior, as a share of the prior's


def prior_sds(tree: Any, prior_sd: float) -> Any:
  """A tree like the outcome networks' parameters of the prior's standard deviations, one number a leaf.

  Kernels of arms are [K, a, b] with the shorter side the inputs or the outputs; a bias goes with its kernel.
  """
  def of_layer(layer):
    if "kernel" not in layer:
      return {name: of_layer(part) for name, part in layer.items()}
    outputs, size = layer["bias"].shape[-1], layer["kernel"].shape[-1] * layer["kernel"].shape[-2]
    return {name: prior_sd * (size // outputs) ** -0.5 for name in layer}
  return of_layer(tree)


def init(params: Any, prior_sd: float) -> dict[str, Any]:
  """Parameters of a Bayesian model from those of the network: `point`, and `mean` and `log_sd` of what is latent."""
  latent = params[LATENT]
  log_sd = jax.tree.map(lambda leaf, sd: jnp.full(leaf.shape, jnp.log(START_SD * sd), leaf.dtype), latent,
                        prior_sds(latent, prior_sd))
  return {"point": {name: part for name, part in params.items() if name != LATENT}, "mean": latent, "log_sd": log_sd}


def is_bayesian(params: Any) -> bool:
  """Whether parameters are those of a Bayesian model."""
  return "log_sd" in params


def network(params: Any, noise: Any = None) -> Any:
  """The network's parameters: the posterior's mean, or its draw for standard normal noise like `log_sd`."""
  if not is_bayesian(params):
    return params
  mean = params["mean"]
  latent = mean if noise is None else jax.tree.map(lambda m, s, e: m + jnp.exp(s) * e, mean, params["log_sd"], noise)
  return params["point"] | {LATENT: latent}


def noise_like(params: Any, key: jax.Array) -> Any:
  """Standard normal numbers like what is latent; None where nothing is."""
  if not is_bayesian(params):
    return None
  leaves, treedef = jax.tree.flatten(params["log_sd"])
  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(treedef, [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves)])


def kl_nats(params: Any, prior_sd: float) -> jax.Array:
  """KL of the posterior against the prior, nats, over all latent parameters."""
  def of_leaf(mean, log_sd, sd):
    log_ratio = 2.0 * (log_sd - jnp.log(sd))
    return jnp.sum(0.5 * (jnp.exp(log_ratio) + jnp.square(mean / sd) - 1.0 - log_ratio))
  leaves = jax.tree.map(of_leaf, params["mean"], params["log_sd"], prior_sds(params["mean"], prior_sd))
  return sum(jax.tree.leaves(leaves), jnp.zeros(()))
