"""The page about very many trials: what it draws, against pandas and xarray, and how large it is."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.charts import close, traces
from helpers.magnitudes import with_magnitudes
from helpers.pages import Page
from helpers.results import synthetic

from l2jax import stats
from l2jax.config import SweepConfig
from l2jax.report import reproduce
from l2jax.report.charts import heat_maps, over_strengths
from l2jax.report.curves import kernel_magnitudes, lines_of, over_epochs
from l2jax.report.page import render
from l2jax.report.tables import BEST_ROWS, strengths
from l2jax.results.results import Results
from l2jax.results.spread import LINES, POINTS

CONFIG = SweepConfig(l2=["0", "log:1e-6:1:299"], seeds=5)


@pytest.fixture(scope="module")
def results():
    made = synthetic(CONFIG.l2, seeds=5, noise=0.05, diverged=[(1.0, 1, 4)])
    return with_magnitudes(Results(made.data, {"sweep": {"l2": CONFIG.l2, "seeds": 5}}))


def test_the_page_shows_the_best_and_says_what_is_left_out(results):
    page = Page(render({"run": results}))
    assert len(render({"run": results})) < 2.6e6
    assert "The best of 300 strengths" in page.text and f"{299 - BEST_ROWS:,} more are left out here" in page.text
    assert page.tags.count("input") == LINES
    means = results.settings_table()["val_loss"]
    rows = strengths(results)
    assert list(rows) == [0.0, *sorted(means[1:-1].nsmallest(BEST_ROWS).index)]
    assert [row["validation loss"].key for row in rows.values()] == pytest.approx([means[l2] for l2 in rows])
    assert max(len(chart["figure"]["data"]) for chart in json.loads(page.scripts["charts"]).values()) <= 3 * LINES


def test_bands_over_epochs_are_quantiles_of_groups(results):
    groups, drawn = lines_of(results), traces(over_epochs(results))["Validation loss"]
    finished = results.data["val_loss"].where(~results.data["diverged"]).astype(float)
    for index, group in enumerate(groups):
        wide, middle, mean = [trace for trace in drawn if trace["meta"] == index]
        frame = pd.DataFrame(finished.values[group.members].reshape(-1, 20)).dropna()
        close(mean["y"], frame.mean())
        close(wide["y"], [*frame.quantile(0.05), *frame.quantile(0.95)[::-1]])
        close(middle["y"], [*frame.quantile(0.25), *frame.quantile(0.75)[::-1]])
        assert mean["line"]["dash"] == ("solid" if group.high else "dash") and f"l2 = {group}" in mean["text"][0]


def test_charts_against_strength_are_of_groups(results):
    drawn = traces(over_strengths(results))
    weakest = results.data["val_loss"].values[0, :, -1].astype(float)
    point, line = [trace for trace in drawn["Validation loss against strength"] if trace.get("name") == "validation"]
    close(point["y"], [weakest.mean()])
    assert 30 < len(line["x"]) <= POINTS and (np.diff(line["x"]) > 0).all()
    (change,) = [trace for trace in drawn["Change of validation loss against no L2"] if trace.get("name")]
    compared = stats.compare(stats.outcomes(results))
    counts = [text.split("; ")[1].split(" ")[:3:2] for text in change["text"]]
    assert sum(int(clear) for clear, _ in counts) == stats.is_clear(compared).sum() > 0
    assert sum(int(total) for _, total in counts) == len(compared)


def test_magnitudes_of_groups_are_the_means_of_their_strengths(results):
    shares, groups = stats.magnitude_shares(results), lines_of(results)
    for chart, layer in zip(kernel_magnitudes(results), ("conv", "dense"), strict=True):
        for trace in chart.figure["data"]:
            expected = shares.sel(layer=layer).isel(l2=groups[trace["meta"]].members).mean("l2")
            close(trace["y"], expected)


def test_cells_of_a_large_heat_map_are_means_of_neighbours():
    strengths, rates = np.geomspace(1e-6, 1, 120), np.geomspace(1e-4, 1e-1, 180)
    data = synthetic(strengths, seeds=1, epochs=1).data
    scale = xr.DataArray(1 + np.log(rates / 3e-3) ** 2, {"learning_rate": rates})
    grid = data.assign({name: data[name] * scale for name in data.data_vars if name != "diverged"})
    grid = grid.assign(diverged=data["diverged"] & (scale > 0)).transpose("l2", "learning_rate", ...)
    (chart,) = heat_maps(Results(grid, {}))
    (trace,) = chart.figure["data"]
    blocks = grid["val_loss"].isel(epoch=-1, seed=0).astype(float).coarsen(l2=2, learning_rate=3).mean()
    close(trace["z"], np.log10(blocks))
    assert trace["x"][0] == f"{rates[0]:.3g} to {rates[2]:.3g}" and trace["texttemplate"] == ""


def test_the_command_holds_a_grid_or_says_that_it_is_too_long():
    grid = {"l2": list(CONFIG.l2)}
    assert reproduce.command(grid) == "python run_sweep.py --l2 0 log:1e-06:1.0:299"
    assert SweepConfig(l2=reproduce.command(grid).split("--l2 ")[1]).l2 == CONFIG.l2
    uneven = {"l2": [0.0, *np.linspace(0.1, 0.9, 99).tolist()]}
    assert len(reproduce.command(uneven)) < 120 and "..." in reproduce.command(uneven)
    assert "config.json holds them all" in "".join(reproduce.how_to_reproduce({"sweep": uneven, "model": "cnn"}))
    assert "config.json holds" not in "".join(reproduce.how_to_reproduce({"sweep": grid, "model": "cnn"}))
