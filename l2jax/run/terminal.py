"""The terminal: a progress bar while a sweep trains, and its results."""

from __future__ import annotations

import contextlib
import datetime
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn
from rich.table import Table

from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset, load_dataset
from l2jax.distributed.driver import Driver
from l2jax.engine.ledger import EpochRecord
from l2jax.engine.sweep import Sweep
from l2jax.errors import SweepWarning
from l2jax.results.brief import brief
from l2jax.results.metrics import ALL_METRICS
from l2jax.results.results import Results
from l2jax.results.words import number, setting
from l2jax.run.output import can_show
from l2jax.trial.train import Part

if TYPE_CHECKING:
    import pandas as pd


@contextlib.contextmanager
def warnings_on(console: Console) -> Iterator[None]:
    """Prints warnings of l2jax as lines on the console; those of other libraries are none of a person's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SweepWarning)
        warnings.showwarning = lambda message, *_, **__: console.print(
            f"warning: {message}", markup=False, soft_wrap=True
        )
        yield


def show_work(sweep: Sweep, caught: Sequence[warnings.WarningMessage], console: Console) -> None:
    """Shows what is trained, and then what was warned of before."""
    console.print(work(sweep), markup=False, soft_wrap=True)
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def work(sweep: Sweep) -> str:
    """One line on what is trained, and on what: examples by part, classes, trials, epochs."""
    sizes = sweep.setup.part_sizes
    parts = [
        f"{_range(sizes[part])} {name}"
        for part, name in ((Part.TRAIN, "training"), (Part.VAL, "validation"), (Part.TEST, "test"))
        if sizes[part].any()
    ]
    axes = {"strength" if name == "l2" else name.replace("_", " "): len(values) for name, values in sweep.axes.items()}
    grid = " x ".join(_count(size, name) for name, size in axes.items() if size > 1 or name in ("strength", "seed"))
    examples = f"{', '.join(parts[:-1])} and {parts[-1]} examples of {_count(sweep.dataset.num_classes, 'class')}"
    trials, epochs = _count(sweep.num_trials, "trial"), _count(sweep.config.epochs, "epoch")
    return f"{sweep.dataset.name}: {examples}; {trials} ({grid}), {epochs}"


def _range(sizes: np.ndarray) -> str:
    low, high = sizes.min(), sizes.max()
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def load_with_progress(config: SweepConfig, console: Console) -> Dataset:
    """Loads the data set of a sweep, and shows how many images are decoded, if they have to be."""
    with console.status(f"loading {config.dataset}") as status:

        def show(done: int, total: int) -> None:
            status.update(f"loading {config.dataset}: {done:,} of {total:,} images")

        return load_dataset(config.dataset, config.data_dir, image_size=config.image_size, progress=show)


def show_compilation(sweep: Sweep, console: Console) -> None:
    """Compiles, and shows that, the plan and the time that it took."""
    with console.status(f"compiling for {sweep.num_trials} trials"):
        plan = sweep.compile()
    console.print(f"{plan.fit}; compiled in {sweep.seconds['compiling']:.1f} s")


def show_workers(driver: Driver, console: Console) -> None:
    """Has a worker plan and compile, and shows that, the plan and the time that it took."""
    start, workers = time.monotonic(), _count(driver.workers.number, "worker")
    with console.status(f"compiling for {workers}"):
        driver.plan()
    size = driver.sweep.computation.trials_at_once if driver.sweep.computation else 0
    chunks = f"{_count(len(driver.tasks), 'chunk')} of at most {_count(size, 'trial')} for {workers}"
    console.print(f"{chunks}; compiled in {time.monotonic() - start:.1f} s", markup=False)


@contextlib.contextmanager
def progress_bar(sweep: Sweep, console: Console) -> Iterator[Callable[[EpochRecord], None]]:
    """Shows how far a compiled sweep is: a bar on a terminal, some 20 plain lines elsewhere.

    Yields:
      A function to call with the record of each epoch.
    """
    start, before, num_epochs = time.monotonic(), sweep.ledger.num_records, sweep.config.epochs
    left, counted, done = sweep.epochs_left, start, 0
    line_every = math.ceil(left / 20)
    columns = (SpinnerColumn(), "{task.description}", BarColumn(bar_width=None), "{task.fields[speed]}")
    interactive = console.is_interactive or console.is_jupyter
    with Progress(*columns, console=console, transient=True, expand=True, disable=not interactive) as bar:
        task = bar.add_task(f"epoch 0/{num_epochs}", completed=before, total=before + left, speed="")

        def show(record: EpochRecord) -> None:
            nonlocal done, left, counted
            done, left, now = done + 1, left - 1, time.monotonic()
            if left < 1 or now - counted > 0.2:  # of very many trials, to count takes time
                left, counted = sweep.epochs_left, now
            time_left = datetime.timedelta(seconds=round((now - start) / done * left))
            trials = _describe_trials(record.indices, sweep.num_trials)
            speed = f"{trials}, {record.examples_per_second:,.0f} trial-examples/s, {time_left} left"
            epoch = f"epoch {record.number}/{num_epochs}"
            bar.update(task, completed=before + done, total=before + done + left, description=epoch, speed=speed)
            if not interactive and ((before + done) % line_every == 0 or done == 1 or left == 0):
                console.print(f"{epoch}: {speed}")

        yield show


def _describe_trials(indices: tuple[int, ...], num_trials: int) -> str:
    if len(indices) == num_trials:
        return f"{num_trials} trials"
    first, last = indices[0] + 1, indices[-1] + 1
    consecutive = last - first + 1 == len(indices)
    return f"trials {first}-{last} of {num_trials}" if consecutive else f"{len(indices)} trials of {num_trials}"


MOST_STRENGTHS, BEST_STRENGTHS, MOST_SETTINGS = 40, 12, 8
BEST_COLUMNS = ("val_loss", "val_accuracy")
COLUMNS = ("val_loss", "train_loss", "gap", "val_accuracy", "test_accuracy")


def print_results(results: Results, run_dir: Path, console: Console) -> None:
    """Prints a table with one row per strength, the verdict in brief, and where the rest is.

    Of very many strengths, these are the weakest and the best. Other hyperparameters that were swept are at their best
    values.
    """
    all_settings, results = results, results.along_l2()
    replicates = "seeds and folds" if "fold" in results.data.dims else "seeds"
    plus_minus = "±" if can_show("±", console) else "+-"
    title = f"epoch {results.data.sizes['epoch']}: mean over {replicates} {plus_minus} standard error"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("l2", *(ALL_METRICS[name].heading or ALL_METRICS[name].name for name in COLUMNS)):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    table.add_column("best by", no_wrap=True)
    rules = _rules(results)
    settings = results.settings_table()
    shown = _shown(settings, rules)
    for l2, row in zip(shown.index.tolist(), shown.to_dict("records"), strict=True):
        cells = [_cell(row[name], ".1%" if ALL_METRICS[name].percent else ".4f") for name in COLUMNS]
        cells[0] += _cell(row["val_loss_se"], ".4f", before=f" {plus_minus} ")
        last = f"{row['num_diverged']:.0f} diverged" if row["num_diverged"] else rules.get(l2, "")
        table.add_row(number(l2), *cells, last, style="bold" if l2 in rules else "")
    console.print(table)
    if left_out := len(settings) - len(shown):
        console.print(f"{left_out:,} of {len(settings):,} strengths are left out: these are the weakest and the best.")
    if results.fixed:
        best = setting(results.fixed)
        console.print(f"Other hyperparameters are at their best: {best}. Heat maps show them all.", markup=False)
        console.print(_best_settings(all_settings))
    console.print("\n".join(brief(results)), markup=False)
    console.print(f"\nThe whole verdict, figures and tables: {run_dir / 'report.html'}", markup=False, soft_wrap=True)
    console.print(f"To read them back: l2jax.load_results({str(run_dir)!r})", markup=False, soft_wrap=True)


def _shown(settings: pd.DataFrame, rules: Collection[float]) -> pd.DataFrame:
    """The rows to show of one per strength: of very many the weakest, those that a rule chooses, and the lowest."""
    if len(settings) <= MOST_STRENGTHS:
        return settings
    lowest = settings["val_loss"].where(settings["num_diverged"] == 0).nsmallest(BEST_STRENGTHS).index
    return settings.loc[settings.index.isin([settings.index[0], *rules, *lowest])]


def _best_settings(results: Results) -> Table:
    """The settings with the lowest mean validation loss, the best first."""
    settings = results.settings_table().query("num_diverged == 0").sort_values("val_loss").head(MOST_SETTINGS)
    table = Table(title="the best settings", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in (*results.swept, *BEST_COLUMNS):
        heading = (ALL_METRICS[name].heading or ALL_METRICS[name].name) if name in ALL_METRICS else name
        table.add_column(heading.replace(" ", "\n").replace("_", "\n"), justify="right", no_wrap=True)
    for row in settings.reset_index().to_dict("records"):
        loss = _cell(row["val_loss"], ".4f") + _cell(row["val_loss_se"], ".4f", before=" ± ")
        accuracies = [_cell(row[name], ".1%") for name in BEST_COLUMNS[1:]]
        table.add_row(*(number(row[name]) for name in results.swept), loss, *accuracies)
    return table


def _rules(results: Results) -> dict[float, str]:
    """The rules by which strengths are the best, by strength; none where every strength has a diverged trial."""
    if results.best_setting_or_none() is None:
        return {}
    lowest, within_one_se = results.best(rule="min"), results.best(rule="1se")
    return {lowest: "both"} if lowest == within_one_se else {lowest: "minimum", within_one_se: "one s.e."}


def _cell(value: float, spec: str, before: str = "") -> str:
    return f"{before}{value:{spec}}" if math.isfinite(value) else ""
