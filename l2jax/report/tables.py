"""The tables of the report: rows of cells, and their HTML, which a click on a heading sorts."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from l2jax.results import comparisons
from l2jax.results.results import Results

Cell = tuple[str, float | str]
"""What a cell shows, and what it is sorted by; "" is last, whichever the order."""
ON_METHODS = (
    "Each method at the setting with its lowest mean validation loss, all for the same epochs and seeds. The more "
    "settings it was chosen from, the more its loss is flattered. Early stopping takes each trial at the epoch of its "
    "lowest validation loss; the test part is not looked at then. Changes are against no regularisation, paired by "
    "seed, and not corrected for the number of methods or settings."
)
OUTCOMES = (  # heading, metric, digits, scale, with a standard error
    ("validation loss", "val_loss", ".4f", 1, True),
    ("training loss", "train_loss", ".4f", 1, False),
    ("gap", "gap", ".4f", 1, False),
    ("rise", "rise", ".4f", 1, False),
    ("validation accuracy (%)", "val_accuracy", ".2f", 100, True),
    ("calibration error (%)", "val_ece", ".2f", 100, False),
    ("test loss", "test_loss", ".4f", 1, False),
    ("test accuracy (%)", "test_accuracy", ".2f", 100, False),
)


def strengths(results: Results) -> dict[float, dict[str, Cell]]:
    """A row a strength, weak to strong: what it ended with, and how that differs from no L2."""
    ended = comparisons.outcomes(results)
    compared, table = comparisons.compare(ended).to_dict("index"), results.settings_table()
    summaries = {metric: comparisons.summary(ended, metric) for _, metric, *_ in OUTCOMES if metric in ended}
    rows: dict[float, dict[str, Cell]] = {}
    for l2 in ended["l2"].values.tolist():
        row: dict[str, Cell] = {"L2 strength": (f"{l2:.3g}", l2)}
        for heading, metric, digits, scale, with_se in OUTCOMES:
            if metric in summaries:
                mean, se = (float(summaries[metric][name][l2]) * scale for name in ("mean", "se"))
                row[heading] = _cell(mean, digits, se if with_se else math.nan)
            if metric == "val_loss" and compared:
                change = compared.get(l2, {})
                row["change [95% interval]"] = _change(change.get("mean"), change)
                row["p (Holm)"] = _cell(change.get("p_holm"), ".2g")
        row["best epoch (median)"] = _cell(float(table["best_epoch"][l2]), ".0f")
        if table["num_diverged"].any():
            row["diverged"] = _cell(float(table["num_diverged"][l2]), ".0f")
        rows[l2] = row
    return rows


def methods(results: Results) -> list[dict[str, Cell]]:
    """A row a method of `comparisons.methods`."""
    names = {
        "none": "no regularisation",
        "weight decay": "decoupled weight decay",
        "none stopped early": "early stopping",
        "L2 stopped early": "L2 and early stopping",
    }
    rows = []
    for method, row in comparisons.methods(results).to_dict("index").items():
        setting = {str(key): row[key] for key in results.data["val_loss"].dims if key in row}
        told = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in setting.items())
        rows.append(
            {
                "method": (names.get(str(method), str(method)),) * 2,
                "setting": (told, told),
                "chosen from": _cell(row["settings"], ".0f"),
                "validation loss": _cell(row["val_loss"], ".4f", row["val_loss_se"]),
                "change [95% interval]": _change(row.get("change"), row),
                "validation accuracy (%)": _cell(100 * row["val_accuracy"], ".2f", 100 * row["val_accuracy_se"]),
                "test loss": _cell(row["test_loss"], ".4f"),
                "test accuracy (%)": _cell(100 * row["test_accuracy"], ".2f"),
            }
        )
    return rows


def as_html(rows: Sequence[Mapping[str, Cell]], standing_out: Sequence[bool] = ()) -> list[str]:
    """Lines of HTML, with the columns of all rows. All that cells hold may be any text."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    headings = "".join(f'<th scope="col"><button type="button">{html.escape(name)}</button></th>' for name in columns)
    lines = [f'<div class="scroll"><table class="sortable"><thead><tr>{headings}</tr></thead><tbody>']
    for index, row in enumerate(rows):
        cells = (row.get(column, ("", "")) for column in columns)
        filled = (f'<td data-value="{html.escape(str(value))}">{html.escape(text)}</td>' for text, value in cells)
        chosen = ' class="chosen"' if standing_out and standing_out[index] else ""
        lines.append(f"<tr{chosen}>{''.join(filled)}</tr>")
    return [*lines, "</tbody></table></div>"]


def _cell(value: float | None, digits: str, se: float = math.nan) -> Cell:
    if value is None or not math.isfinite(value):
        return "", ""
    return f"{value:{digits}}" + (f" ± {se:.2g}" if math.isfinite(se) else ""), float(value)


def _change(mean: float | None, row: Mapping[Any, float]) -> Cell:
    text, value = _cell(mean, "+.4f")
    if text and math.isfinite(row["low"]):
        text += f" [{row['low']:+.4f}, {row['high']:+.4f}]"
    return text, value
