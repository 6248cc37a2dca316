import pytest
import torch
from torch import nn

from cd_pipeline.training.optimizers import build_optimizer
from cd_pipeline.training.settings import TrainingSettings


def of(**values: object) -> TrainingSettings:
    return TrainingSettings.model_validate(values)


def one_weight(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def after_updates(optimizer: torch.optim.Optimizer, model: nn.Module, updates: int) -> torch.Tensor:
    inputs = torch.randn(updates, 8, 3, generator=torch.Generator().manual_seed(1))
    for batch in inputs:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("preset", "kind", "rate", "decay", "eps"),
    [
        ("published", torch.optim.AdamW, 3e-4, 1e-4, 1e-4),
        ("siamese", torch.optim.AdamW, 3e-4, 1e-4, 1e-8),
        ("cracks", torch.optim.Adam, 1e-2, 1e-4, 1e-8),
        ("toolbox", torch.optim.AdamW, 3e-4, 1e-4, 1e-8),
        ("voc", torch.optim.Adam, 1e-3, 0.0, 1e-8),
    ],
)
def test_each_preset_has_its_published_optimizer(
    preset: str, kind: type, rate: float, decay: float, eps: float
) -> None:
    optimizer = build_optimizer(one_weight(1.0), of(preset=preset))
    (group,) = optimizer.param_groups
    assert type(optimizer) is kind
    assert (group["lr"], group["weight_decay"], group["eps"]) == (rate, decay, eps)
    assert group["betas"] == (0.9, 0.999)
    assert group["fused"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # the gradient is 0: AdamW shrinks 2 by lr * decay, Adam sees decay * 2 and goes one full step
        ("adamw", 2.0 * (1 - 0.1 * 0.5)),
        ("adam", 2.0 - 0.1),
    ],
)
def test_weight_decay_shrinks_weights_in_adamw_and_is_l2_in_adam(name: str, expected: float) -> None:
    model = one_weight(2.0)
    settings = of(optimizer=name, learning_rate=0.1, weight_decay=0.5, adam_eps=1e-8)
    model.weight.grad = torch.zeros_like(model.weight)
    build_optimizer(model, settings).step()
    assert model.weight.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_ten_updates_are_those_of_the_plain_form(name: str, kind: type[torch.optim.Adam]) -> None:
    results = []
    for plain in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        settings = of(optimizer=name, learning_rate=0.05, weight_decay=0.01, adam_eps=1e-6)
        optimizer = (
            kind(model.parameters(), lr=0.05, weight_decay=0.01, eps=1e-6, foreach=False, fused=False)
            if plain
            else build_optimizer(model, settings)
        )
        results.append(after_updates(optimizer, model, 10))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
