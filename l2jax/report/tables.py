"""The tables of the page: rows of cells, and their HTML, which a click on a heading sorts."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from l2jax.results import comparisons, words
from l2jax.results.metrics import ALL_METRICS, METRICS, Metric
from l2jax.results.results import Results

ON_METHODS = (
    "Each method at the setting with its lowest mean validation loss, all for the same epochs and seeds. The more "
    "settings it was chosen from, the more optimistically biased is its loss. Early stopping takes each trial at the "
    "epoch of its lowest validation loss; the test set is not looked at then. Changes are against no regularisation, "
    "paired by seed, and not corrected for the number of methods or settings."
)
METHOD_NAMES = {
    "none": "no regularisation",
    "L2": "L2",
    "weight decay": "decoupled weight decay",
    "none stopped early": "early stopping",
    "L2 stopped early": "L2 and early stopping",
}
COLUMNS = ("val_loss", "train_loss", "gap", "rise", "val_accuracy", "val_ece", "test_loss", "test_accuracy")
"""The metrics in the table of strengths; older results lack some."""
WITH_ERRORS = ("val_loss", "val_accuracy")
MOST_ROWS, BEST_ROWS = 100, 30
"""The most strengths in their table, and how many of the best there are of more."""
CHANGE = "change [95% interval]"


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
      text: the text that it shows.
      key: the value that it is sorted by; "" comes last in either order.
    """

    text: str
    key: float | str


def strengths(results: Results) -> dict[float, dict[str, Cell]]:
    """One row per strength, weak to strong: its outcomes, and their difference from no L2.

    Of more than `MOST_ROWS`, these are the weakest and those of the lowest mean validation loss.
    """
    outcomes, table = comparisons.outcomes(results), results.settings_table()
    shown = table.index
    if len(shown) > MOST_ROWS:
        lowest = table["val_loss"].where(table["num_diverged"] == 0).iloc[1:].nsmallest(BEST_ROWS).index
        shown = shown[:1].union(lowest)
    compared = comparisons.compare(outcomes)
    compared = compared.loc[compared.index.intersection(shown)].to_dict("index")
    summaries = {
        name: comparisons.summary(outcomes, name).loc[shown].to_dict("index")
        for name in COLUMNS
        if name in outcomes.data_vars
    }
    rows: dict[float, dict[str, Cell]] = {}
    for l2 in shown.tolist():
        row = {"L2 strength": Cell(words.number(l2), l2)}
        for name, summary in summaries.items():
            metric = ALL_METRICS[name]
            se = summary[l2]["se"] if name in WITH_ERRORS else math.nan
            row[_heading(metric)] = _mean(summary[l2]["mean"], metric, se)
            if name == "val_loss" and compared:
                difference = compared.get(l2, {})
                row[CHANGE] = _change(difference.get("mean"), difference)
                row["p (Holm)"] = _cell(difference.get("p_holm"), ".2g")
        row["best epoch (median)"] = _cell(float(table["best_epoch"][l2]), ".0f")
        if table["num_diverged"].any():
            row["diverged"] = _cell(float(table["num_diverged"][l2]), ".0f")
        rows[l2] = row
    return rows


def methods(results: Results) -> list[dict[str, Cell]]:
    """One row per method of `comparisons.methods`."""
    rows = []
    for method, values in comparisons.methods(results).to_dict("index").items():
        name = METHOD_NAMES[str(method)]
        setting = words.setting({name: values[name] for name in results.swept})
        row = {
            "method": Cell(name, name),
            "setting": Cell(setting, setting),
            "chosen from": _cell(values["settings"], ".0f"),
        }
        for metric in ("val_loss", "val_accuracy", "test_loss", "test_accuracy"):
            se = values[f"{metric}_se"] if metric in WITH_ERRORS else math.nan
            row[_heading(METRICS[metric])] = _mean(values[metric], METRICS[metric], se)
            if metric == "val_loss":
                row[CHANGE] = _change(values.get("change"), values)
        rows.append(row)
    return rows


def as_html(rows: Sequence[Mapping[str, Cell]], chosen: Sequence[bool] = ()) -> list[str]:
    """Lines of HTML, with the columns of all rows.

    Args:
      rows: cells by heading; both may hold any text.
      chosen: for each row, whether it stands out.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    headings = "".join(f'<th scope="col"><button type="button">{html.escape(name)}</button></th>' for name in columns)
    lines = [f'<div class="scroll"><table class="sortable"><thead><tr>{headings}</tr></thead><tbody>']
    for index, row in enumerate(rows):
        cells = "".join(
            f'<td data-value="{html.escape(str(key))}">{html.escape(text)}</td>'
            for text, key in (row.get(column, Cell("", "")) for column in columns)
        )
        mark = ' class="chosen"' if chosen and chosen[index] else ""
        lines.append(f"<tr{mark}>{cells}</tr>")
    return [*lines, "</tbody></table></div>"]


def _heading(metric: Metric) -> str:
    return (metric.heading or metric.name) + (" (%)" if metric.percent else "")


def _mean(mean: float, metric: Metric, se: float = math.nan) -> Cell:
    return _cell(100 * mean, ".2f", 100 * se) if metric.percent else _cell(mean, ".4f", se)


def _cell(value: float | None, digits: str, se: float = math.nan) -> Cell:
    if value is None or not math.isfinite(value):
        return Cell("", "")
    return Cell(f"{value:{digits}}" + (f" ± {se:.2g}" if math.isfinite(se) else ""), float(value))


def _change(mean: float | None, interval: Mapping[Any, float]) -> Cell:
    text, key = _cell(mean, "+.4f")
    if text and math.isfinite(interval["low"]):
        text += f" [{interval['low']:+.4f}, {interval['high']:+.4f}]"
    return Cell(text, key)
