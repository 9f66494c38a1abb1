"""Keras 3 on TensorFlow: one model per trial, one `model.fit` after the other."""

from __future__ import annotations

from typing import Any

from keras_cnn import cnn
from peer import read_job, serve


def main() -> None:
    job = read_job()
    images, labels = job.load()
    images = images.astype("float32") / 255
    models = [cnn(l2, job.learning_rate) for l2 in job.l2]

    def train(epochs: int) -> None:
        for model in models:
            model.fit(images, labels, batch_size=job.batch_size, epochs=epochs, verbose=0)

    def losses() -> dict[str, Any]:
        measured = [model.evaluate(images, labels, batch_size=256, verbose=0, return_dict=True) for model in models]
        return {"losses": [metrics["sparse_categorical_crossentropy"] for metrics in measured]}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
