"""Questions about the results of a sweep: overfitting, paired comparisons with intervals, and other methods.

Apart from `methods`, which looks at other hyperparameters too, all functions are for results whose only swept
hyperparameter is l2. Trials at different strengths are paired by seed and fold: a pair shares everything that is drawn
at random. Intervals are 95% intervals, and speak of other seeds (and folds) on the same data. Trials that have diverged
are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from l2jax.results.estimates import LEVEL, differences_to_first, estimate
from l2jax.results.metrics import REPLICATES
from l2jax.results.replicates import flatten_replicates
from l2jax.results.results import Results

if TYPE_CHECKING:  # both take a second to import
    import pandas as pd
    import xarray as xr


def by_strength(values: xr.DataArray, *last: str) -> np.ndarray:
    """Values (l2, seed, fold, *last) as a plain array (strengths, trials, *last).

    The trials are in the order of `replicate_labels`. Booleans stay booleans, and other values become float64.
    """
    return flatten_replicates(values, ["l2"], *last)


def outcomes(results: Results) -> xr.Dataset:
    """The outcome of each trial over l2 (ascending), seed and fold; NaN where the trial has diverged.

    These are all metrics at the last epoch, the test metrics, and overfitting in its two meanings, for loss and
    accuracy: `gap` and `accuracy_gap` are validation minus training; `rise` is how far validation loss ended above its
    lowest epoch, and `fall` how far validation accuracy ended below its highest. The latter two are never below 0.
    """
    data = results.data.sortby("l2")
    last = data.isel(epoch=-1, drop=True).drop_vars("diverged")
    per_trial = [name for name in last.data_vars if {*last[name].dims} <= {"l2", *REPLICATES}]
    last = last[per_trial].astype(np.float64)
    last = last.assign(
        gap=last["val_loss"] - last["train_loss"],
        accuracy_gap=last["val_accuracy"] - last["train_accuracy"],
        rise=last["val_loss"] - data["val_loss"].min("epoch"),
        fall=data["val_accuracy"].max("epoch") - last["val_accuracy"],
    )
    return last.where(~data["diverged"]).transpose("l2", ...)


def magnitude_shares(results: Results) -> xr.DataArray:
    """The magnitudes of the values of each layer's kernel at the end, counted over all trials of a strength.

    Returns:
      Percentages (l2, layer, magnitude) that add up to 100 over `magnitude`, with l2 ascending; NaN where all trials
      have diverged.
    """
    counts = results.data["kernel_magnitudes"].sortby("l2")
    counts = counts.sum([name for name in REPLICATES if name in counts.dims])
    num = counts.sum("magnitude")
    return (100 * counts / num.where(num > 0)).transpose("l2", "layer", "magnitude")


def summary(outcomes: xr.Dataset, metric: str) -> pd.DataFrame:
    """The `Estimate` of one of the `outcomes`, with one row per strength."""
    import pandas as pd

    means = estimate(by_strength(outcomes[metric]), outcomes.sizes.get("fold"))
    if metric == "rise":
        means = means._replace(low=means.low.clip(min=0))  # a t interval does not know that no rise is below 0
    return pd.DataFrame(means._asdict(), pd.Index(outcomes["l2"].values, name="l2"))


def compare(outcomes: xr.Dataset, metric: str = "val_loss") -> pd.DataFrame:
    """Compares each strength with the weakest one, which is no L2 if 0 was tried, by paired differences.

    A difference may be claimed if p_holm < 0.05. Any wrong claim about this metric, at whichever strength, then has a
    chance below 5%.

    Args:
      outcomes: the `outcomes` of the sweep.
      metric: one of them.

    Returns:
      One row per strength, weak to strong, without the weakest. The columns are those of `Estimate`, where `num` counts
      the pairs that finished at both strengths, and `p_holm`, which is `p` corrected for the number of strengths.
    """
    import pandas as pd

    differences, p_holm = differences_to_first(by_strength(outcomes[metric]), outcomes.sizes.get("fold"))
    return pd.DataFrame({**differences._asdict(), "p_holm": p_holm}, pd.Index(outcomes["l2"].values[1:], name="l2"))


def is_clear(compared: pd.DataFrame) -> pd.Series:
    """For each difference of `compare`, whether it is more than chance after Holm's correction."""
    return compared["p_holm"] < 1 - LEVEL


