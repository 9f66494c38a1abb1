"""What the numbers of a sweep support: overfitting, paired comparisons with intervals, other methods.

Pure functions of `Results` whose hyperparameter is l2 alone; `methods` looks at others, too. Trials at
different strengths are paired: they share what is drawn at random, named by seed and fold. Intervals are of 95 %,
and speak of other seeds (and folds) on the same data. What diverged is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from l2jax.results.results import Results

if TYPE_CHECKING:  # both take a second to import
    import pandas as pd
    import xarray as xr

DRAWS = ("seed", "fold")
"""Dimensions of what is drawn at random: trials that share them are paired."""
FEWEST = 3
"""Pairs that an interval takes: of 2, a Student t interval is 13 standard errors wide on either side."""
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean with its uncertainty, each an array; `low`, `high` and `p` are NaN for fewer than `FEWEST` values."""

    mean: np.ndarray
    se: np.ndarray
    low: np.ndarray
    """Of the 95 % interval."""
    high: np.ndarray
    p: np.ndarray
    """Two-sided, of a true mean of 0."""
    num: np.ndarray
    """Of values that the mean is of."""


def standard_error(values: np.ndarray, num_folds: int | None = None) -> np.ndarray:
    """The standard error of the mean over the last axis, NaN left out; NaN for fewer than 2 values.

    With folds, values depend on each other, as training parts overlap: s^2 / J becomes s^2 (1/J + n_val / n_train),
    and n_val / n_train is 1 / (num_folds - 1) (Nadeau and Bengio, Inference for the generalization error, Machine
    Learning 52, 2003, section 4: "corrected resampled t"). J counts all values, seeds times folds.
    """
    num = np.isfinite(values).sum(-1)
    overlap = 1 / (num_folds - 1) if num_folds else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations = values - mean_of(values)[..., None]
        variance = np.nansum(deviations**2, -1) / (num - 1)
        return np.where(num > 1, np.sqrt(variance * (1 / num + overlap)), np.nan)


def estimate(values: np.ndarray, num_folds: int | None = None) -> Estimate:
    """The mean over the last axis, NaN left out, with its Student t interval of `num - 1` degrees of freedom.

    Values that are all the same have no interval either: that is what a few accuracies on a few examples do by
    chance, and tells nothing of the next value.
    """
    from scipy import stats

    mean, num = mean_of(values), np.isfinite(values).sum(-1)
    se = standard_error(values, num_folds)
    # Equal values in float32 leave rounding errors behind, of about 1e-8 for losses and accuracies.
    known = (num >= FEWEST) & (se > 1e-7)
    scale, degrees = np.where(known, se, np.nan), np.where(known, num - 1, np.nan)  # NaN travels through scipy
    low, high = stats.t.interval(LEVEL, degrees, mean, scale)
    return Estimate(mean, se, low, high, 2 * stats.t.sf(np.abs(mean) / scale, degrees), num)


def holm(p: np.ndarray) -> np.ndarray:
    """P-values (..., n) corrected for their number, NaN left out, so that the chance of any wrong claim is bounded.

    The i-th smallest, from i = 0, is multiplied by n - i, and none ends below a smaller one (Holm, A simple
    sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979).
    """
    order = np.argsort(p, -1)  # NaN last
    left = np.isfinite(p).sum(-1, keepdims=True) - np.arange(p.shape[-1])
    steps = np.maximum.accumulate(np.take_along_axis(p, order, -1) * left, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(steps, 1), -1)
    return corrected


def against_first(values: np.ndarray, num_folds: int | None = None) -> tuple[Estimate, np.ndarray]:
    """The paired differences of strengths to the first one, and their p-values after `holm`.

    Args:
      values: (..., strengths, trials), an outcome of each trial. Leading axes are sweeps of their own.

    Returns:
      Both (..., strengths - 1).
    """
    of = estimate(values[..., 1:, :] - values[..., :1, :], num_folds)
    return of, holm(of.p)


def outcomes(results: Results) -> xr.Dataset:
    """What each trial ended with, over l2, in ascending order, seed and fold; NaN where it diverged.

    Every metric at the last epoch, test metrics, and overfitting in its two meanings, loss and accuracy apart:
    `gap` and `accuracy_gap`, validation minus training; `rise`, of validation loss since its lowest epoch, and
    `fall`, of validation accuracy since its highest: neither is ever below 0.
    """
    data = results.data.sortby("l2")
    finished = ~data["diverged"].astype(bool)
    last = data.isel(epoch=-1, drop=True).drop_vars("diverged")
    ended = last[[name for name in last.data_vars if {*last[name].dims} <= {"l2", *DRAWS}]].astype(np.float64)
    ended = ended.assign(
        gap=ended["val_loss"] - ended["train_loss"],
        accuracy_gap=ended["val_accuracy"] - ended["train_accuracy"],
        rise=ended["val_loss"] - data["val_loss"].min("epoch"),
        fall=data["val_accuracy"].max("epoch") - ended["val_accuracy"],
    )
    return ended.where(finished).transpose("l2", ...)


