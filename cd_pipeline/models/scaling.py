"""How pictures are scaled before a network sees them, as its first layer.

Training, prediction and the exported package share it because it is part of what they run.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cd_pipeline.data.settings import InputSettings
from cd_pipeline.models.network import Network

RANGE_EPS = 1e-4
"""Keeps a picture of one value at 0. A fortieth of a step of 8 bits, and not yet subnormal in float16."""


class MinMax(nn.Module):
    """Each picture's own range, over all channels and pixels, becomes [0, 1]."""

    def forward(self, picture: Tensor) -> Tensor:
        """Map Nx3xHxW to the same shape."""
        low, high = picture.amin(dim=(1, 2, 3), keepdim=True), picture.amax(dim=(1, 2, 3), keepdim=True)
        return (picture - low) / (high - low + RANGE_EPS)


class MeanStd(nn.Module):
    """(picture - mean) / std, each a value a channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            # the settings hold them: weights stay those of the network alone
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """Map Nx3xHxW to the same shape."""
        return (picture - self.mean) / self.std


class ScaledNetwork(Network):
    """A network behind the scaling of its pictures."""

    def __init__(self, scaling: nn.Module, network: Network) -> None:
        super().__init__()
        self.scaling = scaling
        self.network = network

    @property
    def pretrained_name(self) -> str | None:
        """That of the network."""
        return self.network.pretrained_name

    def load_encoder_weights(self, path: Path) -> None:
        """Load them into the network."""
        self.network.load_encoder_weights(path)

    def load_published_state(self, state: Mapping[str, Tensor]) -> list[str]:
        """Load a state dict of the network without its scaling, or of this one."""
        own = {name.removeprefix("network."): value for name, value in state.items()}
        return self.network.load_published_state(own)

    def forward(self, *pictures: Tensor) -> Tensor | list[Tensor]:
        """Map pictures Nx3xHxW in [0, 1] to the network's logits."""
        logits: Tensor | list[Tensor] = self.network(*(self.scaling(picture) for picture in pictures))
        return logits


def with_scaling(network: Network, settings: InputSettings) -> Network:
    """Put the scaling of a recipe before a network; pictures in [0, 1] need none."""
    match settings.scaling:
        case "unit":
            return network
        case "min_max":
            return ScaledNetwork(MinMax(), network)
        case "mean_std":
            return ScaledNetwork(MeanStd(settings.mean, settings.std), network)
