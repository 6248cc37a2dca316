"""Images to run one-image networks on, what such a network costs, and its tensors for a second writing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cd_pipeline_tests.models.measuring import photos


def images(height: int, width: int, count: int = 2, seed: int = 1) -> Tensor:
    """Draw a batch of noise: count x 3 x height x width in [0, 1]."""
    return photos(height, width, count, seed)[0]


def conv(inputs: int, outputs: int, *, bias: bool = False) -> int:
    """Weights of a 3x3 convolution, scale and shift of its norm."""
    return 9 * inputs * outputs + (3 if bias else 2) * outputs


def without_storage(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network of which only shapes exist."""
    with torch.device("meta"):
        return build()


def multiply_adds(net: nn.Module, size: int) -> int:
    """Count those of the convolutions for an image, with a network of `without_storage`."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


def settled(net: nn.Module, batches: int = 4) -> nn.Module:
    """Give the network batch statistics that are not the initial ones, and evaluation mode."""
    net.train()
    with torch.no_grad():
        for seed in range(batches):
            net(images(48, 48, 4, seed))
    return net.eval()


def without_gradient(net: nn.Module) -> list[str]:
    """Name the parameters that a training step on noise would leave as they are."""
    outputs = net.train()(images(48, 48, 3))
    heads = outputs if isinstance(outputs, list) else [outputs]
    torch.stack([head.square().mean() for head in heads]).mean().backward()
    return [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def batch_norms(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


class Tensors:
    """The tensors of a network one after the other, in evaluation."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.left = list(state.values())

    def take(self) -> Tensor:
        return self.left.pop(0)

    def conv(self, x: Tensor, *, bias: bool) -> Tensor:
        weight = self.take()
        return F.conv2d(x, weight, self.take() if bias else None, padding=weight.shape[-1] // 2)

    def norm(self, x: Tensor) -> Tensor:
        scale, shift, mean, variance, _ = (self.take() for _ in range(5))
        return F.batch_norm(x, mean, variance, scale, shift)

    def conv_norm_relu(self, x: Tensor, *, bias: bool = False) -> Tensor:
        return F.relu(self.norm(self.conv(x, bias=bias)))

    def deconv(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.take(), self.take(), stride=2)
