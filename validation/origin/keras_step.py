"""Three steps, or calls, of the 3-D U-Net in Keras on TensorFlow, in this process: ``python -m validation.origin.keras_step MODE SIDE
BATCH``; ``TF_ENABLE_ONEDNN_OPTS`` says whether oneDNN computes."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow

from validation.origin.resident import print_steps


def double_conv(x: Any, width: int) -> Any:
    """(Conv3D, BatchNormalization, ReLU) twice."""
    for _ in range(2):
        x = keras.layers.Conv3D(width, 3, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    return x


def network(side: int, base: int = 16, levels: int = 5) -> Any:
    """The network of IntelAI/unet, channels last."""
    start = x = keras.Input((side, side, side, 1))
    skips = []
    for level in range(levels):
        x = double_conv(x, base * 2**level)
        if level < levels - 1:
            skips.append(x)
            x = keras.layers.MaxPooling3D(2)(x)
    for level in reversed(range(levels - 1)):
        x = keras.layers.Conv3DTranspose(base * 2**level, 2, strides=2)(x)
        x = keras.layers.Concatenate()([skips[level], x])
        x = double_conv(x, base * 2**level)
    return keras.Model(start, keras.layers.Conv3D(1, 1, activation="sigmoid")(x))


def main(mode: str, side: int, batch: int) -> None:
    """Print what the process held."""
    keras.utils.set_random_seed(0)
    model = network(side)
    model.compile(optimizer="adam", loss="binary_crossentropy")
    random = np.random.default_rng(0)
    x = random.random((batch, side, side, side, 1), dtype=np.float32)
    y = (random.random((batch, side, side, side, 1)) > 0.5).astype(np.float32)
    step = (lambda: model.train_on_batch(x, y)) if mode == "train" else (lambda: model.predict_on_batch(x))
    print_steps(step, f"TensorFlow {tensorflow.__version__}, Keras {keras.__version__}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
