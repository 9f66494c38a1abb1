"""The CNN in Keras, on TensorFlow, with a penalty."""

from __future__ import annotations

import os

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
from keras.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D


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
        # The loss alone would not do: Keras counts the penalty in it.
        metrics=["sparse_categorical_crossentropy"],
    )
    return model
