"""Files of a run and of a sweep: each is written and read by one module here. No JAX."""