def magnitude_shares(results: Results) -> xr.DataArray:
    """How large the values of each layer's kernel are, all trials of a strength together: % of them, or NaN of none.

    (l2, layer, magnitude), l2 in ascending order.
    """
    counts = results.data["kernel_magnitudes"].sortby("l2")
    counts = counts.sum([name for name in DRAWS if name in counts.dims])
    num = counts.sum("magnitude")
    return (100 * counts / num.where(num > 0)).transpose("l2", "layer", "magnitude")


def summary(ended: xr.Dataset, metric: str) -> pd.DataFrame:
    """The `Estimate` of one of the `outcomes`: a row a strength."""
    import pandas as pd

    of = estimate(_by_trial(ended[metric]), ended.sizes.get("fold"))
    if metric == "rise":
        of = of._replace(low=of.low.clip(min=0))  # no rise is below it, which a t interval does not know
    return pd.DataFrame(of._asdict(), pd.Index(ended["l2"].values, name="l2"))


def compare(ended: xr.Dataset, metric: str = "val_loss") -> pd.DataFrame:
    """Each strength against none, or against the weakest if 0 was not tried, by paired differences of an outcome.

    A row a strength, weak to strong, without the reference; columns as of `Estimate`, `num` being of the pairs that
    finished at both, and `p_holm`, `p` corrected for the number of strengths compared. A claim takes
    p_holm < 0.05: then any wrong claim about this metric, at whichever strength, has a chance below 5 %.
    """
    import pandas as pd

    of, p_holm = against_first(_by_trial(ended[metric]), ended.sizes.get("fold"))
    return pd.DataFrame({**of._asdict(), "p_holm": p_holm}, pd.Index(ended["l2"].values[1:], name="l2"))


def early_stopped(results: Results) -> Results:
    """The same trials, each as it was at its best epoch, that of its lowest validation loss: one epoch alone.

    Test metrics become NaN, as the test part is not looked at before the end.
    """
    data = results.data
    best = data["best_epoch"].clip(min=1)  # 0: diverged in the first epoch, so NaN there
    stopped = data.sel(epoch=best.drop_vars("best_epoch", errors="ignore")).drop_vars("epoch").expand_dims("epoch", -1)
    per_trial = [name for name in data.data_vars if "epoch" not in data[name].dims]
    stopped = stopped.drop_vars(per_trial).merge(data[per_trial], join="exact")
    tested = {name: stopped[name].where(False) for name in ("test_loss", "test_accuracy")}
    return Results(stopped.assign(tested).assign_coords(epoch=data["epoch"].values[-1:]), results.config)


def methods(results: Results) -> pd.DataFrame:
    """What L2 has to compete with: a row a method that the sweep has, all for the same epochs and seeds.

    Of "none", "L2" (at the last epoch), "weight decay" (decoupled, without L2), and the first two "stopped early", at
    each trial's best epoch, each stands at that setting of its hyperparameters whose mean validation loss is lowest.
    `settings` counts those it was chosen from: the more, the more its loss is flattered. Columns: the setting;
    means of loss and accuracy, `_se` their standard errors; `change`, `low` and `high`: the paired difference of
    validation loss to none, with its interval. A setting with a diverged trial is left out, and so is a method that
    has no other.
    """
    import pandas as pd

    metrics = ("val_loss", "val_accuracy", "test_loss", "test_accuracy")
    folds, rows, none = results.data.sizes.get("fold"), {}, None
    for ending, of in (("", results), (" stopped early", early_stopped(results))):
        data = of.data.isel(epoch=-1, drop=True)
        axes = [str(name) for name in data["val_loss"].dims if name not in DRAWS]
        data = data[[*metrics, "diverged"]].stack(setting=axes).transpose("setting", ...)
        l2 = data["l2"].values
        decay = data["weight_decay"].values if "weight_decay" in data.coords else 0.0
        finished = ~_by_trial(data["diverged"].astype(bool)).any(1)
        values = {metric: _by_trial(data[metric].astype(np.float64)) for metric in metrics}
        members = {"none": (l2 == 0) & (decay == 0), "L2": (l2 > 0) & (decay == 0)}
        if not ending:
            members["weight decay"] = (l2 == 0) & (decay > 0)
        for method, member in members.items():
            mean = np.where(member & finished, mean_of(values["val_loss"]), np.inf)
            if not np.isfinite(mean).any():
                continue
            at = int(mean.argmin())
            row = {axis: float(data[axis][at]) for axis in axes} | {"settings": int(member.sum())}
            for metric in metrics:
                of_setting = values[metric][at]
                row |= {metric: float(mean_of(of_setting)), f"{metric}_se": float(standard_error(of_setting, folds))}
            if none is None and method == "none":
                none = values["val_loss"][at]
            elif none is not None:
                change = estimate(values["val_loss"][at] - none, folds)
                row |= {"change": float(change.mean), "low": float(change.low), "high": float(change.high)}
            rows[method + ending] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _by_trial(values: xr.DataArray) -> np.ndarray:
    """(first dimension, trials), in one order of seeds and folds whatever that of the dimensions."""
    first, *rest = values.dims
    return values.transpose(first, *sorted(map(str, rest))).values.reshape(values.sizes[first], -1)


def mean_of(values: np.ndarray) -> np.ndarray:
    """Over the last axis, NaN left out; NaN of nothing, without the warning of numpy's own."""
    num = np.isfinite(values).sum(-1)
    return np.where(num > 0, np.nansum(values, -1) / np.maximum(num, 1), np.nan)
