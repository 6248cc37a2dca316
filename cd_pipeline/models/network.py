"""What all networks share."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn


class Network(nn.Module):
    """Pictures to logits: `network(before, after)` or `network(image)`.

    Pictures are Nx3xHxW float RGB in [0, 1]; the logits are NxCxHxW: with one class above 0 where the pixel is
    marked, with more the largest is the class. In training a network may give a list, the logits of several heads,
    of which the last is the answer.
    """

    @property
    def pretrained_name(self) -> str | None:
        """The timm network whose ImageNet weights the encoder takes; None: it takes none."""
        return None

    def load_encoder_weights(self, path: Path) -> None:
        """Load the weights file of timm's whole network `pretrained_name` into the encoder.

        Raises:
            ValueError: the encoder takes none.
        """
        raise ValueError(f"{path}: the encoder of {type(self).__name__} is not one of timm's")

    def load_published_state(self, state: Mapping[str, Tensor]) -> list[str]:
        """Load a state dict of this network, also as published where that has other keys.

        Returns:
            The keys that were dropped.

        Raises:
            RuntimeError: a key is missing or unexpected, or a shape differs.
        """
        self.load_state_dict(state)
        return []
