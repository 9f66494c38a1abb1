"""The answer in a few lines, for a terminal. The `verdict` says the same with its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from l2jax.results import comparisons, refine
from l2jax.results.comparisons import is_clear
from l2jax.results.estimates import FEWEST_PAIRS
from l2jax.results.metrics import ALL_METRICS
from l2jax.results.results import Results
from l2jax.results.verdict import verdict
from l2jax.results.words import number, strength

if TYPE_CHECKING:
    import xarray as xr


def brief(results: Results) -> list[str]:
    """Says in one line each whether L2 helps, how strong it should be, what it costs, and what there is beside it.

    Returns:
      The answer: a warning if the validation data were the test set, whether L2 helps, its best strength with how sure
      that is, and accuracy; then overfitting, early stopping, the test part and divergence, as far as there is any.
    """
    findings = verdict(results)
    lines = [finding.lead for finding in findings if finding.label in ("Warning", "")]
    lines += [f"Divergence: {finding.lead}" for finding in findings if finding.label == "Divergence"]
    if results.best_setting_or_none() is None:
        return lines
    outcomes, best = comparisons.outcomes(results), _best(results)
    tested = outcomes["test_loss"].notnull().any() and not any(finding.label == "Warning" for finding in findings)
    answer = 1 + next(index for index, finding in enumerate(findings) if finding.label == "")
    details = [_loss(outcomes, best), *_next(results, best), _accuracy(outcomes, best), _overfitting(outcomes, best)]
    if results.data.sizes["epoch"] > 1:
        details.append(_early_stopping(results))
    if tested:
        details.append(_test(outcomes, best))
    return [*lines[:answer], *details, *lines[answer:]]


def _best(results: Results) -> float:
    """The strength to speak of: the best one, or if another one alone is clearly better than none, that."""
    compared, best = comparisons.compare(comparisons.outcomes(results)), results.best()
    lower = compared[is_clear(compared) & (compared["mean"] < 0)]
    return best if best in lower.index or lower.empty else float(np.asarray(lower.index)[lower["mean"].argmin()])


def _loss(outcomes: xr.Dataset, best: float) -> str:
    compared = comparisons.compare(outcomes)
    line = f"Best is {strength(best)}: validation loss {_values(outcomes, 'val_loss', best)}"
    if best not in compared.index:
        return f"{line}."
    row = compared.loc[best]
    if np.isnan(row["p"]):
        return f"{line}, which may be chance: {row['num']:.0f} of the {FEWEST_PAIRS} pairs that it takes to tell."
    sure = "a clear change" if is_clear(compared)[best] else "which may be chance"
    return f"{line}, {sure}: {row['low']:+.2g} to {row['high']:+.2g} with 95% confidence."


def _next(results: Results, best: float) -> list[str]:
    end = refine.edge(results) if best == results.best() else None
    if not end:
        return []
    further = " ".join(map(number, refine.next_strengths(results)))
    return [f"It is the {end} tried: look further with --l2 0 {further}."]


def _accuracy(outcomes: xr.Dataset, best: float) -> str:
    values, clearly = _values(outcomes, "val_accuracy", best), _clearly(outcomes, "val_accuracy", best)
    return f"Accuracy there: {values}{clearly}."


def _overfitting(outcomes: xr.Dataset, best: float) -> str:
    return f"Overfitting: validation loss ends {_values(outcomes, 'gap', best)} above training loss."


def _early_stopping(results: Results) -> str:
    stopped = comparisons.early_stopped(results)
    outcomes, best = comparisons.outcomes(stopped), _best(stopped)
    values, clearly = _values(outcomes, "val_loss", best), _clearly(outcomes, "val_loss", best)
    return f"Early stopping: at its best epoch, {strength(best)} has {values}{clearly}."


def _test(outcomes: xr.Dataset, best: float) -> str:
    return (
        f"Test part: loss {_values(outcomes, 'test_loss', best)}, accuracy {_values(outcomes, 'test_accuracy', best)}."
    )


def _values(outcomes: xr.Dataset, metric: str, best: float) -> str:
    """The mean of a metric at a strength, and beside it at the weakest one."""
    spec = ".1%" if ALL_METRICS[metric].percent else ".3g"
    means = comparisons.summary(outcomes, metric)["mean"]
    weakest = float(means.index[0])
    if best == weakest:
        return f"{means[best]:{spec}}"
    reference = "without L2" if weakest == 0 else f"at {strength(weakest)}"
    return f"{means[best]:{spec}} ({reference} {means[weakest]:{spec}})"


def _clearly(outcomes: xr.Dataset, metric: str, best: float) -> str:
    """Whether a difference is more than chance, in words."""
    compared = comparisons.compare(outcomes, metric)
    if best not in compared.index or np.isnan(compared["p"][best]):
        return ""
    return ", a clear change" if is_clear(compared)[best] else ", no clear change"
