"""l2jax: all trials in one `Sweep`, of the built-in network or of one in plain Flax.

On a GPU, variants are precisions: "tf32", "float32", "bfloat16".
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax_networks import NETWORKS
from peer import read_job, serve

import l2jax

sys.path.append(str(Path(__file__).parents[1]))
from hlo import loops


def main() -> None:
    job = read_job()
    if job.variant == "float32":
        jax.config.update("jax_default_matmul_precision", "highest")
    images, labels = job.load()
    # A sweep holds out at least one example: here one more than the other peers have.
    dataset = l2jax.Dataset("digits", np.append(images, images[:1], 0), np.append(labels, labels[:1]), num_classes=10)
    config = l2jax.SweepConfig(
        l2=tuple(job.strengths),
        seeds=job.seeds,
        epochs=1000,  # more than any plan trains
        batch_size=job.batch_size,
        learning_rate=job.learning_rate,
        train_size=len(images),
        val_size=1,
        trials_at_once=len(job.l2),
        bfloat16=job.variant == "bfloat16",
    )
    sweep = l2jax.Sweep(config, dataset, model=NETWORKS[job.network] if job.network else None)
    epochs = sweep.epochs()
    last_losses = []

    def train(num_epochs: int) -> dict[str, Any]:
        # A sweep also evaluates its trials after each epoch; `seconds` holds training alone.
        before = sweep.seconds["training"]
        for _ in range(num_epochs):
            last_losses[:] = next(epochs).metrics["train_loss"].tolist()
        return {
            "seconds": sweep.seconds["training"] - before,
            "compile_seconds": sweep.seconds["compiling"],
            "step_bytes": step_bytes(),
        }

    @functools.cache
    def step_bytes() -> int:
        """What a step writes, and reads at most, on a GPU, where all trials take it at once; 0 elsewhere."""
        if jax.devices()[0].platform != "gpu":
            return 0
        step, *_ = loops(sweep.compile().fit.programs.train_epoch.as_text())
        return step.written + step.read

    def losses() -> dict[str, Any]:
        return {"losses": last_losses}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
