"""The networks that are measured, by name; ``keras`` is what the caller imported. Imports nothing of memest, nor of keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CLASSES = 1000
Shape = tuple[int, ...]


def unet(shape: Shape, filters: int, depth: int, keras: Any) -> Any:
    """Two convolutions a level, transposed convolutions up, a sigmoid."""
    layers, dims = keras.layers, len(shape) - 2
    convolution, pool = getattr(layers, f"Conv{dims}D"), getattr(layers, f"MaxPooling{dims}D")
    up = getattr(layers, f"Conv{dims}DTranspose")

    def block(x: Any, width: int) -> Any:
        for _ in range(2):
            x = layers.ReLU()(layers.BatchNormalization()(convolution(width, 3, padding="same")(x)))
        return x

    start = x = layers.Input(shape[1:])
    skips = []
    for level in range(depth):
        x = block(x, filters * 2**level)
        skips.append(x)
        x = pool(2)(x)
    x = block(x, filters * 2**depth)
    for level in reversed(range(depth)):
        x = up(filters * 2**level, 2, strides=2)(x)
        x = block(layers.Concatenate()([x, skips[level]]), filters * 2**level)
    return keras.Model(start, convolution(1, 1, activation="sigmoid")(x))


def small(shape: Shape, keras: Any) -> Any:
    """A convolution, a norm, a pool and a dense layer."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(start))))
    return keras.Model(start, layers.Dense(10)(layers.Flatten()(x)))


def bilinear_unet(shape: Shape, keras: Any) -> Any:
    """One level, dropout, bilinear upsampling."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    skip = layers.Conv2D(8, 3, padding="same", activation="relu")(start)
    skip = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Dropout(0.1)(skip))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(skip))
    x = layers.Conv2D(8, 2, padding="same", activation="relu")(layers.UpSampling2D(interpolation="bilinear")(x))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.concatenate([skip, x], axis=3))
    return keras.Model(start, layers.Conv2D(1, 1, activation="sigmoid")(x))


def nearest_unet(shape: Shape, keras: Any) -> Any:
    """Volumes: LeakyReLU, dropout of channels, PReLU, upsampling to the nearest, a softmax."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    skip = layers.LeakyReLU()(layers.BatchNormalization()(layers.Conv3D(8, 3, padding="same")(start)))
    skip = layers.SpatialDropout3D(0.2)(skip)
    x = layers.Conv3D(16, 3, padding="same")(layers.MaxPooling3D()(skip))
    x = layers.UpSampling3D()(layers.PReLU(shared_axes=[1, 2, 3])(x))
    x = layers.Conv3D(8, 3, padding="same", activation="relu")(layers.concatenate([skip, x]))
    return keras.Model(start, layers.Conv3D(3, 1, activation="softmax")(x))


def vnet(shape: Shape, keras: Any) -> Any:
    """Kernels of five, residuals, PReLU, convolutions with strides down and transposed up."""
    layers = keras.layers

    def block(x: Any, width: int, times: int) -> Any:
        y = x
        for _ in range(times):
            y = layers.BatchNormalization()(layers.Conv3D(width, 5, padding="same")(y))
            y = layers.PReLU(shared_axes=[1, 2, 3])(y)
        return layers.Add()([x if x.shape[-1] == width else layers.Conv3D(width, 1)(x), y])

    start = layers.Input(shape[1:])
    skip = block(start, 8, 1)
    x = block(layers.Conv3D(16, 2, strides=2)(skip), 16, 2)
    x = layers.Conv3DTranspose(8, 2, strides=2, padding="same")(x)
    x = block(layers.concatenate([skip, x]), 16, 1)
    return keras.Model(start, layers.Conv3D(1, 1, activation="sigmoid")(x))


def attention_unet(shape: Shape, keras: Any) -> Any:
    """A gate over the skip."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    skip = layers.Conv2D(16, 3, padding="same", activation="relu")(start)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(layers.MaxPooling2D()(skip))
    x = layers.Conv2DTranspose(16, 2, strides=2, padding="same")(x)
    gate = layers.Activation("relu")(layers.add([layers.Conv2D(8, 1)(skip), layers.Conv2D(8, 1)(x)]))
    kept = layers.multiply([skip, layers.Conv2D(1, 1, activation="sigmoid")(gate)])
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.concatenate([x, kept]))
    return keras.Model(start, layers.Conv2D(1, 1, activation="sigmoid")(x))


def cropped_unet(shape: Shape, keras: Any) -> Any:
    """Without pads: the skip is cropped."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    skip = layers.Conv2D(8, 3, activation="relu")(start)
    x = layers.Conv2D(16, 3, activation="relu")(layers.MaxPooling2D()(skip))
    x = layers.Conv2DTranspose(8, 2, strides=2)(x)
    x = layers.ZeroPadding2D(1)(layers.Concatenate()([layers.Cropping2D(2)(skip), x]))
    return keras.Model(start, layers.Conv2D(1, 1, activation="sigmoid")(layers.Conv2D(8, 3, activation="relu")(x)))


