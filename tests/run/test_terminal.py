"""The progress bar of a sweep, on a terminal, and its lines elsewhere."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.results import STRENGTHS, synthetic
from rich.console import Console

from l2jax.config import SweepConfig
from l2jax.engine.plan import Fit
from l2jax.run import output
from l2jax.run.output import progress_console
from l2jax.run.terminal import print_results, progress_bar, show_compilation


def fake_sweep(num_epochs, num_chunks=1):
    config = SweepConfig(l2=tuple(range(8)), seeds=3, epochs=num_epochs)
    at_once = config.num_trials // num_chunks
    chunks = [range(start, start + at_once) for start in range(0, config.num_trials, at_once)]
    records = [
        SimpleNamespace(number=number, indices=indices, examples_per_second=12345.6)
        for indices in chunks
        for number in range(1, num_epochs + 1)
    ]
    sweep = SimpleNamespace(
        config=config,
        num_trials=config.num_trials,
        compile=lambda: SimpleNamespace(fit=Fit(at_once, num_chunks, 250_000_000, 4_000_000_000, None)),
        seconds={"compiling": 1.23},
        ledger=SimpleNamespace(num_records=0),
        epochs_left=len(records),
    )

    def epochs():
        for record in records:
            sweep.epochs_left -= 1
            yield record

    sweep.epochs = epochs
    return sweep


def train(sweep, console, pause=0.0):
    """Trains as a run does, with its output."""
    show_compilation(sweep, console)
    with progress_bar(sweep, console) as observe:
        for record in sweep.epochs():
            observe(record)
            time.sleep(pause)


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 39, 1000])
def test_plain_lines_are_few_first_and_last_epoch_among_them(count):
    out = io.StringIO()
    train(fake_sweep(count), Console(file=out, width=100))
    plan, *lines = out.getvalue().splitlines()
    assert plan == "24 trials at once: 250 MB of 4,000 MB free; compiled in 1.2 s"
    assert lines[0].startswith(f"epoch 1/{count}: 24 trials, 12,346 trial-examples/s, 0:00:0")
    assert lines[-1] == f"epoch {count}/{count}: 24 trials, 12,346 trial-examples/s, 0:00:00 left"
    assert min(count, 10) <= len(lines) <= 21


def test_lines_name_the_trials_of_a_chunk():
    out = io.StringIO()
    train(fake_sweep(2, num_chunks=3), Console(file=out, width=100))
    plan, *lines = out.getvalue().splitlines()
    assert plan.startswith("8 trials at once, 3 chunks: ")
    trials = [line.split(",")[0] for line in lines]
    assert trials == [f"epoch {e}/2: trials {t} of 24" for t in ("1-8", "9-16", "17-24") for e in (1, 2)]


def test_bar_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    train(fake_sweep(3), console, pause=0.2)  # the bar is drawn ten times a second
    assert "compiling for 24 trials" in out.getvalue()
    assert "epoch 2/3" in out.getvalue()
    assert "24 trials, 12,346 trial-examples/s, 0:00:0" in out.getvalue()


@pytest.mark.parametrize(("has_widgets", "quiet"), [(True, False), (True, True), (False, False), (False, True)])
def test_a_notebook_draws_if_it_can_and_is_asked_to(has_widgets, quiet, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(output.importlib.util, "find_spec", lambda _: object() if has_widgets else None)
    assert progress_console(quiet=quiet).is_jupyter == (has_widgets and not quiet)


def printed(results):
    out = io.StringIO()
    print_results(results, Path("run"), Console(file=out, width=100))
    return out.getvalue()


def test_few_strengths_have_a_row_each():
    text = printed(synthetic())
    assert all(f" {l2:.3g} " in text for l2 in STRENGTHS) and "left out" not in text


def test_of_many_strengths_the_weakest_and_the_best_are_printed():
    results = synthetic((0.0, *np.geomspace(1e-6, 1, 1999)), diverged=[(1.0, 0, 3)])
    text, means = printed(results), results.settings_table()["val_loss"]
    shown = {0.0, results.best(), results.best(rule="1se"), *means[:-1].nsmallest(12).index}
    assert f"{2000 - len(shown):,} of 2,000 strengths are left out" in text and len(text.splitlines()) < 40
    table = text.split("left out")[0]
    assert all(f" {l2:.3g} " in table for l2 in shown)
    assert sum("%" in line for line in table.splitlines()) == len(shown)
