"""What a run folder, its tables, figures and page take in time, memory and bytes with very many trials, made up here.

python benchmarks/many_trials.py 2000 10000 100000
"""

from __future__ import annotations

import argparse
import io
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from l2jax.hyperparameters import own_hyperparameter, parse_values

NUM_EPOCHS, SEEDS, CHUNK, LAYERS = 20, 5, 2048, ("dense",)
PEAK_RESET, MEGABYTE = Path("/proc/self/clear_refs"), 1e6


def axes_of(layout: str, num_trials: int) -> dict[str, tuple]:
    """The values of each axis: many strengths, many seeds, or a grid of four hyperparameters; about as many trials."""
    axes: dict[str, tuple] = {"l2": (0.0, *_grid(1e-6, 1, 7)), "learning_rate": (1e-3,)}
    seeds = SEEDS
    if layout == "strengths":
        axes["l2"] = (0.0, *_grid(1e-6, 1, num_trials // SEEDS - 1))
    elif layout == "seeds":
        seeds = num_trials // len(axes["l2"])
    else:
        side = round(math.sqrt(num_trials / (4 * SEEDS)))
        axes["l2"] = (0.0, *_grid(1e-6, 1, side - 1))
        axes["learning_rate"] = _grid(1e-4, 1e-1, side)
        axes["label_smoothing"] = (0.0, 0.1)
        axes["weight_decay"] = (0.0, 0.01)
    return axes | {"seed": tuple(range(seeds)), "fold": (0,)}


def _grid(low: float, high: float, count: int) -> tuple[float, ...]:
    return parse_values("grid", own_hyperparameter("grid"), f"log:{low}:{high}:{count}")


def epoch_metrics(settings: dict[str, np.ndarray], epoch: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Made-up metrics (n,) of an epoch: validation loss is lowest at a middle strength.

    Some trials of the highest learning rates and strengths diverge.
    """
    l2, rate, seed = settings["l2"], settings["learning_rate"], settings["seed"]
    other = settings.get("label_smoothing", 0.0) + 3 * settings.get("weight_decay", 0.0)
    noise = np.sin(12.9898 * seed) + 0.4 * rng.normal(size=len(l2))  # seeds are pairs
    misfit = 0.1 * np.log10(rate / 3e-3) ** 2
    train = 1.6 * np.exp(-epoch / 2) + 0.9 * np.exp(-epoch / 4) + 2 * l2**0.9 + misfit + 0.2 * other
    train = (train + 0.01) * np.exp(0.05 * noise)
    gap = 0.1 / (1 + 8 * l2**0.5 + other) + 0.012 * epoch / (1 + 60 * l2**0.7)
    val = train + gap * (1 - np.exp(-epoch / 4)) * np.exp(0.2 * noise)
    doomed = np.sin(1e4 * rate + 1e3 * l2 + seed) > 0.9
    diverged = doomed & ((rate > 0.05) | (l2 > 0.5)) & (epoch >= 6)
    squares = 120 / (1 + 300 * l2) * (1 + 0.05 * noise)
    metrics = {
        "running_objective": 1.2 * train,
        "running_accuracy": np.clip(0.97 - 0.12 * train, 0, 1),
        "train_loss": train,
        "train_accuracy": np.clip(1 - 0.12 * train, 0, 1),
        "penalty": l2 / 2 * squares,
        "val_loss": np.where(diverged, np.nan, val),
        "val_accuracy": np.clip(0.985 - 0.12 * val, 0, 1),
        "val_ece": np.clip(0.02 + 0.02 * noise, 0, 1),
        "kernel_sum_of_squares": squares,
        "kernel_norm": np.sqrt(squares)[:, None],
    }
    return {name: values.astype(np.float32) for name, values in metrics.items()}


def test_metrics(settings: dict[str, np.ndarray], last: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Made-up metrics of the end."""
    from l2jax.results.metrics import MAGNITUDES

    middle = -1.5 - np.log10(1 + 300 * settings["l2"])
    density = np.exp(-((np.log10(MAGNITUDES)[None] - middle[:, None]) ** 2))
    counts = np.round(7840 * density / density.sum(1, keepdims=True))
    return {
        "test_loss": last["val_loss"] * np.float32(1.02),
        "test_accuracy": last["val_accuracy"],
        "kernel_magnitudes": counts[:, None].astype(np.float32),
    }


def fill_ledger(axes: dict[str, tuple]) -> Any:
    """A ledger as the engine leaves it, filled chunk after chunk."""
    from l2jax.engine.ledger import new_ledger

    shape = tuple(map(len, axes.values()))
    ledger = new_ledger(np.full(math.prod(shape), 160), NUM_EPOCHS, len(LAYERS))
    for first in range(0, math.prod(shape), CHUNK):
        indices = np.arange(first, min(first + CHUNK, math.prod(shape)))
        places = np.unravel_index(indices, shape)
        settings = {name: np.asarray(axes[name])[place] for name, place in zip(axes, places, strict=True)}
        last: dict[str, np.ndarray] = {}
        for epoch in range(1, NUM_EPOCHS + 1):
            last = epoch_metrics(settings, epoch, np.random.default_rng((first, epoch)))
            ledger.add_epoch(tuple(indices.tolist()), epoch, last, 0.1)
        ledger.add_test(tuple(indices.tolist()), test_metrics(settings, last))
    return ledger


def steps(axes: dict[str, tuple], folder: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """The steps that a run takes after training, by name; each returns the bytes that it leaves, 0 for none."""
    from rich.console import Console

    from l2jax import plot
    from l2jax.engine.collect import collect
    from l2jax.plot.style import own_style
    from l2jax.report.page import write_report
    from l2jax.results.brief import brief
    from l2jax.results.results import load_results
    from l2jax.results.verdict import verdict
    from l2jax.run.terminal import print_results

    have: dict[str, Any] = {}
    several = {name: list(values) for name, values in axes.items() if name not in ("seed", "fold")}
    config = {"sweep": several | {"seeds": len(axes["seed"]), "epochs": NUM_EPOCHS}, "model": "cnn"}

    def filled() -> int:
        have["ledger"] = fill_ledger(axes)
        return 0

    def collected() -> int:
        have["results"] = collect(have.pop("ledger"), axes, LAYERS, config)
        return 0

    def settings() -> int:
        have["results"].settings_table()
        return 0

    def trials() -> int:
        have["results"].trials_table()
        return 0

    def saved() -> int:
        have.pop("results").save(folder)
        return _size(folder)

    def loaded() -> int:
        have["results"] = load_results(folder)
        return 0

    def in_brief() -> int:
        have["along_l2"] = have["results"].along_l2()
        return sum(map(len, brief(have["along_l2"])))

    def in_full() -> int:
        return sum(len(str(finding)) for finding in verdict(have["along_l2"]))

    def on_terminal() -> int:
        out = io.StringIO()
        print_results(have["results"], folder, Console(file=out, width=100))
        (folder / "terminal.txt").write_text(out.getvalue())
        return len(out.getvalue())

    def page() -> int:
        write_report({str(folder): have["results"]}, folder / "report.html")
        return _size(folder / "report.html")

    yield "ledger", filled
    yield "collect", collected
    yield "settings_table", settings
    yield "trials_table", trials
    yield "save", saved
    yield "load", loaded
    yield "settings_table of loaded", settings
    yield "brief", in_brief
    yield "verdict", in_full
    yield "terminal", on_terminal
    for name, draw in plot.drawings(have["results"]).items():

        def drawn(name: str = name, draw: Callable[[], Any] = draw) -> int:
            with own_style():
                draw().savefig(folder / f"{name}.png", dpi=150)
            return _size(folder / f"{name}.png")

        yield f"{name}.png", drawn
    yield "report.html", page


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def peak_memory() -> float:
    """The process' peak memory, in bytes: on Linux since the last call, elsewhere what it takes now."""
    if not PEAK_RESET.exists():
        return psutil.Process().memory_info().rss
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    PEAK_RESET.write_text("5")
    return 1024 * int(line.split()[1])


def measure(layout: str, num_trials: int, folder: Path) -> None:
    """Prints one line of JSON per step: name, seconds, peak memory and bytes."""
    axes = axes_of(layout, num_trials)
    peak_memory()
    for name, step in steps(axes, folder):
        start = time.perf_counter()
        size = step()
        print(json.dumps([name, time.perf_counter() - start, peak_memory(), size]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_trials", nargs="+", type=int)
    parser.add_argument("--layouts", nargs="+", default=["strengths", "seeds", "grid"])
    parser.add_argument("--folder", type=Path, default=Path("runs/many_trials"))
    parser.add_argument("--one", action="store_true", help="measure in this process, and print JSON")
    args = parser.parse_args()
    if args.one:
        measure(args.layouts[0], args.num_trials[0], args.folder)
        return
    for layout in args.layouts:
        for num_trials in args.num_trials:
            folder = args.folder / f"{layout}-{num_trials}"
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, __file__, str(num_trials), "--layouts", layout, "--folder", str(folder), "--one"]
            shape = " x ".join(f"{len(v):,} {n}" for n, v in axes_of(layout, num_trials).items() if len(v) > 1)
            print(f"\n{num_trials:,} trials: {shape}\n\n| step | seconds | peak memory, MB | size, MB |")
            print("|---|---:|---:|---:|", flush=True)
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                for line in process.stdout:
                    name, seconds, peak, size = json.loads(line)
                    text = f"{size / MEGABYTE:,.2f}" if size else ""
                    print(f"| {name} | {seconds:.2f} | {peak / MEGABYTE:,.0f} | {text} |", flush=True)
            if process.returncode:
                sys.exit(f"{layout}, {num_trials} trials: exit code {process.returncode}")


if __name__ == "__main__":
    main()
