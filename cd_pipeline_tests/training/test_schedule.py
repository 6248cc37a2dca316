import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.training.schedule import RateSchedule, warmup_cosine
from cd_pipeline.training.settings import TrainingSettings


def published(epoch: int) -> float:
    return warmup_cosine(epoch, total=40, warmup=2, peak=3e-4, low=1e-5)


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
    rates = [warmup_cosine(e, total=epochs, warmup=warmup, peak=peak, low=low) for e in range(epochs)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(0 <= rate <= peak * (1 + 1e-12) for rate in rates)
    if epochs > warmup + 1:
        assert rates[-1] == pytest.approx(low, abs=1e-12)


def test_without_a_warm_up_the_first_epoch_runs_at_the_peak() -> None:
    assert warmup_cosine(0, total=10, warmup=0, peak=0.1, low=0.0) == pytest.approx(0.1)


def hand_rate(position: int, total: int, warmup: int) -> float:
    """Warm up to 0.1 in a straight line, then half a cosine to 0.01 at the last position."""
    if position < warmup:
        return 0.1 * (position + 1) / warmup
    turn = math.pi * (position - warmup) / (total - 1 - warmup)
    return 0.01 + 0.09 * (1 + math.cos(turn)) / 2


def of_schedule(schedule: str, **values: object) -> TrainingSettings:
    plain = {"epochs": 6, "warmup_epochs": 2, "learning_rate": 0.1, "min_learning_rate": 0.01}
    return TrainingSettings.model_validate({**plain, "schedule": schedule, **values})


def epoch_rates(epoch: int, steps: int, settings: TrainingSettings) -> list[float]:
    return RateSchedule(settings, steps).epoch(epoch)


def judged_rates(settings: TrainingSettings, losses: list[float]) -> list[float]:
    """Return the rate of each epoch, judged by these val losses, and of the one after them."""
    schedule = RateSchedule(settings, steps=1)
    rates = schedule.epoch(0)
    for epoch, loss in enumerate(losses, start=1):
        schedule.judged(loss)
        rates += schedule.epoch(epoch)
    return rates


def torch_rates(
    of_optimizer: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler],
    peak: float,
    judgements: list[tuple[float, ...]],
) -> list[float]:
    """Return what a torch schedule that steps after each epoch sets, in a training of its own."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = of_optimizer(optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for judgement in judgements:
        optimizer.step()
        schedule.step(*judgement)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_by_epochs_every_step_of_an_epoch_has_its_rate() -> None:
    for epoch in range(6):
        rates = epoch_rates(epoch, 5, of_schedule("epoch"))
        assert rates == pytest.approx([hand_rate(epoch, 6, 2)] * 5, rel=1e-9)


def test_by_steps_the_rates_of_all_epochs_are_one_schedule() -> None:
    rates = [rate for epoch in range(6) for rate in epoch_rates(epoch, 5, of_schedule("step"))]
    assert rates == pytest.approx([hand_rate(step, 30, 10) for step in range(30)], rel=1e-9)
    assert (rates[0], rates[9], rates[10], rates[-1]) == pytest.approx((0.01, 0.1, 0.1, 0.01))


@pytest.mark.parametrize("schedule", ["epoch", "step", "constant", "plateau", "steps"])
@pytest.mark.parametrize("steps", [1, 7])
def test_an_epoch_has_a_rate_for_each_step(schedule: str, steps: int) -> None:
    assert [len(epoch_rates(epoch, steps, of_schedule(schedule))) for epoch in range(6)] == [steps] * 6


def test_with_one_step_an_epoch_both_schedules_are_one() -> None:
    for epoch in range(6):
        first, second = (epoch_rates(epoch, 1, of_schedule(schedule)) for schedule in ("epoch", "step"))
        assert first == pytest.approx(second)


def test_a_constant_rate_has_neither_warm_up_nor_end() -> None:
    rates = [rate for epoch in range(6) for rate in epoch_rates(epoch, 5, of_schedule("constant"))]
    assert rates == [0.1] * 30


@given(st.integers(1, 9), st.floats(0.05, 1), st.integers(1, 40))
def test_in_steps_the_rates_are_those_of_torch(step: int, gamma: float, epochs: int) -> None:
    settings = of_schedule("steps", step_epochs=step, step_gamma=gamma, min_learning_rate=0)
    expected = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step, gamma), 0.1, [()] * epochs
    )
    assert judged_rates(settings, [1.0] * epochs) == pytest.approx(expected, rel=1e-9)


def test_the_rate_published_for_voc_is_a_tenth_every_four_epochs_not_batches() -> None:
    schedule = RateSchedule(TrainingSettings(preset="voc"), steps=3)
    rates = [schedule.epoch(epoch) for epoch in range(40)]
    for epoch in range(40):
        assert rates[epoch] == pytest.approx([1e-3 * 10 ** -(epoch // 4)] * 3, rel=1e-9)


def test_steps_end_at_the_lowest_rate() -> None:
    settings = of_schedule("steps", step_epochs=1, step_gamma=0.2)
    assert judged_rates(settings, [1.0] * 3) == pytest.approx([0.1, 0.02, 0.01, 0.01])


@given(
    st.lists(st.sampled_from([1.0, 0.99995, 0.9, 0.5, 2.0, math.nan]), max_size=40),
    st.floats(0.1, 0.9),
    st.integers(0, 5),
    st.floats(0, 0.05),
)
def test_a_plateau_has_the_rates_of_torch(
    losses: list[float], factor: float, patience: int, low: float
) -> None:
    settings = of_schedule("plateau", plateau_factor=factor, plateau_patience=patience, min_learning_rate=low)
    expected = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, "min", factor, patience, min_lr=low
        ),
        0.1,
        [(loss,) for loss in losses],
    )
    assert judged_rates(settings, losses) == expected


def test_the_rate_published_for_cracks_falls_to_a_tenth_after_eleven_epochs_without_a_lower_loss() -> None:
    rates = judged_rates(TrainingSettings(preset="cracks"), [0.5, 0.4] + [0.45] * 22)
    assert rates == pytest.approx([1e-2] * 13 + [1e-3] * 11 + [1e-4], rel=1e-9)


def test_the_rate_published_for_cracks_ends_at_its_lowest() -> None:
    rates = judged_rates(TrainingSettings(preset="cracks"), [0.5] * 120)
    assert rates[-1] == pytest.approx(1e-8, rel=1e-9)
    assert min(rates) == rates[-1]


def test_a_loss_that_falls_keeps_the_rate_of_a_plateau() -> None:
    losses = [0.99**epoch for epoch in range(60)]
    assert judged_rates(of_schedule("plateau", plateau_patience=0), losses) == [0.1] * 61


@pytest.mark.parametrize("schedule", ["epoch", "step", "constant", "steps"])
def test_only_a_plateau_looks_at_the_loss(schedule: str) -> None:
    settings = of_schedule(schedule, plateau_patience=0)
    assert judged_rates(settings, [1.0, 2.0, math.nan]) == judged_rates(settings, [3.0, 2.0, 1.0])
