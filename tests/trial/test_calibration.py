"""Expected calibration error, against a plain loop in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2jax.trial.calibration import BINS, calibration_error, calibration_sums


def reference(logits, labels):
    """Bin by bin, in float64, as in Guo et al. (2017), equation 3."""
    logits = np.asarray(logits, np.float64)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    confidence = (odds / odds.sum(1, keepdims=True)).max(1)
    right = logits.argmax(1) == labels
    error = 0.0
    for m in range(BINS):
        within = (confidence > m / BINS) & (confidence <= (m + 1) / BINS)
        if within.any():
            error += within.mean() * abs(right[within].mean() - confidence[within].mean())
    return error


@pytest.mark.parametrize("scale", [0.1, 1, 5, 100])
def test_batches_add_up_to_the_error_of_all(scale):
    rng = np.random.default_rng(0)
    logits = (scale * rng.normal(size=(200, 10))).astype(np.float32)
    labels = np.where(rng.random(200) < 0.6, logits.argmax(1), rng.integers(10, size=200))
    mask = np.arange(200) < 170
    batches = [slice(start, start + 50) for start in range(0, 200, 50)]
    sums = sum(jax.jit(calibration_sums)(logits[b], labels[b], mask[b]) for b in batches)
    np.testing.assert_allclose(sums[0].sum(), 170)
    np.testing.assert_allclose(calibration_error(sums), reference(logits[:170], labels[:170]), rtol=1e-4)


def test_each_trial_has_its_own():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(3, 64, 10)).astype(np.float32), rng.integers(10, size=(3, 64))
    errors = jax.jit(jax.vmap(lambda *trial: calibration_error(calibration_sums(*trial))))
    expected = [reference(*trial) for trial in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(errors(logits, labels, np.ones((3, 64), bool)), expected, rtol=1e-4)


def test_extremes():
    sure = jnp.array([[1e4, 0.0], [1e4, 0.0], [0.0, 1e4], [0.0, 1e4]])
    mask = jnp.ones(4, bool)

    @jax.jit
    def error(logits, labels, mask):
        return calibration_error(calibration_sums(logits, labels, mask))

    assert error(sure, jnp.array([0, 0, 1, 1]), mask) == 0
    assert error(sure, jnp.array([0, 1, 1, 0]), mask) == 0.5
    undecided = jnp.zeros((4, 2))  # confidence 1/2: right half of the time is as good as it says
    assert error(undecided, jnp.array([0, 1, 1, 0]), mask) == 0
    assert jnp.isnan(error(sure, jnp.array([0, 0, 1, 1]), ~mask))
