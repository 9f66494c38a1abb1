"""Networks in plain Flax, as people write them: images (B, H, W, C) to logits (B, 10)."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array


def conv(channels: int, features: int, size: int = 3, *, rngs: nnx.Rngs, **options: object) -> nnx.Conv:
    return nnx.Conv(channels, features, (size, size), rngs=rngs, **options)  # pyright: ignore[reportArgumentType]


def flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


class CNN(nnx.Module):
    """The small CNN of many tutorials, with the initial values that Keras takes, for images of 28x28x1."""

    def __init__(self, *, rngs: nnx.Rngs):
        glorot = nnx.initializers.glorot_uniform()
        self.conv1 = conv(1, 32, padding="VALID", kernel_init=glorot, rngs=rngs)
        self.conv2 = conv(32, 64, padding="VALID", kernel_init=glorot, rngs=rngs)
        self.dense = nnx.Linear(1600, 10, kernel_init=glorot, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        return self.dense(flat(x))


class Deeper(nnx.Module):
    """Three convolutions of 32, 64 and 128 filters."""

    def __init__(self, *, rngs: nnx.Rngs):
        glorot = nnx.initializers.glorot_uniform()
        sizes = ((3, 32), (32, 64), (64, 128))
        self.convs = nnx.List([conv(*size, kernel_init=glorot, rngs=rngs) for size in sizes])
        self.dense = nnx.Linear(2048, 10, kernel_init=glorot, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for convolve in self.convs:
            x = nnx.max_pool(nnx.relu(convolve(x)), (2, 2), strides=(2, 2))
        return self.dense(flat(x))


class LeNet(nnx.Module):
    """LeNet-5 (LeCun et al., 1998) with dense layers of 120, 84 and 10."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = conv(3, 6, 5, padding="VALID", rngs=rngs)
        self.conv2 = conv(6, 16, 5, padding="VALID", rngs=rngs)
        self.dense1, self.dense2 = nnx.Linear(400, 120, rngs=rngs), nnx.Linear(120, 84, rngs=rngs)
        self.dense3 = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.avg_pool(nnx.tanh(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.tanh(self.conv2(x)), (2, 2), strides=(2, 2))
        x = nnx.tanh(self.dense1(flat(x)))
        return self.dense3(nnx.tanh(self.dense2(x)))


class VGG(nnx.Module):
    """Two blocks of two convolutions (Simonyan and Zisserman, 2015), with batch norm and dropout or without."""

    def __init__(self, *, rngs: nnx.Rngs, regularised: bool = False):
        sizes = ((3, 32), (32, 32), (32, 64), (64, 64))
        self.convs = nnx.List([conv(*size, rngs=rngs) for size in sizes])
        self.norms = nnx.List(
            [nnx.BatchNorm(features, rngs=rngs) if regularised else identity for _, features in sizes]
        )
        self.dropout = nnx.Dropout(0.5 if regularised else 0.0, rngs=rngs)
        self.dense1, self.dense2 = nnx.Linear(4096, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for n, (convolve, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = nnx.relu(norm(convolve(x)))
            if n % 2:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.dense1(flat(x)))
        return self.dense2(self.dropout(x))


def identity(x: Array) -> Array:
    return x


class Block(nnx.Module):
    """A residual block (He et al., 2016); where it changes the size, its shortcut is a convolution 1x1."""

    def __init__(self, channels: int, features: int, stride: int, norm: Callable, *, rngs: nnx.Rngs):
        self.conv1 = conv(channels, features, strides=stride, rngs=rngs)
        self.conv2 = conv(features, features, rngs=rngs)
        self.norm1, self.norm2 = norm(features), norm(features)
        self.shortcut = conv(channels, features, 1, strides=stride, rngs=rngs) if stride > 1 else identity

    def __call__(self, x: Array) -> Array:
        out = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(out + self.shortcut(x))


class ResNet(nnx.Module):
    """A residual network of 16, 32 and 64 filters, with batch norm (ResNet-8) or without."""

    def __init__(self, *, rngs: nnx.Rngs, normalised: bool = False):
        def norm(features: int) -> Callable:
            return nnx.BatchNorm(features, rngs=rngs) if normalised else identity

        self.stem, self.norm = conv(3, 16, rngs=rngs), norm(16)
        sizes = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.blocks = nnx.List([Block(*size, norm, rngs=rngs) for size in sizes])
        self.dense = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((1, 2)))


class Separable(nnx.Module):
    """Depthwise separable convolutions (Howard et al., 2017): 32, then 64, 128 and 128 filters."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.stem = conv(3, 32, strides=2, rngs=rngs)
        sizes = ((32, 64, 1), (64, 128, 2), (128, 128, 1))
        self.depthwise = nnx.List([conv(c, c, strides=s, feature_group_count=c, rngs=rngs) for c, _, s in sizes])
        self.pointwise = nnx.List([conv(c, features, 1, rngs=rngs) for c, features, _ in sizes])
        self.dense = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu(self.stem(x))
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = nnx.relu(pointwise(nnx.relu(depthwise(x))))
        return self.dense(x.mean((1, 2)))


class MLP(nnx.Module):
    """Two hidden layers of 512."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.dense1, self.dense2 = nnx.Linear(3072, 512, rngs=rngs), nnx.Linear(512, 512, rngs=rngs)
        self.dense3 = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.dense3(nnx.relu(self.dense2(nnx.relu(self.dense1(flat(x))))))


class Encoder(nnx.Module):
    """A layer of a transformer's encoder, with the norms first."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.dense1, self.dense2 = nnx.Linear(width, 2 * width, rngs=rngs), nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.norm1(x))
        return x + self.dense2(nnx.gelu(self.dense1(self.norm2(x))))


class ViT(nnx.Module):
    """A small vision transformer (Dosovitskiy et al., 2021): patches of 4x4, width 64, 4 heads, 3 layers."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.embed = conv(3, 64, 4, strides=4, padding="VALID", rngs=rngs)
        self.positions = nnx.Param(0.02 * rngs.normal((1, 64, 64)))
        self.layers = nnx.List([Encoder(64, 4, rngs=rngs) for _ in range(3)])
        self.norm, self.dense = nnx.LayerNorm(64, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.embed(x)
        x = x.reshape(len(x), -1, x.shape[-1]) + self.positions[...]
        for layer in self.layers:
            x = layer(x)
        return self.dense(jnp.mean(self.norm(x), axis=1))


NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    "": CNN,
    "article": CNN,
    "deeper": Deeper,
    "lenet": LeNet,
    "vgg": VGG,
    "vgg-regularised": lambda *, rngs: VGG(regularised=True, rngs=rngs),
    "resnet": ResNet,
    "resnet-normalised": lambda *, rngs: ResNet(normalised=True, rngs=rngs),
    "separable": Separable,
    "mlp": MLP,
    "vit": ViT,
}
