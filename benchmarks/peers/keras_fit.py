"""Keras 3 on TensorFlow: a model a trial, one `model.fit` after the other."""

from __future__ import annotations

import os
from typing import Any

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
from keras.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D
from peer import given_job, serve


def cnn(l2: float, learning_rate: float) -> keras.Model:
    # Keras leaves out the half: its l2(c) adds c * sum(kernel**2).
    penalty = keras.regularizers.l2(l2 / 2)
    model = keras.Sequential(
        [
            Input((28, 28, 1)),
            Conv2D(32, (3, 3), activation="relu", kernel_regularizer=penalty),
            MaxPooling2D((2, 2)),
            Conv2D(64, (3, 3), activation="relu", kernel_regularizer=penalty),
            MaxPooling2D((2, 2)),
            Flatten(),
            Dense(10, activation="softmax", kernel_regularizer=penalty),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        # Beside the loss, in which Keras counts the penalty.
        metrics=["sparse_categorical_crossentropy"],
    )
    return model


def main() -> None:
    job = given_job()
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
