"""The answer in words: a few sentences, each with its interval, that claim no more than the interval supports."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from l2jax.results import refine, stats
from l2jax.results.results import Results

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

NAMES = {  # metric: (scale, unit, name), for sentences
    "val_loss": (1, "", "validation loss"),
    "gap": (1, "", "gap between validation and training loss"),
    "rise": (1, "", "rise of validation loss after its lowest"),
    "val_accuracy": (100, " points", "validation accuracy"),
    "val_ece": (100, " points", "calibration error"),
    "test_loss": (1, "", "test loss"),
    "test_accuracy": (100, " points", "test accuracy"),
}


def verdict(results: Results) -> list[str]:
    """What the sweep says about L2, most important first, a paragraph each.

    A difference is called lower or higher only if it stays clear after Holm's correction for the number of strengths
    (`stats.compare`), so that where L2 does nothing, a claim about a metric has a chance below 5 %. That includes the
    test metrics: what made a network good by chance shows on any data.
    """
    ended = stats.outcomes(results)
    try:
        best = results.best()
    except ValueError:
        none_left = "Every strength has a diverged trial: none can be called best. A lower learning rate may help."
        return [none_left, *_diverged(results)]
    warning = _validated_on_test(results)
    return [
        *warning,
        _effect(ended, best),
        _choice(results, best),
        *_overfitting(results, ended, best),
        *_accuracy(results, ended, best),
        *_early_stopping(results),
        *([] if warning else _test(ended, best)),
        *_diverged(results),
        *_no_intervals(ended),
    ]


def _effect(ended: xr.Dataset, best: float) -> str:
    """Does L2 lower validation loss, and is that more than chance?"""
    compared, weakest = stats.compare(ended), float(ended["l2"][0])
    if compared.empty:
        return "Only one strength was tried: there is nothing to compare it with."
    none = "no L2" if weakest == 0 else f"l2 = {weakest:.3g} (the weakest tried; 0 was not)"
    if not compared["num"].any():
        return f"No seed finished both with {none} and at another strength: there is no comparison."
    lower, higher = (compared[clear(compared) & (compared["mean"] * sign > 0)] for sign in (-1, 1))
    if len(lower):
        at = best if best in lower.index else float(lower["mean"].idxmin())
        text = f"L2 lowers validation loss here: against {none}, l2 = {at:.3g} ended with {_decided(compared, at)}."
        others = [l2 for l2 in lower.index if l2 != at]
        text += f" It is clearly lower at {_strengths(others)}, too." if others else ""
    else:
        if compared["p"].isna().all():
            lead = "Whether L2 lowers validation loss cannot be told from chance."
        elif len(higher):
            lead = "No strength clearly lowers validation loss."
        elif best != weakest and compared["p"][best] < 1 - stats.LEVEL:
            lead = "No clear evidence: what L2 seems to change may be chance, and more seeds would tell."
        else:
            lead = "No evidence either way."
        if best == weakest:
            near = min(compared.index, key=lambda l2: abs(compared["mean"][l2]))
            text = f"{lead} The lowest mean is that of {none}; l2 = {near:.3g} comes closest, with "
            text += f"{_decided(compared, near)}."
        elif compared["num"][best] == 0:
            text = f"{lead} The lowest mean is at l2 = {best:.3g}, but no seed finished both there and with {none}."
        else:
            text = f"{lead} The lowest mean is at l2 = {best:.3g}: against {none}, it ended with "
            text += f"{_decided(compared, best)}."
    return text + (f" It is clearly higher at {_strengths(higher.index)}." if len(higher) else "")


def _choice(results: Results, best: float) -> str:
    """How strong should it be?"""
    text = f"Lowest mean validation loss: l2 = {best:.3g}. One-standard-error rule: "
    if math.isnan(results.table()["val_loss_se"][best]):
        text += "the same, as one seed has no standard error."
    else:
        text += f"l2 = {results.best(rule='1se'):.3g}."
    if at := refine.edge(results):
        where = "strongest tried: try stronger ones" if at == "strongest" else "weakest tried above 0: try weaker ones"
        strengths = " ".join(f"{l2:.3g}" for l2 in refine.next_strengths(results))
        text += f" l2 = {best:.3g} is the {where}, such as --l2 0 {strengths}."
    return text


def _overfitting(results: Results, ended: xr.Dataset, best: float) -> list[str]:
    """The gap, and the rise after the lowest epoch: without L2, and what the best strength changes."""
    weakest = float(ended["l2"][0])
    gap, rise = (_row(stats.summary(ended, metric), weakest) for metric in ("gap", "rise"))
    if gap["num"] == 0:
        return []
    interval = "" if math.isnan(gap["low"]) else f" (95% interval {gap['low']:.2g} to {gap['high']:.2g})"
    where = "without L2" if weakest == 0 else f"with l2 = {weakest:.3g}"
    text = f"Overfitting: {where}, validation loss ended {gap['mean']:.2g}{interval} above training loss, and "
    if rise["mean"] <= 0:
        text += "was lowest at the last epoch: it has not begun to rise."
    else:
        epoch = results.table()["best_epoch"][weakest]
        text += f"{rise['mean']:.2g} above its own lowest, which was at epoch {epoch:.0f} (the median)."
    return [text + _changes(ended, ("gap", "rise"), best)]


def _accuracy(results: Results, ended: xr.Dataset, best: float) -> list[str]:
    """Loss and accuracy need not agree: L2 often mends confidence alone."""
    weakest, means = float(ended["l2"][0]), results.table()["val_accuracy"]
    accurate = results.best("val_accuracy")
    calibration = ("val_ece",) if "val_ece" in ended else ()
    text = _changes(ended, ("val_accuracy", *calibration), best)
    if text:
        loss, accuracy = (clear(stats.compare(ended, metric))[best] for metric in ("val_loss", "val_accuracy"))
        text = f"Accuracy:{text[0]}{text[1].lower()}{text[2:]}"
        text += " The loss changed clearly, the accuracy did not." if loss and not accuracy else ""
    if means[accurate] > means[best]:
        text += f" Loss and accuracy disagree: mean validation accuracy is highest at l2 = {accurate:.3g}."
        text += _changes(ended, ("val_accuracy",), accurate) if accurate != weakest else ""
    return [text.strip()] if text else []


def _early_stopping(results: Results) -> list[str]:
    """What L2 adds to early stopping, its rival."""
    if results.data.sizes["l2"] == 1 or results.data.sizes["epoch"] == 1:
        return []
    stopped = stats.early_stopped(results)
    best, weakest = stopped.best(), float(stopped.data["l2"].min())
    text = "Early stopping: with each trial taken at its best epoch, the lowest mean validation loss is "
    if best == weakest:
        return [text + ("without L2." if best == 0 else f"at l2 = {best:.3g}, the weakest tried.")]
    return [text + f"at l2 = {best:.3g}." + _changes(stats.outcomes(stopped), ("val_loss",), best)]


def _test(ended: xr.Dataset, best: float) -> list[str]:
    """The test part chose nothing, and is looked at once."""
    text = _changes(ended, ("test_loss", "test_accuracy"), best)
    return [f"Test part, which chose nothing:{text[0]}{text[1].lower()}{text[2:]}"] if text else []


def _diverged(results: Results) -> list[str]:
    diverged = results.data["diverged"].astype(bool)
    if not diverged.any():
        return []
    strengths = diverged["l2"].values[diverged.any([name for name in diverged.dims if name != "l2"]).values]
    return [
        f"{int(diverged.sum())} of {diverged.size} trials diverged, at {_strengths(sorted(strengths))}: they are left "
        "out of all means, and a strength with one is never called best."
    ]


def _no_intervals(ended: xr.Dataset) -> list[str]:
    num = stats.compare(ended)["num"].max()
    if not 0 < num < stats.FEWEST:
        return []
    return [
        f"There are no intervals: one takes {stats.FEWEST} pairs, seeds that finished at both strengths, and there "
        f"{'is 1' if num == 1 else f'are {num}'} here. Any difference above may be chance; --seeds 5 would tell more."
    ]


def _validated_on_test(results: Results) -> list[str]:
    if results.config.get("sweep", {}).get("val_size") != "test":
        return []
    return [
        "Warning: the validation data of this run are the test part. What looks best on them was chosen by them, and "
        "no number here is free of that choice."
    ]


def clear(compared: pd.DataFrame) -> pd.Series:
    """Which rows of `stats.compare` are more than chance, after Holm's correction."""
    return compared["p_holm"] < 1 - stats.LEVEL


