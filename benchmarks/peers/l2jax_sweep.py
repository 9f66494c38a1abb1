"""l2jax: all trials in one `Sweep`."""

from __future__ import annotations

from typing import Any

import jax
import l2jax
import numpy as np
from peer import given_job, serve

compile_seconds = 0.0


def add_compilation(event: str, seconds: float, **_: Any) -> None:
    global compile_seconds
    if event == "/jax/core/compile/backend_compile_duration":
        compile_seconds += seconds


def main() -> None:
    jax.monitoring.register_event_duration_secs_listener(add_compilation)
    job = given_job()
    images, labels = job.load()
    # A sweep holds at least one example out: one more than the others have.
    dataset = l2jax.Dataset("digits", np.append(images, images[:1], 0), np.append(labels, labels[:1]), num_classes=10)
    config = l2jax.SweepConfig(
        l2=tuple(job.strengths),
        seeds=job.seeds,
        epochs=1_000_000,  # as many as it is asked for
        batch_size=job.batch_size,
        learning_rate=job.learning_rate,
        train_size=len(images),
        val_size=1,
    )
    sweep = l2jax.Sweep(config, dataset)
    epochs = sweep.epochs()

    def train(num_epochs: int) -> dict[str, Any]:
        # A sweep also measures the trials after each epoch, and tells apart what was training.
        return {
            "seconds": sum(next(epochs).seconds for _ in range(num_epochs)),
            "compile_seconds": compile_seconds,
        }

    def losses() -> dict[str, Any]:
        return {"losses": sweep.history[-1].metrics["train_loss"].tolist()}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
