"""Figures and pages, made from the files of runs alone: `python -m jaxtrain.report`. No JAX."""
