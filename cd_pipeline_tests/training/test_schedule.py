import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.training.schedule import warmup_cosine


def published(epoch: int) -> float:
    return warmup_cosine(epoch, epochs=40, warmup=2, peak=3e-4, low=1e-5)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 1.5e-4),
        (1, 3e-4),
        (2, 3e-4),
        (39, 1e-5),
        (2 + 37 // 2, 1e-5 + 2.9e-4 * (1 + math.cos(math.pi * 18 / 37)) / 2),
    ],
)
def test_the_published_rates(epoch: int, rate: float) -> None:
    assert published(epoch) == pytest.approx(rate, rel=1e-12)


def test_after_the_warm_up_the_rates_are_those_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=37, eta_min=1e-5)
    for epoch in range(2, 40):
        assert published(epoch) == pytest.approx(cosine.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        cosine.step()


@given(st.integers(1, 60), st.integers(0, 8), st.floats(1e-4, 1), st.floats(0, 1e-4))
def test_rates_rise_during_the_warm_up_then_fall_and_stay_within_limits(
    epochs: int, warmup: int, peak: float, low: float
) -> None:
    rates = [warmup_cosine(e, epochs=epochs, warmup=warmup, peak=peak, low=low) for e in range(epochs)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(0 <= rate <= peak * (1 + 1e-12) for rate in rates)
    if epochs > warmup + 1:
        assert rates[-1] == pytest.approx(low, abs=1e-12)


def test_without_a_warm_up_the_first_epoch_runs_at_the_peak() -> None:
    assert warmup_cosine(0, epochs=10, warmup=0, peak=0.1, low=0.0) == pytest.approx(0.1)
