"""The results of a sweep: labelled arrays, the best strength, and tables."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from l2jax.config import HYPERPARAMETERS, hyperparameter
from l2jax.errors import InvalidInputError, reason
from l2jax.results.estimates import nanmean, standard_error
from l2jax.results.files import CONFIG, DATA, MANY, read_files, write_files
from l2jax.results.metrics import COORDINATES, EPOCH, METRICS, REPLICATES
from l2jax.results.parameters import Arrays, Kept, kept_params
from l2jax.results.replicates import flatten_replicates

if TYPE_CHECKING:  # xarray and pandas take a second to import: `--help` should not wait for them
    import pandas as pd
    import xarray as xr

CHOOSABLE = ("val_loss", "val_accuracy", "train_loss", "train_accuracy")
"""Metrics by which a strength may be chosen. The test set is not among them: it is evaluated once, at the end."""
RULES = ("min", "1se")
DESCRIPTIONS = (
    {name: (hyperparameter.name, "1") for name, hyperparameter in HYPERPARAMETERS.items()}
    | {name: (long_name, "1") for name, long_name in COORDINATES.items()}
    | {name: (metric.long_name, metric.unit) for name, metric in METRICS.items()}
)
"""The long name and the unit of each variable, as files hold them."""
AVERAGED = (*(name for name, metric in METRICS.items() if metric.dims == EPOCH), "test_loss", "test_accuracy", "gap")
"""The columns of `Results.settings_table` that are means."""


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """The metrics of every trial at every epoch, and the config of the run that made them.

    Args:
      data: dimensions `l2`, `seed` and `epoch` (counted from 1), `fold` with cross-validation, and the other
        hyperparameters that took several values. The variables are those of `l2jax.results.metrics.METRICS`:
        `test_loss`, `test_accuracy`, `diverged`, `diverged_epoch` and `best_epoch` hold one value per trial, all others
        one per epoch, and `kernel_norm` one per epoch and `layer`. `kernel_magnitudes` counts the values of each
        `layer`'s kernel at the end by their `magnitude`. After a trial has diverged, its values are NaN.
      config: JSON values that describe the run; {"sweep": ...} holds the options of `SweepConfig`.
      kept: the trained parameters, for `params` and `network`; None if there are none.

    Raises:
      ValueError: if a variable is missing, or if there is no epoch.
      TypeError: if `config` cannot be written as JSON.
    """

    data: xr.Dataset
    config: dict
    kept: Kept | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        required = ["l2", "seed", "epoch", *(name for name, metric in METRICS.items() if not metric.optional)]
        if missing := [name for name in required if name not in self.data.variables]:
            raise ValueError(f"results without {', '.join(missing)}")
        if not self.data.sizes.get("epoch"):
            raise ValueError("results without a finished epoch")
        data = self.data.assign(diverged=self.data["diverged"].astype(bool))
        for name in map(str, data.variables):
            long_name, units = DESCRIPTIONS.get(name) or (hyperparameter(name).name, "1")
            data[name].attrs.update(long_name=long_name, units=units)
        object.__setattr__(self, "data", data)
        # As JSON gives it back (tuples become lists), so that loaded results equal those that were saved.
        object.__setattr__(self, "config", json.loads(json.dumps(self.config)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Results):
            return NotImplemented
        return self.data.identical(other.data) and self.config == other.config

    @property
    def swept(self) -> list[str]:
        """The dimensions that are hyperparameters: `l2`, and those that took several values."""
        return [str(name) for name in self.data["diverged"].dims if name not in REPLICATES]

    @property
    def fixed(self) -> dict[str, float]:
        """Swept hyperparameters that these results hold fixed, after `along_l2`."""
        sweep, coords = self.config.get("sweep", {}), self.data.coords
        values = {name: sweep[name] for name in HYPERPARAMETERS if name in sweep} | sweep.get("hyperparameters", {})
        several = [name for name, value in values.items() if isinstance(value, list) and len(value) > 1]
        return {name: float(coords[name]) for name in several if name in coords and coords[name].ndim == 0}

    def best(self, metric: str = "val_loss", rule: Literal["min", "1se"] = "min") -> float:
        """The best strength: `l2` of the `best_setting`, with the same arguments and errors."""
        return self.best_setting(metric, rule)["l2"]

    def best_setting(self, metric: str = "val_loss", rule: Literal["min", "1se"] = "min") -> dict[str, float]:
        """The swept hyperparameters' best values by a metric at the last epoch, averaged over seeds and folds.

        Args:
          metric: "val_loss", "val_accuracy", "train_loss" or "train_accuracy".
          rule: "min" takes the best mean: the lowest loss, or the highest accuracy. Of equal means it takes the
            stronger strength. "1se" takes the strongest strength whose mean is within one standard error of the best
            mean, with all other hyperparameters as in the best setting; the standard error is that of the best setting
            (Breiman et al., Classification and Regression Trees, 1984). A single trial has no standard error, and both
            rules then agree. In glmnet the two are called lambda.min and lambda.1se.

        Returns:
          One value per name in `swept`. A setting with a diverged trial is never the best.

        Raises:
          InputError: for another metric or rule.
          ValueError: if every setting has a diverged trial.
        """
        setting = self.best_setting_or_none(metric, rule)
        if setting is None:
            raise ValueError("no best strength: every strength has a diverged trial")
        return setting

    def best_setting_or_none(
        self, metric: str = "val_loss", rule: Literal["min", "1se"] = "min"
    ) -> dict[str, float] | None:
        """The `best_setting`, or None if every setting has a diverged trial."""
        if metric not in CHOOSABLE:
            raise InvalidInputError("metric", metric, ", ".join(CHOOSABLE))
        if rule not in RULES:
            raise InvalidInputError("rule", rule, ", ".join(RULES))
        table = self.settings_table().reset_index()
        table = table[(table["num_diverged"] == 0) & np.isfinite(table[metric])]
        if table.empty:
            return None
        cost = -table[metric] if METRICS[metric].better == "higher" else table[metric]
        best = table[cost == cost.min()].sort_values("l2").iloc[-1]
        slack = best[f"{metric}_se"]
        if rule == "1se" and not math.isnan(slack):
            others = [name for name in self.swept if name != "l2"]
            is_near = (cost <= cost.min() + slack) & (table[others] == best[others]).all(axis=1)
            best = table[is_near].sort_values("l2").iloc[-1]
        return {name: float(best[name]) for name in self.swept}

    def best_trial(self) -> dict[str, float]:
        """Hyperparameters, seed and fold of the trial at the `best_setting` with the lowest `val_loss` at the end.

        If every setting has a diverged trial, it is the lowest of all trials that have not diverged.

        Raises:
          ValueError: if every trial has diverged.
        """
        table = self.trials_table()
        table = table[~table["diverged"] & np.isfinite(table["val_loss"])]
        for name, value in (self.best_setting_or_none() or {}).items():
            table = table[table[name] == value]
        if table.empty:
            raise ValueError("no best trial: none has finished without diverging")
        best = table.iloc[int(table["val_loss"].argmin())]
        return {str(name): best[str(name)].item() for name in self.data["diverged"].dims}

    def along_l2(self) -> Results:
        """These results with all hyperparameters but `l2` held at their best values.

        If no setting is the best, because each has a diverged trial, they are held at their first values.
        """
        setting = self.best_setting_or_none() or {name: self.data[name].values[0] for name in self.swept}
        data = self.data.sel({name: setting[name] for name in self.swept if name != "l2"})
        return Results(data, self.config, self.kept)

    def params(self, **trial: float) -> Arrays:
        """The trained parameters and the state, such as batch statistics, of one trial.

        Args:
          **trial: hyperparameters, seed and fold of the trial, such as l2=1e-2, seed=0: all that took several values.
            Of numbers that are no integers, the nearest is taken, if it is equal to three digits. Nothing is the
            `best_trial`, the only one that is kept, unless the sweep was made with keep="all".

        Returns:
          Arrays by path, such as "dense/kernel", after the last epoch; of a trial that has diverged, after its last
          finite one. Parameters are those that were evaluated, which schedule-free optimizers keep apart.

        Raises:
          InputError: for a trial that there is not, or whose parameters were not kept.
          ValueError: for the best trial, if every trial has diverged.
        """
        return kept_params(self.kept, self.data, trial or self.best_trial())

    def network(self, model: Any = None, **trial: float) -> Any:
        """The trained network of one trial, ready to be called.

        Args:
          model: the network that was trained, as in `sweep`. It is needed for one of your own after `load_results`.
          **trial: as in `params`.

        Returns:
          A `flax.nnx.Module` in eval mode; for a Linen module, that module bound to its variables. It maps images as
          training saw them, uint8 ones divided by 255, to logits: `network(images)`. If its call takes an argument that
          says whether it trains, it still does: `network(images, train=False)`.

        Raises:
          InputError: as `params`, and if the model is needed or another one than that which was trained.
          ValueError: as `params`.
        """
        arrays = self.params(**trial)
        assert self.kept
        return self.kept.build(model if model is not None else self.kept.model, arrays, self.config)

    def trials_table(self) -> pd.DataFrame:
        """One row per trial: hyperparameters, seed, fold, the metrics at the last epoch, and `best_val_loss`."""
        last = self.data.isel(epoch=-1, drop=True).drop_dims(["layer", "magnitude"], errors="ignore")
        return last.assign(best_val_loss=self.data["val_loss"].min("epoch")).to_dataframe().reset_index()

    def settings_table(self) -> pd.DataFrame:
        """One row per setting, weak to strong, indexed by the swept hyperparameters.

        For each metric at the last epoch, and for `gap` (val_loss - train_loss), a column of that name holds the mean,
        and `<metric>_se` its standard error (NaN for one trial). `best_epoch` is the median. All are over the trials
        that have not diverged; `num_diverged` counts the others.

        Standard errors take seeds as independent, and folds as dependent: see `l2jax.stats.standard_error`.
        """
        return self._settings.copy(deep=False)

    @functools.cached_property
    def _settings(self) -> pd.DataFrame:
        """The `settings_table`, made once: with very many trials it takes seconds, and every question asks for it."""
        import pandas as pd

        data = self.data.isel(epoch=-1, drop=True).sortby(self.swept)
        data = data.assign(gap=data["val_loss"] - data["train_loss"])
        settings = pd.MultiIndex.from_product([data[name].values for name in self.swept], names=self.swept)
        diverged = flatten_replicates(data["diverged"], self.swept)

        def finished_values(name: str) -> np.ndarray:
            return np.where(diverged, np.nan, flatten_replicates(data[name], self.swept))

        columns: dict[str, np.ndarray] = {}
        for metric in (name for name in AVERAGED if name in data):
            values = finished_values(metric)
            columns[metric] = nanmean(values)
            columns[f"{metric}_se"] = standard_error(values, data.sizes.get("fold"))
        columns["best_epoch"] = pd.DataFrame(finished_values("best_epoch")).median(axis=1).to_numpy()
        columns["num_diverged"] = diverged.sum(1)
        return pd.DataFrame(columns, settings if len(self.swept) > 1 else settings.get_level_values(0))

    def save(self, run_dir: str | os.PathLike[str]) -> None:
        """Writes config.json, results.nc (NetCDF 3), summary.csv (one row per trial) and SHA256SUMS into `run_dir`.

        In place of results.nc, more than 256 MB of numbers are written piece by piece to results.zarr.
        """
        write_files(run_dir, self.data, self.config, self.trials_table())

    def table(self) -> pd.DataFrame:
        """The old name of `settings_table`."""
        warnings.warn("Results.table() is now Results.settings_table()", DeprecationWarning, stacklevel=2)
        return self.settings_table()

    def trials(self) -> pd.DataFrame:
        """The old name of `trials_table`."""
        warnings.warn("Results.trials() is now Results.trials_table()", DeprecationWarning, stacklevel=2)
        return self.trials_table()


def load_results(run_dir: str | os.PathLike[str]) -> Results:
    """Reads what `Results.save` wrote into a run folder; from results.zarr, each variable when it is used.

    Raises:
      InputError: if the files are missing or damaged.
    """
    try:
        return Results(*read_files(run_dir))
    except Exception as error:  # `read_files` may raise any
        accepted = f"a run folder with the {CONFIG} and {DATA} or {MANY} of a sweep"
        raise InvalidInputError("run_dir", run_dir, f"{accepted} ({reason(error)})") from error
