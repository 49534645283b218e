"""jaxtrain: one training system for latent-variable and causal models, written as pure functions in JAX."""

__version__ = "0.1.0"
