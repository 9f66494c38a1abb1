"""What is known of the trials of a chunk, as one file: so a worker says how far it is, and what the metrics are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from l2jax.engine.ledger import AFTER_EPOCHS, Ledger
from l2jax.network.network import by_path
from l2jax.trial.train import Trial

NAME = "ledger.npz"


def ledger_file(trials: Trial, ledger: Ledger) -> bytes:
    """The content of the file, for n trials."""
    num_epochs = int(ledger.epochs_done.max())
    metrics = {
        f"metrics/{name}": values[:, :num_epochs] if name in AFTER_EPOCHS else values
        for name, values in ledger.metrics.items()
    }
    arrays = {f"trials/{path}": values for path, values in by_path(trials).items()} | metrics
    arrays |= {"num_epochs": np.array(ledger.num_epochs), "num_examples": ledger.num_examples}
    arrays |= {"epochs_done": ledger.epochs_done, "tested": ledger.tested}
    arrays |= {"seconds": ledger.seconds[:, :num_epochs], "chunks": ledger.chunks[:, :num_epochs]}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def read_ledger_file(content: bytes) -> tuple[Trial, Ledger]:
    """The trials and what is known of them.

    Raises:
      Exception: of any type for a damaged file.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}

    def within(folder: str) -> dict[str, Any]:
        return {name.removeprefix(folder): values for name, values in arrays.items() if name.startswith(folder)}

    trials = Trial(within("trials/hyperparameters/"), arrays["trials/seed"], arrays["trials/split_index"])
    ledger = Ledger(
        num_epochs=int(arrays["num_epochs"]),
        epochs_done=arrays["epochs_done"],
        metrics=within("metrics/"),
        tested=arrays["tested"],
        seconds=arrays["seconds"],
        chunks=arrays["chunks"],
        num_examples=arrays["num_examples"],
    )
    return trials, ledger
