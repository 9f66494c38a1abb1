"""The tables of the page."""

from helpers.pages import Page
from helpers.results import STRENGTHS, grid_of_methods, synthetic

from l2jax.report import tables
from l2jax.report.page import render


def test_the_table_has_one_row_per_strength():
    results = synthetic(diverged=[(0.1, 1, 4)])
    heading, *rows = Page(render({"run": results})).rows[:9]
    assert heading[:4] == ["L2 strength", "validation loss", "change [95% interval]", "p (Holm)"]
    assert heading[-1] == "diverged" and [row[0] for row in rows] == [f"{l2:.3g}" for l2 in STRENGTHS]
    assert rows[5][1].startswith(f"{results.settings_table()['val_loss'][0.01]:.4f} ± ")
    assert rows[-1][-1] == "1"


def test_fractions_are_shown_as_percentages():
    results = synthetic()
    row, last = tables.strengths(results)[0.01], results.data.sel(l2=0.01).isel(epoch=-1)
    assert row["validation accuracy (%)"].text.startswith(f"{100 * last['val_accuracy'].mean():.2f} ± ")
    assert row["test accuracy (%)"].text == f"{100 * last['test_accuracy'].mean():.2f}"
    assert row["gap"].text == f"{(last['val_loss'] - last['train_loss']).mean():.4f}"


def test_cells_without_a_value_are_empty_and_sorted_last():
    row = tables.strengths(synthetic(test=False))[0.0]
    assert row["test loss"] == row["p (Holm)"] == ("", "")


def test_methods_are_named_with_their_settings():
    rows = {row["method"].text: row for row in tables.methods(grid_of_methods())}
    assert [*rows] == [
        "no regularisation",
        "L2",
        "decoupled weight decay",
        "early stopping",
        "L2 and early stopping",
    ]
    setting = rows["decoupled weight decay"]["setting"].text
    assert "learning rate 0.01" in setting and "decoupled weight decay 0.1" in setting
