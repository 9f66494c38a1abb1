"""The table of metrics, and what must be true of every entry."""

import subprocess
import sys

import numpy as np

from l2jax.results.metrics import COORDINATES, MAGNITUDE_EDGES, MAGNITUDES, METRICS, OUTCOMES, RENAMED, REPLICATES


def test_every_metric_has_names_of_its_own():
    metrics = [*METRICS.values(), *OUTCOMES.values()]
    assert len({metric.name for metric in metrics}) == len({metric.long_name for metric in metrics}) == len(metrics)
    assert {metric.unit for metric in metrics} == {"nat", "1"}


def test_dimensions_are_described():
    dims = {dim for metric in METRICS.values() for dim in metric.dims}
    assert dims | {*REPLICATES} == {*COORDINATES}


def test_renamed_metrics_exist():
    assert {*RENAMED.values()} <= {*METRICS} and not {*RENAMED} & {*METRICS}


def test_each_magnitude_is_the_middle_of_its_bin():
    ends = np.log10(MAGNITUDE_EDGES)
    np.testing.assert_allclose(np.log10(MAGNITUDES), (ends[:-1] + ends[1:]) / 2)


def test_results_need_no_jax():
    """Neither do they load pandas, xarray or scipy before they are used."""
    code = "import sys, l2jax.stats, l2jax.results.verdict; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "l2jax.results.verdict" in loaded and not {"jax", "pandas", "scipy", "xarray"} & {*loaded}
