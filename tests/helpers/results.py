"""Made-up results of sweeps whose truth is known."""

import numpy as np
import pandas as pd
import xarray as xr

from l2jax.results.results import Results

STRENGTHS = (0.0, 1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1)
CURVES = ("train_loss", "train_accuracy", "penalty", "val_loss", "val_accuracy", "kernel_sum_of_squares")


def synthetic(l2=STRENGTHS, seeds=3, epochs=20, *, diverged=(), noise=0.01, test=True) -> Results:
    """Curves shaped like those of a small CNN that overfits: validation loss is lowest at a middle strength.

    Args:
      diverged: (strength, seed, epoch) of the trials that diverge, and the epoch in which they do.
      noise: how far trials differ.
      test: whether the test set has been evaluated.
    """
    rng = np.random.default_rng(0)
    strength = np.asarray(l2)[:, None, None]
    epoch = np.arange(1, epochs + 1)[None, None, :]
    per_seed = rng.normal(size=(1, seeds, 1))
    jitter = per_seed + 0.4 * rng.normal(size=(len(l2), seeds, 1)) + 0.3 * rng.normal(size=(len(l2), seeds, epochs))
    train = (1.6 * np.exp(-epoch / 2) + 0.9 * np.exp(-epoch / 4) + 12 * strength**0.9) * np.exp(2 * noise * jitter)
    overfit = 0.012 * epoch / (1 + 60 * strength**0.7)
    val = train + (0.22 / (1 + 8 * strength**0.5) + overfit) * (1 - np.exp(-epoch / 4)) * np.exp(8 * noise * jitter)
    values = {
        "train_loss": train,
        "train_accuracy": np.clip(1 - 0.12 * train, 0, 1),
        "penalty": strength / 2 * 120 / (1 + 300 * strength),
        "val_loss": val,
        "val_accuracy": np.clip(0.985 - 0.12 * val - 0.2 * strength, 0, 1),
        "kernel_sum_of_squares": 120 / (1 + 300 * strength) + 0 * val,
        "running_objective": 1.2 * train + strength / 2 * 120 / (1 + 300 * strength),
        "running_accuracy": np.clip(0.97 - 0.12 * train, 0, 1),
    }
    shape = (len(l2), seeds, epochs)
    values = {name: np.broadcast_to(value, shape).astype(np.float32) for name, value in values.items()}
    is_diverged = np.zeros(shape[:2], bool)
    for its_l2, its_seed, its_epoch in diverged:
        trial = (list(l2).index(its_l2), its_seed)
        is_diverged[trial] = True
        for value in values.values():
            value[(*trial, slice(its_epoch - 1, None))] = np.nan
    val_loss = np.where(np.isnan(values["val_loss"]), np.inf, values["val_loss"])
    at_end = {
        "test_loss": values["val_loss"][..., -1] * (1 if test else np.nan),
        "test_accuracy": values["val_accuracy"][..., -1] * (1 if test else np.nan),
        "diverged": is_diverged,
        "best_epoch": np.where(np.isfinite(val_loss).any(-1), val_loss.argmin(-1) + 1, 0),
    }
    data = xr.Dataset(
        {name: (("l2", "seed", "epoch"), value) for name, value in values.items()}
        | {name: (("l2", "seed"), value) for name, value in at_end.items()},
        coords={"l2": list(l2), "seed": np.arange(seeds), "epoch": np.arange(1, epochs + 1)},
    )
    return Results(data, {"sweep": {"l2": tuple(l2), "seeds": seeds}, "model": "CNN"})


def with_last(metric, values, l2=(0.0, 0.01, 0.1), **kwargs) -> Results:
    """Results whose last epoch holds the given values of a metric, one list per strength."""
    results = synthetic(l2, len(values[0]), **kwargs)
    data = results.data.copy(deep=True)
    data[metric].values[:, :, -1] = values
    return Results(data, results.config)


def swept_twice(**kwargs):
    """Two learning rates. Validation loss is lowest at l2 = 1e-2 and learning rate 0.1, closely followed by 1e-3."""
    data = synthetic((0.0, 1e-3, 1e-2), **kwargs).data
    losses = np.array([[3.0, 1.2, 1.0], [4.0, 2.0, 1.0001]])  # (learning rate, l2)
    noise = np.array([-0.3, 0.0, 0.3])
    other = data.assign(val_loss=data["val_loss"] * 0).isel(l2=[0, 1, 2])
    both = xr.concat([data, other], pd.Index([0.1, 0.01], name="learning_rate")).transpose("l2", "learning_rate", ...)
    both["val_loss"] = both["val_loss"].copy(data=np.empty(both["val_loss"].shape))
    both["val_loss"][:] = losses.T[:, :, None, None] + noise[None, None, :, None]
    return Results(both, {"sweep": {"l2": [0.0, 1e-3, 1e-2], "learning_rate": [0.1, 0.01]}})


def simulated(num_sweeps: int, num_strengths: int, trials: int, effect=0.0) -> np.ndarray:
    """Losses (sweeps, strengths, trials), the sum of an effect per seed, which strengths share, and of noise."""
    rng = np.random.default_rng(4)
    per_seed = rng.normal(size=(num_sweeps, 1, trials))
    noise = rng.normal(size=(num_sweeps, num_strengths, trials))
    return 0.4 + 0.05 * per_seed + 0.01 * noise + effect * (np.arange(num_strengths) == 3)[:, None]


def grid_of_methods() -> Results:
    """Sweeps l2, weight decay and learning rate. Weight decay 0.1 at learning rate 0.01 is best, and L2 comes next."""
    rates = []
    for rate in (0.001, 0.01):
        decays = []
        for decay in (0.0, 0.1):
            data = synthetic((0.0, 0.01), diverged=[(0.01, 0, 2)] if rate == 0.001 else []).data.copy(deep=True)
            data["val_loss"] = data["val_loss"] * np.float32(1 - 0.5 * (decay > 0) * (rate > 0.001))
            decays.append(data)
        rates.append(xr.concat(decays, xr.Variable("weight_decay", [0.0, 0.1])))
    return Results(xr.concat(rates, xr.Variable("learning_rate", [0.001, 0.01])), {})


SWEEPS = {
    "default": synthetic(),
    "only 0": synthetic((0.0,)),
    "one strength": synthetic((0.003,)),
    "no 0": synthetic(STRENGTHS[1:]),
    "one seed": synthetic(seeds=1),
    "one epoch": synthetic(epochs=1),
    "one trial, one epoch": synthetic((0.0,), seeds=1, epochs=1),
    "all diverged": synthetic((0.0, 0.1), diverged=[(l2, seed, 1) for l2 in (0.0, 0.1) for seed in range(3)]),
    "some diverged": synthetic(diverged=[(0.1, 0, 4), (0.1, 1, 1), (1e-4, 1, 12)]),
    "within a decade": synthetic((0.0, 0.02, 0.03, 0.04)),
    "unsorted": Results(synthetic().data.isel(l2=[5, 0, 7, 2, 1, 6, 3, 4]), {}),
    "folds": Results(xr.concat([synthetic().data, synthetic().data], xr.Variable("fold", [0, 1])), {}),
}
