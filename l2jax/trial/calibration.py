"""Expected calibration error of ONE trial: how far the confidence of predictions is from how often they are right."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

BINS = 15


def calibration_sums(logits: Array, labels: Array, mask: Array) -> Array:
    """What batches add up to: (3, BINS), per bin of confidence the examples, their confidences, and how many are right.

    Args:
      logits: (B, classes). Confidence is the largest of their softmax; bins are (0, 1/BINS], ..., (1 - 1/BINS, 1].
      labels: (B,), int.
      mask: (B,), bool: examples that count.
    """
    confidence = jnp.exp(logits.max(-1) - jax.nn.logsumexp(logits, -1))
    right = logits.argmax(-1) == labels
    bins = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    counted = jax.nn.one_hot(jnp.where(mask, bins, BINS), BINS, dtype=bool)  # a scatter for every trial would be slow
    values = jnp.stack([jnp.ones_like(confidence), confidence, right.astype(confidence.dtype)])
    return jnp.where(counted[None], values[:, :, None], 0).sum(1)


def calibration_error(sums: Array) -> Array:
    """The mean over examples of |accuracy - mean confidence| of their bin; NaN without examples.

    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015; with 15
    bins as in Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    count, confidence, right = sums
    return jnp.abs(right - confidence).sum() / count.sum()
