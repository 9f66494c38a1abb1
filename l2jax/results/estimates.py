"""Means with their uncertainty: intervals, paired differences and corrected p-values, on plain arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FEWEST_PAIRS = 3
"""Fewest values for an interval: of 2, a Student t interval is 13 standard errors wide on either side."""
LEVEL = 0.95
"""Coverage of all intervals."""


class Estimate(NamedTuple):
    """A mean with its uncertainty. Each field is an array, with one element per mean.

    Attributes:
      mean: of the finite values.
      se: standard error of the mean; NaN for fewer than 2 values.
      low: lower end of the 95% interval. Like `high` and `p`, NaN for fewer than `FEWEST_PAIRS` values.
      high: upper end of the 95% interval.
      p: two-sided p-value of the hypothesis that the true mean is 0.
      num: number of finite values.
    """

    mean: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    num: np.ndarray


def nanmean(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis without NaN. Where nothing is left it is NaN, without NumPy's warning."""
    num = np.isfinite(values).sum(-1)
    return np.where(num > 0, np.nansum(values, -1) / np.maximum(num, 1), np.nan)


def standard_error(values: np.ndarray, num_folds: int | None = None) -> np.ndarray:
    """The standard error of the mean over the last axis, without NaN.

    Values from different folds depend on each other, because their training parts overlap. The variance of their mean
    is therefore s^2 (1/J + n_val / n_train) instead of s^2 / J, where J counts all values (seeds times folds) and
    n_val / n_train is 1 / (num_folds - 1). This is the "corrected resampled t" of Nadeau and Bengio, Inference for the
    generalization error, Machine Learning 52, 2003, section 4.

    Args:
      values: (..., n).
      num_folds: number of folds that the n values come from; None without cross-validation.

    Returns:
      (...); NaN for fewer than 2 values.
    """
    num = np.isfinite(values).sum(-1)
    overlap = 1 / (num_folds - 1) if num_folds else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations = values - nanmean(values)[..., None]
        variance = np.nansum(deviations**2, -1) / (num - 1)
        return np.where(num > 1, np.sqrt(variance * (1 / num + overlap)), np.nan)


def estimate(values: np.ndarray, num_folds: int | None = None) -> Estimate:
    """The mean over the last axis with its Student t interval of n - 1 degrees of freedom, without NaN.

    Equal values have no interval: accuracies on few examples are often equal by chance, and say nothing about the
    variance then.

    Args:
      values: (..., n).
      num_folds: as in `standard_error`.
    """
    from scipy import stats  # here, because it takes a second to import

    mean, num = nanmean(values), np.isfinite(values).sum(-1)
    se = standard_error(values, num_folds)
    # Equal values in float32 leave rounding errors behind, of about 1e-8 for losses and accuracies.
    has_interval = (num >= FEWEST_PAIRS) & (se > 1e-7)
    scale, degrees = np.where(has_interval, se, np.nan), np.where(has_interval, num - 1, np.nan)
    low, high = stats.t.interval(LEVEL, degrees, mean, scale)
    return Estimate(mean, se, low, high, 2 * stats.t.sf(np.abs(mean) / scale, degrees), num)


def holm(p: np.ndarray) -> np.ndarray:
    """Corrects p-values for their number, so that the chance of any wrong claim is bounded.

    The i-th smallest, from i = 0, is multiplied by n - i, and none ends below a smaller one (Holm, A simple
    sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979).

    Args:
      p: (..., n); NaN are left out.
    """
    order = np.argsort(p, -1)  # NaN last
    factors = np.isfinite(p).sum(-1, keepdims=True) - np.arange(p.shape[-1])
    ascending = np.maximum.accumulate(np.take_along_axis(p, order, -1) * factors, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(ascending, 1), -1)
    return corrected


def differences_to_first(values: np.ndarray, num_folds: int | None = None) -> tuple[Estimate, np.ndarray]:
    """Compares each strength with the first one by paired differences.

    Args:
      values: (..., strengths, trials), one outcome of each trial. Leading axes are separate sweeps.
      num_folds: as in `standard_error`.

    Returns:
      The mean differences, and their p-values after `holm`; both (..., strengths - 1).
    """
    differences = estimate(values[..., 1:, :] - values[..., :1, :], num_folds)
    return differences, holm(differences.p)
