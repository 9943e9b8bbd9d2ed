"""The networks of `tools.benchmark step` in PyTorch, as a user would write them.

Random weights, without import or checkpoints. Convention: images are uint8
`[B, 3, H, W]` in memory order channels last.
"""

import math

import torch
from torch import nn
from torch.nn import functional


class ConvNet(nn.Module):
    """Stages of convolution, max-pooling, BatchNorm and ReLU, flattened."""

    def __init__(self, size: int, widths: tuple[int, ...] = (32, 64, 128, 256)):
        """Creates the trunk; `size` is that of the images."""
        super().__init__()
        layers, before = [], 3
        for after in widths:
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.MaxPool2d(2, ceil_mode=True),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            before, size = after, math.ceil(size / 2)
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.num_features = before * size**2

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps `[B, 3, H, W]` to `[B, num_features]`."""
        return self.layers(pixels)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int):
        """Creates the block; the 3x3 convolution has the stride."""
        super().__init__()
        after = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Sequential()
        if before != after or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[B, C, H, W]` to `[B, 4 * width, H / stride, W / stride]`."""
        return functional.relu(self.shortcut(x) + self.body(x))


class ResNet50(nn.Module):
    """A 7x7 convolution, sixteen bottlenecks, the mean over the picture."""

    def __init__(self):
        """Creates the trunk."""
        super().__init__()
        layers = [
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        ]
        before = 64
        for num, width, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
            for i in range(num):
                layers.append(Bottleneck(before, width, stride if i == 0 else 1))
                before = 4 * width
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = before

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps `[B, 3, H, W]` to `[B, num_features]`."""
        return self.layers(pixels)


class Lite0(nn.Module):
    """EfficientNet-Lite0 of the package that published it for PyTorch."""

    num_features = 1280

    def __init__(self, size: int):
        """Creates the trunk; `size` is that of the images."""
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.net = EfficientNet.from_name("efficientnet-lite0", image_size=size)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps `[B, 3, H, W]` to `[B, num_features]`."""
        return self.net.extract_features(pixels).mean((2, 3))


class Path(nn.Module):
    """Subsample, one strided convolution with SAME padding, max-pool, flatten."""

    def __init__(
        self, size: int, subsample: int, kernel: int, stride: int, width: int,
        pool: int, pool_stride: int,
    ):  # fmt: skip
        """Creates the path; see `LowResolutionPath`."""
        super().__init__()
        self.size = -(-size // subsample)
        self.conv = nn.Conv2d(3, width, kernel, stride)
        self.pool = nn.MaxPool2d(pool, pool_stride)
        convolved = -(-self.size // stride)
        self.pads = (self._same(self.size, kernel, stride),
                     self._same(convolved, pool, pool_stride))  # fmt: skip
        self.num_features = width * (-(-convolved // pool_stride)) ** 2

    @staticmethod
    def _same(size: int, window: int, stride: int) -> tuple[int, int, int, int]:
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        return (total // 2, total - total // 2) * 2

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps `[B, 3, H, W]` to `[B, num_features]`."""
        x = functional.interpolate(
            pixels, (self.size, self.size), mode="bilinear", antialias=True
        )
        x = functional.relu(self.conv(functional.pad(x, self.pads[0])))
        # After ReLU no value is below the padding's 0.
        return self.pool(functional.pad(x, self.pads[1])).flatten(1)


class MultiScale(nn.Module):
    """Trunk and paths, each normalised, one linear map, normalised."""

    def __init__(
        self, trunk: nn.Module, size: int, embedding_dim: int, paths: list[dict]
    ):
        """Creates the network around a trunk."""
        super().__init__()
        self.trunk = trunk
        self.paths = nn.ModuleList([Path(size, **path) for path in paths])
        width = trunk.num_features + sum(path.num_features for path in self.paths)
        self.embedding = nn.Linear(width, embedding_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps uint8 `[B, 3, H, W]` to unit vectors `[B, embedding_dim]`."""
        pixels = (images.float() - 127.5) / 127.5
        joined = [functional.normalize(self.trunk(pixels))]
        if self.paths:
            shallow = torch.cat([path(pixels) for path in self.paths], 1)
            joined.append(functional.normalize(shallow))
        return functional.normalize(self.embedding(torch.cat(joined, 1)))


def create(trunk: str, size: int, embedding_dim: int, paths: list[dict]) -> MultiScale:
    """Creates the network of a benchmark's case."""
    trunks = {
        "convnet": lambda: ConvNet(size),
        "resnet50": ResNet50,
        "efficientnet_lite0": lambda: Lite0(size),
    }
    return MultiScale(trunks[trunk](), size, embedding_dim, paths)