def early_stopped(results: Results) -> Results:
    """The same trials with one epoch, in which each is as it was at its best epoch: that of its lowest validation loss.

    Test metrics become NaN, because the test set is evaluated at the end only.
    """
    data = results.data
    best_epoch = data["best_epoch"].clip(min=1)  # 0 if the trial diverged in the first epoch, which is NaN, too
    curves = data.drop_vars([name for name in data.data_vars if "epoch" not in data[name].dims])
    stopped = curves.sel(epoch=best_epoch).drop_vars("epoch").expand_dims("epoch", -1)
    per_trial = data.drop_vars(curves.data_vars)
    stopped = stopped.merge(per_trial.drop_dims("epoch"), join="exact")
    untested = {name: stopped[name].where(False) for name in ("test_loss", "test_accuracy")}
    return Results(stopped.assign(untested).assign_coords(epoch=data["epoch"].values[-1:]), results.config)


class Method(NamedTuple):
    """A way to regularise, by what it uses.

    Attributes:
      l2: strengths above 0.
      weight_decay: decoupled weight decays above 0.
      stopped_early: each trial is taken at its best epoch instead of the last one.
    """

    l2: bool = False
    weight_decay: bool = False
    stopped_early: bool = False


METHODS = {
    "none": Method(),
    "L2": Method(l2=True),
    "weight decay": Method(weight_decay=True),
    "none stopped early": Method(stopped_early=True),
    "L2 stopped early": Method(l2=True, stopped_early=True),
}
"""Methods that `methods` compares. The first one is what the others are compared with."""


def methods(results: Results) -> pd.DataFrame:
    """Compares L2 with its rivals, all for the same epochs and seeds: one row for each of the `METHODS` in the sweep.

    Each method is taken at the setting with the lowest mean validation loss. Settings with a diverged trial are left
    out, and so is a method that has no others.

    Returns:
      The columns are the setting; `settings`, the number of settings that it was chosen from (the more, the more
      optimistically biased is its loss); means of losses and accuracies, with their standard errors in `<metric>_se`;
      `change`, `low` and `high`: the paired difference of validation loss to "none", and its interval.
    """
    import pandas as pd

    metrics = ("val_loss", "val_accuracy", "test_loss", "test_accuracy")
    columns = [column for metric in metrics for column in (metric, f"{metric}_se")]
    stopped, rows, reference = early_stopped(results), {}, None
    for name, method in METHODS.items():
        source = stopped if method.stopped_early else results
        settings = _settings_with(source, method)
        finished = settings[(settings["num_diverged"] == 0) & np.isfinite(settings["val_loss"])]
        if finished.empty:
            continue
        best = finished.iloc[int(finished["val_loss"].argmin())]
        setting = {axis: float(best[axis]) for axis in results.swept}
        rows[name] = setting | {"settings": len(settings)} | {column: float(best[column]) for column in columns}
        losses = flatten_replicates(source.data["val_loss"].isel(epoch=-1).sel(setting), [])[0]
        if name == "none":
            reference = losses
        elif reference is not None:
            change = estimate(losses - reference, results.data.sizes.get("fold"))
            rows[name] |= {"change": float(change.mean), "low": float(change.low), "high": float(change.high)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _settings_with(results: Results, method: Method) -> pd.DataFrame:
    """The rows of `Results.settings_table` that use what the method uses, and nothing else."""
    table = results.settings_table().reset_index()
    if "weight_decay" not in table:
        table["weight_decay"] = float(results.data.coords.get("weight_decay", 0.0))
    return table[((table["l2"] > 0) == method.l2) & ((table["weight_decay"] > 0) == method.weight_decay)]
