import math

import pytest
import torch
from torch import Tensor, nn

from cd_pipeline.models.build import build_model
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.training.loop import train
from cd_pipeline.training.losses import ChangeLoss
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.tiny_pairs import TinyPairs

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def hard_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Four pairs: both black, white against black, unchanged, and noise with a part that does not count."""
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.rand(4, 3, 64, 64, generator=generator) for _ in range(2))
    before[0], after[0], before[1], after[1], after[2] = 0, 0, 1, 0, before[2]
    truth = (torch.rand(4, 1, 64, 64, generator=generator) > 0.9).float()
    truth[2] = 0
    return before, after, truth


def step_of(precision: str) -> tuple[float, list[Tensor]]:
    """Return loss and gradients of a step of the default network, as training computes them."""
    runtime = Runtime(precision=precision)
    torch.manual_seed(0)
    model = runtime.place(build_model(ModelSettings(name="tiny_siamese_unet", pretrained=False))).train()
    before, after, truth = hard_batch()
    valid = torch.ones_like(truth)
    valid[3, :, :9] = 0
    scaler = torch.amp.GradScaler("cpu", enabled=runtime.uses_grad_scaler)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with runtime.autocast():
        logits = model(runtime.place_batch(before), runtime.place_batch(after))
    loss = ChangeLoss(pos_weight=1.0)(logits, truth, valid)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    return loss.item(), [value.grad for value in model.parameters() if value.grad is not None]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_step_of_the_default_network_is_finite_and_close_to_that_in_float32(precision: str) -> None:
    expected_loss, expected = step_of("float32")
    loss, gradients = step_of(precision)
    assert loss == pytest.approx(expected_loss, rel=5e-3)
    assert len(gradients) == len(expected)
    assert all(gradient.isfinite().all() and gradient.dtype == torch.float32 for gradient in gradients)
    together, reference = (torch.cat([one.flatten() for one in every]) for every in (gradients, expected))
    assert torch.cosine_similarity(together, reference, dim=0) > 0.99


class Steep(nn.Module):
    """A change network whose gradient, times the first scale of 65,536, is beyond float16 (65,504)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(6, 1, 1)
        nn.init.zeros_(self.mix.weight)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        logits: Tensor = self.mix(torch.cat([before, after], dim=1) * 1e3)
        return logits


def trained(precision: str, epochs: int) -> tuple[nn.Module, float]:
    model = Steep()
    settings = TrainingSettings(
        epochs=epochs, batch_size=4, learning_rate=1e-3, warmup_epochs=0, schedule="constant", patience=None
    )
    runtime = Runtime(precision=precision)
    pairs = TinyPairs(4, 32)
    return model, train(model, pairs, TinyPairs(2, 32, seed=1), settings, runtime).history[-1].train_loss


def test_a_step_that_overflows_float16_is_left_out_and_later_ones_are_taken() -> None:
    first, _ = trained("float16", 1)
    assert not first.mix.weight.any()  # the only step of the epoch: weights are as they were
    later, loss = trained("float16", 12)  # each time the scale is halved
    assert later.mix.weight.any()
    assert all(value.isfinite().all() for value in later.parameters())
    assert math.isfinite(loss)


def test_bfloat16_holds_the_same_gradient_without_scaling() -> None:
    model, loss = trained("bfloat16", 1)
    assert model.mix.weight.any()
    assert math.isfinite(loss)
