"""jaxtrain: one training system for latent-variable and causal models, written as pure functions in JAX.

In Python: `jaxtrain.train("configs/vae.py:digits", "runs/a")` and `jaxtrain.load("runs/a")`; see `jaxtrain.notebook`.
"""

__version__ = "0.1.0"
__all__ = ["load", "train"]


def __getattr__(name: str):
  """`load` and `train`, imported when they are asked for, so that `import jaxtrain` alone loads no library."""
  if name not in __all__:
    raise AttributeError(f"module 'jaxtrain' has no attribute {name!r}")
  from jaxtrain import notebook
  return getattr(notebook, name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