def _changes(ended: xr.Dataset, metrics: tuple[str, ...], l2: float) -> str:
    """A sentence on what a strength changes; nothing where it is the reference, or no pair finished."""
    weakest = float(ended["l2"][0])
    rows = {metric: stats.compare(ended, metric) for metric in metrics}
    if l2 == weakest or any(compared["num"][l2] == 0 for compared in rows.values()):
        return ""
    words = " and ".join(_words(metric, _row(compared, l2)) for metric, compared in rows.items())
    return f" Against {'no L2' if weakest == 0 else f'l2 = {weakest:.3g}'}, l2 = {l2:.3g} ended with {words}."


def _decided(compared: pd.DataFrame, l2: float) -> str:
    """The change of validation loss at a strength, with the p-value that decides whether it is clear."""
    row, number = _row(compared, l2), int(compared["p"].notna().sum())
    text = _words("val_loss", row)
    if math.isnan(row["p"]):
        return text
    p = "p < 0.001" if row["p_holm"] < 1e-3 else f"p = {row['p_holm']:.2g}"
    corrected = f" after Holm's correction for {number} strengths" if number > 1 else ""
    return f"{text[:-1]}, {row['num']:.0f} pairs, {p}{corrected})"


def _row(table: pd.DataFrame, l2: float) -> dict[str, float]:
    return {str(name): float(table.at[l2, name]) for name in table.columns}  # pyright: ignore[reportArgumentType]


def _words(metric: str, row: dict[str, float]) -> str:
    scale, unit, name = NAMES[metric]
    mean, low, high = (_signed(row[column], scale) for column in ("mean", "low", "high"))
    if math.isnan(row["p"]):
        pairs = "1 pair" if row["num"] == 1 else f"{row['num']:.0f} pairs"
        why = "the same in every pair" if row["num"] >= stats.FEWEST else f"{pairs}, no interval"
        return f"a mean change in {name} of {mean}{unit} ({why})"
    interval = f"{mean}{unit}, 95% interval {low} to {high}"
    if row["p_holm"] < 1 - stats.LEVEL:
        return f"a clearly {'lower' if row['mean'] < 0 else 'higher'} {name} ({interval})"
    corrected = ", too wide once corrected for several strengths" if row["p"] < 1 - stats.LEVEL else ""
    return f"no clear change in {name} ({interval}{corrected})"


def _signed(value: float, scale: int) -> str:
    """To two digits; but differences of accuracies in float32 that are 0 in truth are so to six digits only."""
    return f"{round(value, 6) * scale + 0.0:+.2g}"  # + 0.0: no -0


def _strengths(strengths: Iterable[float]) -> str:
    return "l2 = " + ", ".join(f"{l2:.3g}" for l2 in strengths)
