"""Expected calibration error of ONE trial: the distance between the confidence of predictions and their accuracy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

BINS = 15


def calibration_sums(logits: Array, labels: Array, mask: Array) -> Array:
    """Sums per bin of confidence, which batches add up to: the examples, their confidences, the correct ones.

    Args:
      logits: (B, classes). Confidence is the largest of their softmax; bins are (0, 1/BINS], ..., (1 - 1/BINS, 1].
      labels: (B,), int.
      mask: (B,), bool; the examples that count.

    Returns:
      (3, BINS).
    """
    confidence = jnp.exp(logits.max(-1) - jax.nn.logsumexp(logits, -1))
    correct = logits.argmax(-1) == labels
    bins = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    # One-hot, because a scatter for every trial would be slow.
    in_bin = jax.nn.one_hot(jnp.where(mask, bins, BINS), BINS, dtype=bool)
    values = jnp.stack([jnp.ones_like(confidence), confidence, correct.astype(confidence.dtype)])
    return jnp.where(in_bin[None], values[:, :, None], 0).sum(1)


def calibration_error(sums: Array) -> Array:
    """The mean over examples of |accuracy - mean confidence| of their bin; NaN without examples.

    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015; with 15
    bins as in Guo et al., On calibration of modern neural networks, ICML 2017.

    Args:
      sums: (3, BINS), of `calibration_sums`, added up over all batches.
    """
    count, confidence, correct = sums
    return jnp.abs(correct - confidence).sum() / count.sum()
