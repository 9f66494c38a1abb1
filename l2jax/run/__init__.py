"""A command or a call of `l2jax.sweep` comes in; a run folder that survives any interruption goes out."""
