"""Many runs: `python -m jaxtrain.sweep`."""
