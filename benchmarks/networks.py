"""The PyTorch networks that are measured. Nothing of layertap is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


class Basic(nn.Module):
    """The residual block of ResNet-18 (He et al. 2015), with in-place ReLU and addition."""

    def __init__(self, wide_in: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.downsample: nn.Module | None = None
        if stride != 1 or wide_in != wide:
            conv = nn.Conv2d(wide_in, wide, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(wide))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        result: torch.Tensor = self.relu(out)
        return result


def resnet18() -> nn.Sequential:
    """ResNet-18 for 1000 classes."""
    stem = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    stages = [
        nn.Sequential(Basic(wide_in, wide, stride), Basic(wide, wide, 1))
        for wide_in, wide, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*stem, *stages, *head)


def mlp() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(256, 256) for _ in range(48)))


def transformer() -> nn.TransformerEncoder:
    """Twelve encoder layers whose modules are all called: sequence first, so that PyTorch's fused
    kernel does not replace them."""
    layer = nn.TransformerEncoderLayer(256, 8, 1024)
    return nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)


@dataclass(frozen=True)
class Network:
    """A network and the shape of a batch, whose samples are enumerated on ``axis``."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    axis: int = 0

    def prepared(self) -> tuple[nn.Module, torch.Tensor]:
        """The network in evaluation mode, and a batch; always the same ones."""
        torch.manual_seed(0)
        return self.make().eval(), torch.randn(self.shape)


MLP = Network("MLP 48x256, batch 32", mlp, (32, 256))
TRANSFORMER = Network("transformer 12x256, sequence 128", transformer, (128, 1, 256), axis=1)
RESNET_1 = Network("ResNet-18 64x64, batch 1", resnet18, (1, 3, 64, 64))
RESNET_32 = Network("ResNet-18 64x64, batch 32", resnet18, (32, 3, 64, 64))
NETWORKS = (MLP, TRANSFORMER, RESNET_1, RESNET_32)
