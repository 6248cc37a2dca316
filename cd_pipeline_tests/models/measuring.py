"""Photos to run networks on, and what a network costs."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def photos(height: int, width: int, count: int = 2, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Draw a batch of pairs of noise: twice count x 3 x height x width in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.rand((2, count, 3, height, width), generator=generator)
    return first, second


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def multiply_adds(net: nn.Module, size: int = 256, pictures: int = 2) -> int:
    """Count those of convolutions and matrix products for a sample; the network is left in evaluation mode."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(*photos(size, size, 1)[:pictures])
    return counter.get_total_flops() // 2


def settled(net: nn.Module, batches: int = 12, pictures: int = 2) -> nn.Module:
    """Give the network batch statistics that are not the initial ones, and evaluation mode."""
    net.train()
    with torch.no_grad():
        for seed in range(batches):
            net(*photos(64, 64, 4, seed)[:pictures])
    return net.eval()


def without_gradient(net: nn.Module) -> list[str]:
    """Name the parameters that a training step on noise would leave as they are."""
    net.train()(*photos(64, 64, 4)).square().mean().backward()
    return [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
