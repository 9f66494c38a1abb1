"""Metrics of all trials come in; labelled arrays, statistics, words and files go out. No JAX."""
