"""Measures how fast l2jax trains networks in plain Flax, beside PyTorch and JAX as tutorials write it.

    python benchmarks/networks.py [--quick] [--output DIR] [NETWORK ...]

The networks are in `peers/flax_networks.py`, without a line for l2jax, and again in `peers/torch_networks.py`. PyTorch
is the best of five: one process or one per core, each with and without channels_last, and one per core with
`torch.compile`. For each network all take turns, as in `throughput.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers.flax_networks import NETWORKS
from peers.peer import cores
from side_by_side.compare import ratios
from side_by_side.machine import machine
from side_by_side.measure import log, measure
from side_by_side.peers import Peer
from side_by_side.plan import STRENGTHS
from side_by_side.record import Row
from side_by_side.table import table
from throughput import write_digits

NAMES = tuple(name for name in NETWORKS if name not in ("", "deeper"))
EXAMPLES, FEW_EXAMPLES = {"article": 1024, "lenet": 1024, "mlp": 1024, "vit": 1024}, 128
"""Training examples; few where JAX as tutorials write it would take minutes for an epoch."""
EPOCHS = {"article": 8, "lenet": 16, "separable": 32, "mlp": 8, "resnet": 16, "vit": 2}
"""Epochs per two rounds, so that a round takes a second or so; for other networks, `FEW_EPOCHS`. On a machine that
others use, many short rounds by turns say more than few long ones."""
FEW_EPOCHS = 8
HEADS = ("network", "l2jax", "PyTorch", "ratio", "JAX", "ratio", "compilation, s", "memory: l2jax", "PyTorch, MB")


def peers(network: str, rounds: int, epochs: int) -> dict[str, list[Peer]]:
    """The peers by side of the comparison."""
    work: dict[str, Any] = {"strengths": STRENGTHS[:2], "seeds": len(cores()), "network": network, "rounds": rounds}

    def pytorch(variant: str, process_per_core: bool) -> Peer:
        words = ["PyTorch", variant or "NCHW", *["one process per core"] * process_per_core]
        options = {"variant": variant, "process_per_core": process_per_core, "epochs": epochs} | work
        return Peer(name=", ".join(words), script="torch_loop", needs=("torch",), **options)

    ways = [("", False), ("channels_last", False), ("", True), ("channels_last", True), ("compiled", True)]
    one_seed = work | {"seeds": 1, "rounds": 1}  # it takes many times as long
    return {
        "l2jax": [Peer(name="l2jax", script="l2jax_sweep", epochs=epochs, **work)],
        "PyTorch": [pytorch(*way) for way in ways],
        "JAX": [Peer(name="JAX as tutorials write it", script="jax_vmap", **one_seed)],
    }


def measure_network(network: str, *, quick: bool) -> dict[str, list[Row]]:
    """The rows by side of the comparison."""
    log(network)
    epochs, examples = EPOCHS.get(network, FEW_EPOCHS), EXAMPLES.get(network, FEW_EXAMPLES)
    sides = peers(network, *((5, max(1, epochs // 8)) if quick else (9, max(1, epochs // 2))))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "digits.npz")
        write_digits(data, examples, coloured=network != "article")
        together = [peer for side in sides.values() for peer in side]
        rows = measure(together, data, examples=examples, warm_up=1)
    return {name: [rows[peer] for peer in side] for name, side in sides.items()}


def cells(network: str, sides: dict[str, list[Row]]) -> list[str]:
    """A line of the table: medians of the rates, and ratios by round with the lowest and the highest."""
    (ours,), torch, (vmap,) = (sides[name] for name in ("l2jax", "PyTorch", "JAX"))
    measured = [row for row in torch if row.rates]
    best = max(measured, key=lambda row: statistics.median(row.rates), default=None)

    def rate(row: Row | None) -> str:
        return f"{statistics.median(row.rates):,.0f}" if row and row.rates else "not measured"

    def ratio(others: list[Row]) -> str:
        values = ratios(ours, others)
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""

    memory = [f"{(row.peak_memory or 0) / 1e6:,.0f}" if row else "" for row in (ours, best)]
    fastest = f"{rate(best)} ({best.name.removeprefix('PyTorch, ')})" if best else "not measured"
    return [
        network,
        rate(ours),
        fastest,
        ratio(torch),
        rate(vmap),
        ratio([vmap]),
        f"{ours.compile_seconds or 0:.1f}",
        *memory,
    ]


def main() -> int:
    """Returns an exit code: 1 if a peer failed."""
    parser = argparse.ArgumentParser(description="Measures the training rate of networks in plain Flax.")
    parser.add_argument(
        "networks", nargs="*", choices=[*NAMES, []], default=[], metavar="NETWORK", help=", ".join(NAMES)
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: less exact")
    parser.add_argument(
        "--output", type=Path, default=Path("runs", "networks"), metavar="DIR", help="for networks.json"
    )
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    measured = {}
    for network in options.networks or NAMES:
        measured[network] = measure_network(network, quick=options.quick)
    record = {
        name: {side: [vars(row) for row in rows] for side, rows in sides.items()} for name, sides in measured.items()
    }
    Path(options.output, "networks.json").write_text(json.dumps(machine() | {"networks": record}, indent=1))
    print(
        "Trial-examples/s of training alone, batches of 32, float32, Adam; ratios by round: median, lowest, highest.\n"
    )
    print("\n".join(table(HEADS, [cells(name, sides) for name, sides in measured.items()])))
    failed = [row for sides in measured.values() for rows in sides.values() for row in rows if row.failed]
    for row in failed:
        print(f"\n{row.name} failed: {row.failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
