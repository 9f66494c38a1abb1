"""What a person sees on the terminal: the progress of a sweep, and what came out."""

from __future__ import annotations

import contextlib
import datetime
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn
from rich.table import Table

from l2jax.results.results import Results
from l2jax.results.verdict import verdict

if TYPE_CHECKING:
    from l2jax.engine.snapshot import Epoch
    from l2jax.engine.sweep import Sweep


def shown(sweep: Sweep, console: Console, profile: Path | None) -> Iterator[Epoch]:
    """Trains, and shows how far it is: a bar on a terminal, some 20 plain lines elsewhere."""
    with console.status(f"compiling for {sweep.num_trials} trials"):
        plan = sweep.plan
    console.print(f"{plan}; compiled in {sweep.seconds['compiling']:.1f} s")
    num_epochs = sweep.config.epochs
    line_every = math.ceil(sweep.epochs_left / 20)
    start, begun = time.monotonic(), len(sweep.history)
    columns = (SpinnerColumn(), "{task.description}", BarColumn(bar_width=None), "{task.fields[speed]}")
    interactive = console.is_interactive
    with Progress(*columns, console=console, transient=True, expand=True, disable=not interactive) as bar:
        task = bar.add_task(f"epoch 0/{num_epochs}", completed=begun, total=begun + sweep.epochs_left, speed="")
        for epoch in sweep.epochs(profile):
            done, left = len(sweep.history), sweep.epochs_left
            seconds = (time.monotonic() - start) / (done - begun) * left
            trials = f"{len(epoch.trials)} trials"
            if len(epoch.trials) < sweep.num_trials:
                first, last = epoch.trials[0] + 1, epoch.trials[-1] + 1
                in_a_row = last - first + 1 == len(epoch.trials)
                which = f"trials {first}-{last}" if in_a_row else f"{len(epoch.trials)} trials"
                trials = f"{which} of {sweep.num_trials}"
            count = f"epoch {epoch.epoch}/{num_epochs}"
            time_left = datetime.timedelta(seconds=round(seconds))
            speed = f"{trials}, {epoch.examples_per_second:,.0f} trial-examples/s, {time_left} left"
            bar.update(task, completed=done, total=done + left, description=count, speed=speed)
            if not interactive and (done % line_every == 0 or done == begun + 1 or left == 0):
                console.print(f"{count}: {speed}")
            yield epoch


def print_results(results: Results, run_dir: Path, console: Console) -> None:
    """Prints a table with a row a strength, the verdict, and where the rest is.

    Of other hyperparameters that were swept, it is all at their best values.
    """
    results = results.along_l2()
    chosen: dict[object, str] = {}
    with contextlib.suppress(ValueError):  # where every strength has a diverged trial, none is the best
        chosen[results.best(rule="1se")] = "one s.e."
        lowest = results.best(rule="min")
        chosen[lowest] = "both" if lowest in chosen else "minimum"

    def cell(value: float, spec: str, before: str = "") -> str:
        return f"{before}{value:{spec}}" if math.isfinite(value) else ""

    over = "seeds and folds" if "fold" in results.data.dims else "seeds"
    title = f"epoch {results.data.sizes['epoch']}: mean over {over} ± standard error"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("l2", "validation loss", "training loss", "gap", "validation accuracy", "test accuracy"):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    table.add_column("best by", no_wrap=True)
    for l2, row in results.settings_table().iterrows():
        table.add_row(
            f"{l2:.3g}",
            cell(row.val_loss, ".4f") + cell(row.val_loss_se, ".4f", before=" ± "),
            cell(row.train_loss, ".4f"),
            cell(row.gap, ".4f"),
            cell(row.val_accuracy, ".1%"),
            cell(row.test_accuracy, ".1%"),
            f"{row.num_diverged:.0f} diverged" if row.num_diverged else chosen.get(l2, ""),
            style="bold" if l2 in chosen else "",
        )
    console.print(table)
    if results.fixed:
        words = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in results.fixed.items())
        console.print(f"Of the others, the best: {words}. Heat maps show them all.", markup=False)
    console.print("\n".join(map(str, verdict(results))), markup=False)
    console.print(f"\nPictures, tables and settings: {run_dir}", markup=False, soft_wrap=True)
    console.print(f"To read them back: l2jax.load_results({str(run_dir)!r})", markup=False, soft_wrap=True)
