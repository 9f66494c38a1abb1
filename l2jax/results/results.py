"""What a sweep found: labelled arrays, the best strength, tables and files."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from l2jax.atomic import read_checked, write_with_sums
from l2jax.config import SweepConfig
from l2jax.errors import InvalidInputError, reason

if TYPE_CHECKING:  # xarray and pandas take a second to import: `--help` should not wait for them
    import pandas as pd
    import xarray as xr

DESCRIPTIONS = {  # name: (long_name, units); "1" is a plain number or a fraction
    "l2": ("L2 strength", "1"),
    "learning_rate": ("learning rate", "1"),
    "weight_decay": ("decoupled weight decay", "1"),
    "label_smoothing": ("label smoothing", "1"),
    "seed": ("seed of split, initial params and data order", "1"),
    "fold": ("fold that is validated on", "1"),
    "epoch": ("epochs finished", "1"),
    "running_objective": ("training cross-entropy with the penalty, averaged while training", "nat"),
    "running_accuracy": ("training accuracy, averaged while training", "1"),
    "train_loss": ("training cross-entropy, without the penalty", "nat"),
    "train_accuracy": ("training accuracy", "1"),
    "penalty": ("(l2/2) * sum of squared kernels", "nat"),
    "val_loss": ("validation cross-entropy, without the penalty", "nat"),
    "val_accuracy": ("validation accuracy", "1"),
    "val_ece": ("validation calibration error", "1"),
    "l2_norm": ("sum of squared kernels", "1"),
    "kernel_norm": ("Euclidean norm of a layer's kernel", "1"),
    "layer": ("layer", "1"),
    "kernel_magnitudes": ("values of a layer's kernel by magnitude, at the end", "1"),
    "magnitude": ("magnitude of a kernel's value, the middle of its bin", "1"),
    "test_loss": ("test cross-entropy at the end", "nat"),
    "test_accuracy": ("test accuracy at the end", "1"),
    "diverged": ("the trial stopped being finite", "1"),
    "diverged_epoch": ("epoch in which it did, 0 if it did not", "1"),
    "best_epoch": ("epoch of the lowest validation loss, 0 if there is none", "1"),
}
OPTIONAL = (
    *("learning_rate", "weight_decay", "label_smoothing", "fold", "running_objective", "running_accuracy"),
    *("val_ece", "kernel_norm", "layer", "kernel_magnitudes", "magnitude", "diverged_epoch"),
)
"""Those of them that results of an older version lack; and `fold` is for cross-validation alone."""
REPEATED = ("seed", "fold")
"""What repeats a setting: dimensions that are averaged over. All others but `epoch` are hyperparameters."""
CHOOSABLE = ("val_loss", "val_accuracy", "train_loss", "train_accuracy")
"""Metrics a strength may be chosen by. The test part is not among them: it is looked at once, at the end."""
AVERAGED = (
    *(*CHOOSABLE, "gap", "penalty", "l2_norm", "test_loss", "test_accuracy"),
    *("running_objective", "running_accuracy"),
)
RULES = ("min", "1se")
CONFIG = "config.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """The metrics of every trial at every epoch, and the config of the run that made them.

    `data` has dimensions `l2`, `seed` and `epoch` (counted from 1), `fold` if there was cross-validation, and those
    other hyperparameters that took several values. Its variables are those of `DESCRIPTIONS`: `test_loss`,
    `test_accuracy`, `diverged`, `diverged_epoch` and `best_epoch` hold one value a trial, all others one an epoch,
    `kernel_norm` one a `layer`, too. `kernel_magnitudes` counts, for each trial and `layer`, the values of the kernel
    at the end by `magnitude`, as `l2jax.magnitudes` says. A diverged trial holds NaN from there on. `config` is a dict
    of JSON values.

    Raises ValueError if a variable is missing, if there is no epoch, or if `config` is not JSON.
    """

    data: xr.Dataset
    config: dict

    def __post_init__(self) -> None:
        if missing := [name for name in DESCRIPTIONS if name not in (*self.data.variables, *OPTIONAL)]:
            raise ValueError(f"results without {', '.join(missing)}")
        if not self.data.sizes.get("epoch"):
            raise ValueError("results without a finished epoch")
        data = self.data.copy()
        for name in DESCRIPTIONS.keys() & data.variables.keys():
            long_name, units = DESCRIPTIONS[name]
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
        """The hyperparameters that took several values, and `l2`: dimensions."""
        return [str(name) for name in self.data["diverged"].dims if name not in REPEATED]

    @property
    def fixed(self) -> dict[str, float]:
        """Hyperparameters that the sweep took several values of, and these results but one: see `along_l2`."""
        options = self.config.get("sweep", {}).items()
        several = [name for name, values in options if isinstance(values, list) and len(values) > 1]
        return {name: float(self.data[name]) for name in several if self.data[name].ndim == 0}

    def best(self, metric: str = "val_loss", rule: Literal["min", "1se"] = "min") -> float:
        """The best strength: `l2` of the `best_setting`."""
        return self.best_setting(metric, rule)["l2"]

    def best_setting(self, metric: str = "val_loss", rule: Literal["min", "1se"] = "min") -> dict[str, float]:
        """The value of each swept hyperparameter that is best by `metric` at the last epoch, averaged over trials.

        "min" takes the best mean: the lowest loss, or the highest accuracy; of equal means the stronger
        strength. "1se" takes the strongest strength whose mean is within one standard error of the best mean,
        the standard error being that of the best setting, and all other hyperparameters as in that (Breiman et al.,
        Classification and Regression Trees, 1984). One trial has no standard error: the rules then coincide.

        A setting with a diverged trial is never the best; raises ValueError if no other is left.
        """
        if metric not in CHOOSABLE:
            raise InvalidInputError("metric", metric, ", ".join(CHOOSABLE))
        if rule not in RULES:
            raise InvalidInputError("rule", rule, ", ".join(RULES))
        table = self.table().reset_index()
        table = table[(table["num_diverged"] == 0) & np.isfinite(table[metric])]
        if table.empty:
            raise ValueError("no best strength: every strength has a diverged trial")
        cost = -table[metric] if metric.endswith("_accuracy") else table[metric]
        best = table[cost == cost.min()].sort_values("l2").iloc[-1]
        slack = best[f"{metric}_se"]
        if rule == "1se" and not math.isnan(slack):
            others = [name for name in self.swept if name != "l2"]
            near = (cost <= cost.min() + slack) & (table[others] == best[others]).all(axis=1)
            best = table[near].sort_values("l2").iloc[-1]
        return {name: float(best[name]) for name in self.swept}

    def best_trial(self) -> dict[str, float]:
        """Hyperparameters, seed and fold of the trial at the `best_setting` with the lowest `val_loss` at the end.

        Where every setting has a diverged trial, it is the lowest of all; raises ValueError if none is left.
        """
        trials = self.trials()
        trials = trials[~trials["diverged"] & np.isfinite(trials["val_loss"])]
        try:
            setting = self.best_setting()
        except ValueError:
            setting = {}
        for name, value in setting.items():
            trials = trials[trials[name] == value]
        if trials.empty:
            raise ValueError("no best trial: none has finished without diverging")
        best = trials.iloc[int(trials["val_loss"].argmin())]
        return {str(name): best[str(name)].item() for name in self.data["diverged"].dims}

    def along_l2(self) -> Results:
        """These results at the best values of all hyperparameters but `l2`: the first ones, where none is best."""
        try:
            best = self.best_setting()
        except ValueError:
            best = {name: self.data[name].values[0] for name in self.swept}
        return Results(self.data.sel({name: best[name] for name in self.swept if name != "l2"}), self.config)

    def trials(self) -> pd.DataFrame:
        """One row a trial: its hyperparameters, seed and fold, what it reached at the last epoch, `best_val_loss`."""
        last = self.data.isel(epoch=-1, drop=True).drop_dims(["layer", "magnitude"], errors="ignore")
        return last.assign(best_val_loss=self.data["val_loss"].min("epoch")).to_dataframe().reset_index()

    def table(self) -> pd.DataFrame:
        """One row a setting, weak to strong, indexed by what was swept: what its trials reached at the last epoch.

        For each metric and for `gap` (val_loss - train_loss): the mean in a column of that name, its standard
        error in `<metric>_se` (NaN for one trial). `best_epoch` is the median. All are over the trials that
        did not diverge; `num_diverged` counts the others.

        Standard errors take folds as dependent, as `stats.standard_error` says, and seeds as independent.
        """
        import pandas as pd

        from l2jax.results.stats import mean_of, standard_error  # which imports this module

        data = self.data.isel(epoch=-1, drop=True).sortby(self.swept)
        data = data.assign(gap=data["val_loss"] - data["train_loss"])
        settings = pd.MultiIndex.from_product([data[name].values for name in self.swept], names=self.swept)

        def by_trial(name: str) -> np.ndarray:
            return data[name].transpose(*self.swept, ...).values.reshape(len(settings), -1).astype(np.float64)

        diverged = by_trial("diverged") > 0
        columns: dict[str, np.ndarray] = {}
        for metric in (name for name in AVERAGED if name in data):
            values = np.where(diverged, np.nan, by_trial(metric))
            columns[metric] = mean_of(values)
            columns[f"{metric}_se"] = standard_error(values, data.sizes.get("fold"))
        best_epoch = pd.DataFrame(np.where(diverged, np.nan, by_trial("best_epoch"))).median(axis=1).to_numpy()
        columns |= {"best_epoch": best_epoch, "num_diverged": diverged.sum(1)}
        return pd.DataFrame(columns, settings if len(self.swept) > 1 else settings.get_level_values(0))

    def save(self, run_dir: str | os.PathLike[str]) -> None:
        """Writes config.json, results.nc (NetCDF 3), summary.csv (a row a trial) and SHA256SUMS into `run_dir`."""
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        contents = {
            CONFIG: config_json(self.config),
            "results.nc": bytes(self.data.to_netcdf(engine="scipy")),
            "summary.csv": self.trials().to_csv(index=False).encode(),
        }
        write_with_sums(run_dir, contents)


def config_json(config: dict) -> bytes:
    """The content of config.json."""
    return (json.dumps(config, indent=2) + "\n").encode()


def read_config(run_dir: str | os.PathLike[str]) -> SweepConfig:
    """The sweep of a run folder; raises InputError if there is none."""
    try:
        return SweepConfig(**json.loads(read_checked(Path(run_dir), CONFIG))["sweep"])
    except Exception as error:  # JSON of any form
        accepted = f"a run folder with the {CONFIG} of a sweep ({reason(error)})"
        raise InvalidInputError("resume", run_dir, accepted) from error


def load_results(run_dir: str | os.PathLike[str]) -> Results:
    """The results that `Results.save` wrote into `run_dir`; raises InputError if they cannot be read."""
    import xarray as xr

    try:
        config = json.loads(read_checked(Path(run_dir), CONFIG))
        content = read_checked(Path(run_dir), "results.nc")  # from a path, a damaged file would stay open
        return Results(xr.load_dataset(io.BytesIO(content), engine="scipy"), config)
    except Exception as error:  # not only OSError: scipy answers damage with whatever its parser stumbles on
        accepted = "a run folder with the config.json and results.nc of a sweep"
        raise InvalidInputError("run_dir", run_dir, f"{accepted} ({reason(error)})") from error
