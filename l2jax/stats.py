"""`l2jax.results.stats` by its public name."""

from l2jax.results.stats import *  # noqa: F403