def group_norms(shape: Shape, keras: Any) -> Any:
    """Residuals with group norm and swish."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    x = layers.Conv2D(16, 3, padding="same")(start)
    for _ in range(2):
        y = layers.Conv2D(16, 3, padding="same")(layers.Activation("swish")(layers.GroupNormalization(groups=4)(x)))
        x = layers.Add()([x, y])
    return keras.Model(start, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def layer_norms(shape: Shape, keras: Any) -> Any:
    """Residuals of volumes with layer norm."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    x = layers.Conv3D(8, 3, padding="same")(start)
    for _ in range(2):
        y = layers.Conv3D(8, 3, padding="same")(layers.ReLU()(layers.LayerNormalization()(x)))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(start, layers.Dense(10)(layers.GlobalAveragePooling3D()(x)))


def separable(shape: Shape, keras: Any) -> Any:
    """Separable convolutions, ELU, the most of each channel."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    x = layers.SpatialDropout2D(0.2)(layers.SeparableConv2D(16, 3, padding="same", activation="relu")(start))
    x = layers.ELU()(layers.SeparableConv2D(32, 3, strides=2, padding="same")(x))
    return keras.Model(start, layers.Dense(10)(layers.GlobalMaxPooling2D()(x)))


def lines(shape: Shape, keras: Any) -> Any:
    """One dim, the second convolution causal."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    x = layers.MaxPooling1D()(layers.Conv1D(16, 5, padding="same", activation="relu")(start))
    x = layers.Conv1D(32, 5, padding="causal", activation="relu")(x)
    return keras.Model(start, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def dilated(shape: Shape, keras: Any) -> Any:
    """Three rates and the mean side by side, as DeepLab has them."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(start)
    found = [layers.Conv2D(8, 3, padding="same", dilation_rate=rate, activation="relu")(x) for rate in (1, 2, 4)]
    mean = layers.Conv2D(8, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Concatenate()([*found, layers.UpSampling2D(x.shape[1])(mean)])
    x = layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(5, 1)(x))
    return keras.Model(start, layers.Softmax()(x))


def squeezed(shape: Shape, keras: Any) -> Any:
    """Squeeze and excitation with hard sigmoid and hard swish."""
    layers = keras.layers
    start = layers.Input(shape[1:])
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(start)))
    gate = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Conv2D(16, 1, activation="hard_sigmoid")(gate)])
    x = layers.Activation("hard_swish")(layers.AveragePooling2D(2)(x))
    return keras.Model(start, layers.Dense(10, activation="softmax")(layers.Flatten()(x)))


NETWORKS: dict[str, Callable[[Shape, Any], Any]] = {
    "small": small,
    "bilinear-unet": bilinear_unet,
    "nearest-unet": nearest_unet,
    "vnet": vnet,
    "attention-unet": attention_unet,
    "cropped-unet": cropped_unet,
    "group-norms": group_norms,
    "layer-norms": layer_norms,
    "separable": separable,
    "lines": lines,
    "dilated": dilated,
    "squeezed": squeezed,
}
SEGMENTING = ("bilinear-unet", "vnet", "attention-unet", "cropped-unet")


def is_binary(network: str) -> bool:
    """Whether it ends in a sigmoid for each place."""
    return network.startswith("unet-") or network in SEGMENTING


def model_of(network: str, shape: Shape, keras: Any) -> Any:
    """A network by name: ``unet-16x4`` (filters, depth), one of those here, or one of keras.applications."""
    if network.startswith("unet-"):
        filters, depth = map(int, network.removeprefix("unet-").split("x"))
        return unet(shape, filters, depth, keras)
    if network in NETWORKS:
        return NETWORKS[network](shape, keras)
    made = getattr(keras.applications, network)
    return made(weights=None, input_shape=shape[1:], classes=CLASSES, classifier_activation=None)
