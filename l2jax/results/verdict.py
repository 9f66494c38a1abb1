"""The answer in words: a few findings, each with its interval, that claim no more than the interval supports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from l2jax.hyperparameters import MOST_LISTED
from l2jax.results import comparisons, refine
from l2jax.results.estimates import FEWEST_PAIRS, LEVEL
from l2jax.results.metrics import ALL_METRICS
from l2jax.results.results import Results
from l2jax.results.words import number, strength

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Finding(NamedTuple):
    """One paragraph of the verdict; `str` gives it as plain text.

    Attributes:
      label: the subject in a word or two, such as "Overfitting"; "" for the answer itself.
      lead: the sentence to read first.
      details: the sentences after it; may be "".
    """

    label: str
    lead: str
    details: str = ""

    def __str__(self) -> str:
        label = f"{self.label}: " if self.label else ""
        return f"{label}{self.lead} {self.details}".rstrip()


def verdict(results: Results) -> list[Finding]:
    """Says in a few paragraphs what a sweep shows about L2, the most important first.

    A difference is called lower or higher only if it stays clear after Holm's correction for the number of strengths
    (`l2jax.stats.compare`). Where L2 does nothing, a claim about a metric therefore has a chance below 5%. That goes
    for the test metrics, too: a network that is good by chance is so on any data.

    Returns:
      The answer, which has no label, and what there is to say beyond it. If the validation data were the test set, a
      warning comes before the answer.
    """
    outcomes = comparisons.outcomes(results)
    setting = results.best_setting_or_none()
    if setting is None:
        lead = "Every strength has a diverged trial: none can be called best."
        return [Finding("", lead, "A lower learning rate may help."), *_diverged(results)]
    best, warning = setting["l2"], _validated_on_test(results)
    return [
        *warning,
        _effect(outcomes, best),
        _choice(results, best),
        *_overfitting(results, outcomes, best),
        *_accuracy(results, outcomes, best),
        *_early_stopping(results),
        *([] if warning else _test(outcomes, best)),
        *_diverged(results),
        *_no_intervals(outcomes),
    ]


def _effect(outcomes: xr.Dataset, best: float) -> Finding:
    """Says whether L2 lowers validation loss, and whether that is more than chance."""
    compared, weakest = comparisons.compare(outcomes), float(outcomes["l2"][0])
    if compared.empty:
        return Finding("", "Only one strength was tried: there is nothing to compare it with.")
    reference = strength(weakest) + (" (the weakest tried; 0 was not)" if weakest else "")
    if not compared["num"].any():
        return Finding("", f"No seed finished both with {reference} and at another strength: there is no comparison.")
    lower, higher = (compared[comparisons.is_clear(compared) & (compared["mean"] * sign > 0)] for sign in (-1, 1))
    if len(lower):
        l2 = best if best in lower.index else float(lower["mean"].idxmin())
        lead = "L2 lowers validation loss here."
        details = f"Against {reference}, {strength(l2)} ended with {_with_p(compared, l2)}."
        if others := [other for other in lower.index if other != l2]:
            details += f" It is clearly lower at {_strengths(others)}, too."
    else:
        lead = _without_evidence(compared, best, any_higher=len(higher) > 0)
        details = _lowest_mean(compared, best, reference)
    if len(higher):
        details += f" It is clearly higher at {_strengths(higher.index)}."
    return Finding("", lead, details)


def _without_evidence(compared: pd.DataFrame, best: float, any_higher: bool) -> str:
    """Says why no strength can be said to lower validation loss."""
    if compared["p"].isna().all():
        return "Whether L2 lowers validation loss cannot be told from chance."
    if any_higher:
        return "No strength clearly lowers validation loss."
    if best in compared.index and compared["p"][best] < 1 - LEVEL:
        return "No clear evidence: what L2 seems to change may be chance, and more seeds would tell."
    return "No evidence either way."


def _lowest_mean(compared: pd.DataFrame, best: float, reference: str) -> str:
    """Says which strength has the lowest mean validation loss, although that may be chance."""
    if best not in compared.index:
        closest = min(compared.index, key=lambda l2: abs(compared["mean"][l2]))
        change = _with_p(compared, closest)
        return f"The lowest mean is that of {reference}; {strength(closest)} comes closest, with {change}."
    if compared["num"][best] == 0:
        return f"The lowest mean is at {strength(best)}, but no seed finished both there and with {reference}."
    return f"The lowest mean is at {strength(best)}: against {reference}, it ended with {_with_p(compared, best)}."


def _choice(results: Results, best: float) -> Finding:
    """Says which strength each rule chooses, and what to try next."""
    if math.isnan(results.settings_table()["val_loss_se"][best]):
        details = "One-standard-error rule: the same, as one seed has no standard error."
    else:
        details = f"One-standard-error rule: l2 = {number(results.best(rule='1se'))}."
    if end := refine.edge(results):
        side = "strongest tried: try stronger ones" if end == "strongest" else "weakest tried above 0: try weaker ones"
        further = " ".join(map(number, refine.next_strengths(results)))
        details += f" l2 = {number(best)} is the {side}, such as --l2 0 {further}."
    return Finding("Lowest mean validation loss", f"l2 = {number(best)}.", details)


def _overfitting(results: Results, outcomes: xr.Dataset, best: float) -> list[Finding]:
    """Gives the gap, and the rise after the lowest epoch: without L2, and what the best strength changes."""
    weakest = float(outcomes["l2"][0])
    gap, rise = (_row(comparisons.summary(outcomes, metric), weakest) for metric in ("gap", "rise"))
    if gap["num"] == 0:
        return []
    interval = "" if math.isnan(gap["low"]) else f" (95% interval {gap['low']:.2g} to {gap['high']:.2g})"
    condition = "Without L2" if weakest == 0 else f"With {strength(weakest)}"
    lead = f"{condition}, validation loss ended {gap['mean']:.2g}{interval} above training loss, and "
    if rise["mean"] <= 0:
        lead += "was lowest at the last epoch: it has not begun to rise."
    else:
        epoch = results.settings_table()["best_epoch"][weakest]
        lead += f"{rise['mean']:.2g} above its own lowest, which was at epoch {epoch:.0f} (the median)."
    return [Finding("Overfitting", lead, _changes(outcomes, ["gap", "rise"], best))]


def _accuracy(results: Results, outcomes: xr.Dataset, best: float) -> list[Finding]:
    """Says what happened to accuracy, because it need not follow the loss: L2 often improves confidence alone."""
    sentences = []
    metrics = [metric for metric in ("val_accuracy", "val_ece") if metric in outcomes]
    if changes := _changes(outcomes, metrics, best):
        sentences.append(changes)
        loss, accuracy = (comparisons.compare(outcomes, metric) for metric in ("val_loss", "val_accuracy"))
        if comparisons.is_clear(loss)[best] and not comparisons.is_clear(accuracy)[best]:
            sentences.append("The loss changed clearly, the accuracy did not.")
    means, most_accurate = results.settings_table()["val_accuracy"], results.best("val_accuracy")
    if means[most_accurate] > means[best]:
        highest = f"mean validation accuracy is highest at l2 = {number(most_accurate)}"
        sentences.append(f"Loss and accuracy disagree: {highest}.")
        if changes := _changes(outcomes, ["val_accuracy"], most_accurate):
            sentences.append(changes)
    return [Finding("Accuracy", sentences[0], " ".join(sentences[1:]))] if sentences else []


def _early_stopping(results: Results) -> list[Finding]:
    """Says what L2 adds to early stopping, its rival."""
    if results.data.sizes["l2"] == 1 or results.data.sizes["epoch"] == 1:
        return []
    stopped = comparisons.early_stopped(results)
    best, weakest = stopped.best(), float(stopped.data["l2"].min())
    place = "without L2" if best == 0 else f"at {strength(best)}" + (", the weakest tried" if best == weakest else "")
    lead = f"With each trial taken at its best epoch, the lowest mean validation loss is {place}."
    return [Finding("Early stopping", lead, _changes(comparisons.outcomes(stopped), ["val_loss"], best))]


def _test(outcomes: xr.Dataset, best: float) -> list[Finding]:
    changes = _changes(outcomes, ["test_loss", "test_accuracy"], best)
    return [Finding("Test set", changes, "Nothing was chosen on the test set.")] if changes else []


def _diverged(results: Results) -> list[Finding]:
    diverged = results.data["diverged"]
    if not diverged.any():
        return []
    strengths = diverged["l2"].values[diverged.any([name for name in diverged.dims if name != "l2"]).values]
    lead = f"{int(diverged.sum()):,} of {diverged.size:,} trials diverged, at {_strengths(sorted(strengths))}."
    details = "They are left out of all means, and a strength with one of them is never called best."
    return [Finding("Divergence", lead, details)]


def _no_intervals(outcomes: xr.Dataset) -> list[Finding]:
    num = comparisons.compare(outcomes)["num"].max()
    if not 0 < num < FEWEST_PAIRS:
        return []
    pairs = f"{FEWEST_PAIRS} pairs, seeds that finished at both strengths"
    details = f"One takes {pairs}, and there {'is 1' if num == 1 else f'are {num}'} here. "
    details += "Any difference above may be chance; --seeds 5 would tell more."
    return [Finding("Uncertainty", "There are no intervals.", details)]


def _validated_on_test(results: Results) -> list[Finding]:
    if results.config.get("sweep", {}).get("val_size") != "test":
        return []
    details = "The best strength was chosen on them, and no number here is free of that choice."
    return [Finding("Warning", "The validation data of this run are the test set.", details)]


def _changes(outcomes: xr.Dataset, metrics: Sequence[str], l2: float) -> str:
    """A sentence on what a strength changes; "" if it is the reference, or if no pair finished."""
    weakest = float(outcomes["l2"][0])
    by_metric = {metric: comparisons.compare(outcomes, metric) for metric in metrics}
    if l2 == weakest or any(compared["num"][l2] == 0 for compared in by_metric.values()):
        return ""
    changes = " and ".join(_change(metric, _row(compared, l2)) for metric, compared in by_metric.items())
    return f"Against {strength(weakest)}, {strength(l2)} ended with {changes}."


def _with_p(compared: pd.DataFrame, l2: float) -> str:
    """The change of validation loss at a strength, with the p-value that decides whether it is clear."""
    row, num_strengths = _row(compared, l2), int(compared["p"].notna().sum())
    p = "p < 0.001" if row["p_holm"] < 1e-3 else f"p = {row['p_holm']:.2g}"
    corrected = f" after Holm's correction for {num_strengths:,} strengths" if num_strengths > 1 else ""
    return _change("val_loss", row, evidence=f", {row['num']:.0f} pairs, {p}{corrected}")


def _row(table: pd.DataFrame, l2: float) -> dict[str, float]:
    return {str(name): float(table.at[l2, name]) for name in table.columns}  # pyright: ignore[reportArgumentType]


def _change(metric: str, row: dict[str, float], evidence: str = "") -> str:
    """The change of a metric in words, such as "a clearly lower test loss (-0.1, 95% interval -0.2 to -0.05)".

    Args:
      row: its row of `comparisons.compare`.
      evidence: more to say after the interval.
    """
    name, percent = ALL_METRICS[metric].name, ALL_METRICS[metric].percent
    mean, low, high = (_signed(row[column], 100 if percent else 1) for column in ("mean", "low", "high"))
    mean += " points" if percent else ""
    if math.isnan(row["p"]):
        pairs = "1 pair" if row["num"] == 1 else f"{row['num']:.0f} pairs"
        reason = "the same in every pair" if row["num"] >= FEWEST_PAIRS else f"{pairs}, no interval"
        return f"a mean change in {name} of {mean} ({reason})"
    interval = f"{mean}, 95% interval {low} to {high}"
    if row["p_holm"] < 1 - LEVEL:
        return f"a clearly {'lower' if row['mean'] < 0 else 'higher'} {name} ({interval}{evidence})"
    corrected = ", too wide once corrected for several strengths" if row["p"] < 1 - LEVEL else ""
    return f"no clear change in {name} ({interval}{corrected}{evidence})"


def _signed(value: float, scale: int) -> str:
    """Two digits with a sign. Differences of float32 accuracies that are 0 in truth are so to six digits only."""
    return f"{round(value, 6) * scale + 0.0:+.2g}"  # + 0.0: no -0


def _strengths(strengths: Iterable[float]) -> str:
    """Strengths in ascending order, or of very many how many there are."""
    few = list(strengths)
    if len(few) <= MOST_LISTED:
        return "l2 = " + ", ".join(map(number, few))
    return f"{len(few):,} strengths, of which l2 = {number(few[0])} is the weakest and {number(few[-1])} the strongest"
