"""The networks of `flax_networks.py` in PyTorch: images (B, 3, H, W) to logits (B, 10)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def cnn() -> nn.Module:
    blocks = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(1600, 10))
    for param in model.parameters():
        if param.ndim > 1:
            nn.init.xavier_uniform_(param)
        else:
            nn.init.zeros_(param)
    return model


def lenet() -> nn.Module:
    blocks = [nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)]
    dense = [nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)]
    return nn.Sequential(*blocks, nn.Flatten(), *dense)


def vgg(regularised: bool = False) -> nn.Module:
    layers: list[nn.Module] = []
    for n, (channels, features) in enumerate(((3, 32), (32, 32), (32, 64), (64, 64))):
        layers += [nn.Conv2d(channels, features, 3, padding=1)]
        layers += [nn.BatchNorm2d(features)] * regularised
        layers += [nn.ReLU()] + [nn.MaxPool2d(2)] * (n % 2)
    dense = [nn.Linear(4096, 128), nn.ReLU(), *[nn.Dropout(0.5)] * regularised, nn.Linear(128, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


class Block(nn.Module):
    def __init__(self, channels: int, features: int, stride: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.norm1, self.norm2 = norm(features), norm(features)
        self.shortcut = nn.Conv2d(channels, features, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x))


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def resnet(normalised: bool = False) -> nn.Module:
    def norm(features: int) -> nn.Module:
        return nn.BatchNorm2d(features) if normalised else nn.Identity()

    blocks = [Block(*size, norm) for size in ((16, 16, 1), (16, 32, 2), (32, 64, 2))]
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), norm(16), nn.ReLU(), *blocks, Mean(), nn.Linear(64, 10))


def separable() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, padding=1), nn.ReLU()]
    for channels, features, stride in ((32, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels), nn.ReLU()]
        layers += [nn.Conv2d(channels, features, 1), nn.ReLU()]
    return nn.Sequential(*layers, Mean(), nn.Linear(128, 10))


def mlp() -> nn.Module:
    hidden = [nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 64, 4, 4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 64, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm, self.dense = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        return self.dense(self.norm(self.layers(x)).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "": cnn,
    "article": cnn,
    "lenet": lenet,
    "vgg": vgg,
    "vgg-regularised": lambda: vgg(regularised=True),
    "resnet": resnet,
    "resnet-normalised": lambda: resnet(normalised=True),
    "separable": separable,
    "mlp": mlp,
    "vit": ViT,
}
