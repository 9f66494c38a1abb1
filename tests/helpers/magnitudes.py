"""Kernel magnitudes as numpy counts them."""

import numpy as np
import xarray as xr

from l2jax.results.metrics import MAGNITUDE_EDGES, MAGNITUDES
from l2jax.results.results import Results


def counted(values: np.ndarray) -> np.ndarray:
    """The number of values in each bin; the outermost bins are open."""
    inside = np.clip(np.abs(values), np.float32(MAGNITUDE_EDGES[0]), np.float32(MAGNITUDE_EDGES[-1]))
    return np.histogram(inside, MAGNITUDE_EDGES.astype(np.float32))[0]


def with_magnitudes(results: Results) -> Results:
    """Adds two layers of 100 and 1,000 values, whose magnitudes fall with the strength."""
    rng = np.random.default_rng(0)
    strengths, seeds = results.data["l2"].values, results.data["seed"].values
    counts = [
        [[counted(rng.normal(0, 0.1 / (1 + 100 * l2), size)) for size in (100, 1000)] for _ in seeds]
        for l2 in strengths
    ]
    dims = ("l2", "seed", "layer", "magnitude")
    coords = {"l2": strengths, "seed": seeds, "layer": ["conv", "dense"], "magnitude": MAGNITUDES}
    magnitudes = xr.DataArray(counts, coords, dims).astype(float)
    return Results(results.data.assign(kernel_magnitudes=magnitudes.where(~results.data["diverged"])), results.config)
