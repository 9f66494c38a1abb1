"""Keras 3 on TensorFlow: a model a strength, one `model.fit` after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
from keras.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D
from peer import Job, serve


def cnn(l2: float, learning_rate: float) -> keras.Model:
    # Keras leaves out the half: its l2(c) adds c * ||kernel||^2.
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
        metrics=["sparse_categorical_crossentropy"],  # without the penalty, which Keras counts in the loss
    )
    return model


def prepare(job: Job) -> Callable[[], dict[str, Any]]:
    images, labels = job.images.astype("float32") / 255, job.labels
    models = [cnn(l2, job.learning_rate) for l2 in job.l2]

    def train() -> dict[str, Any]:
        fits = [model.fit(images, labels, job.batch_size, job.epochs, verbose=0) for model in models]
        return {"losses": [fit.history["sparse_categorical_crossentropy"][-1] for fit in fits]}

    return train


if __name__ == "__main__":
    serve(prepare)
