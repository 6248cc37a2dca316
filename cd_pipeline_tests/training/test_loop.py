import copy
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score
from torch import Tensor, nn

from cd_pipeline.evaluation.metrics import everything_changed_f1
from cd_pipeline.evaluation.predict import BatchLoader
from cd_pipeline.models.build import build_model
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.models.unet_plus_plus import UNetPlusPlus
from cd_pipeline.training.checkpoint import weights_digest
from cd_pipeline.training.loop import TrainingResult, build_loss, train
from cd_pipeline.training.losses import ChangeLoss
from cd_pipeline.training.progress import EpochRecord, Progress
from cd_pipeline.training.segmentation_losses import build_segmentation_loss
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline.training.validation import Validation, validate
from cd_pipeline_tests.tiny_images import TinyScenes, items_of
from cd_pipeline_tests.tiny_pairs import BrightnessChange, TinyPairs

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RUNTIME = Runtime()
Weights = dict[str, Tensor]


class SmallNet(nn.Module):
    """A fast change network with batch statistics; from a given training step on its logits are NaN."""

    def __init__(self, seed: int = 0, *, nan_from_step: float = math.inf) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1)
        self.nan_from_step, self.step = nan_from_step, 0

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        self.step += self.training
        logits: Tensor = self.last(self.norm(self.first(torch.cat([before, after], 1))).relu())
        return logits * math.nan if self.step >= self.nan_from_step else logits


def tiny_unet(seed: int = 0) -> TinyChangeUNet:
    torch.manual_seed(seed)
    return TinyChangeUNet()


def quick(**values: object) -> TrainingSettings:
    return TrainingSettings.model_validate({"preset": "published", "epochs": 2, "batch_size": 4, **values})


def run(model: nn.Module, settings: TrainingSettings, **options: object) -> TrainingResult:
    return train(model, TinyPairs(10, 32), TinyPairs(4, 32, seed=1), settings, RUNTIME, **options)  # type: ignore[arg-type]


def loss_of(pairs: TinyPairs, settings: TrainingSettings) -> ChangeLoss:
    """Build the loss from the batches that training would take."""
    return build_loss(BatchLoader(pairs, RUNTIME, settings.batch_size, shuffle_seed=settings.seed), settings)


@cache
def plain_epoch(clip_norm: float, learning_rate: float, ema_decay: float) -> tuple[Weights, Weights, float]:
    """One published epoch written plainly: the last weights, their average, and the mean loss of a pair."""
    pairs, model = TinyPairs(10, 32), SmallNet()
    order = np.random.Generator(np.random.PCG64([42, 0])).permutation(10)
    masks = np.stack([pair.mask for pair in pairs.arrays]) > 0
    pos_weight = torch.tensor(min(math.sqrt((~masks).sum() / masks.sum()), 10))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate / 2, weight_decay=1e-4, eps=1e-4, foreach=False, fused=False
    )
    average = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    total = 0.0
    for start in (0, 4, 8):
        samples = torch.stack([pairs[(0, int(i))] for i in order[start : start + 4]]).float()
        truth = (samples[:, 6:7] > 0).float()
        logits = model(samples[:, :3] / 255, samples[:, 3:6] / 255).clamp(-15, 15)
        bce = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=pos_weight)
        losses = []
        for p, t in zip(logits.sigmoid(), truth, strict=True):
            tp, fp, fn = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
            losses.append(1 - tp / (tp + 0.7 * fp + 0.3 * fn + 1e-3) if t.any() else p.mean())
        optimizer.zero_grad()
        loss = 0.6 * bce + 0.4 * torch.stack(losses).mean()
        total += float(loss.detach()) * len(samples)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(())))
        for g in gradients:
            g *= min(1.0, clip_norm / (float(norm) + 1e-6))
        optimizer.step()
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                average[name] = ema_decay * average[name] + (1 - ema_decay) * value
            else:
                average[name] = value.clone()
    return model.state_dict(), average, total / 10


def assert_moved_alike(ours: Weights, reference: Weights) -> None:
    """Compare weights, to a hundredth of how far each tensor moved from the start."""
    start = SmallNet().state_dict()
    assert set(ours) == set(reference)
    for name, expected in reference.items():
        moved = (expected - start[name]).abs().max().item()
        assert moved > 0, name
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=max(moved / 100, 2e-7), msg=name)


@pytest.mark.parametrize("clip_norm", [1.0, 0.02])
def test_an_epoch_gives_the_weights_of_a_plain_loop(clip_norm: float) -> None:
    model = SmallNet()
    result = run(model, quick(epochs=1, clip_norm=clip_norm, learning_rate=0.02))
    last, average, loss = plain_epoch(clip_norm, 0.02, 0.99)
    assert result.history[0].train_loss == pytest.approx(loss, rel=1e-5)
    assert_moved_alike(dict(model.state_dict()), last)
    assert_moved_alike(result.weights, average)
    assert result.weights["norm.num_batches_tracked"] == 3


def test_clipping_the_gradient_changes_the_weights() -> None:
    # AdamW divides by the gradient's size: only against its eps does a clipped gradient move less
    free, clipped = SmallNet(), SmallNet()
    run(free, quick(epochs=1, learning_rate=0.02))
    run(clipped, quick(epochs=1, learning_rate=0.02, clip_norm=1e-5))
    start = SmallNet().first.weight
    assert (clipped.first.weight - start).abs().max() < 0.5 * (free.first.weight - start).abs().max()


def test_the_decay_of_the_average_can_be_set() -> None:
    result = run(SmallNet(), quick(epochs=1, learning_rate=0.02, ema_decay=0.5))
    assert_moved_alike(result.weights, plain_epoch(1.0, 0.02, 0.5)[1])


def test_an_average_that_warms_up_is_closer_to_the_model_after_a_few_steps() -> None:
    apart = {}
    for warmup in (False, True):
        model = SmallNet()
        result = run(model, quick(epochs=1, learning_rate=0.02, ema_warmup=warmup, ema_decay=0.99))
        last = model.state_dict()
        apart[warmup] = max(
            (result.weights[name] - last[name]).abs().max().item()
            for name in ("first.weight", "norm.weight", "last.weight")
        )
    assert apart[True] < 0.6 * apart[False]


def test_the_first_step_of_an_average_that_warms_up_is_the_model_itself() -> None:
    model = SmallNet()
    result = run(model, quick(epochs=1, batch_size=10, learning_rate=0.02, ema_warmup=True))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(result.weights[name], value, rtol=0, atol=1e-7, msg=name)


def test_the_average_warms_up_once_and_not_anew_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, averages, average = SmallNet(), list[Weights](), Weights()
    number, add = 0, Progress.add

    def follow(weights: Mapping[str, Tensor]) -> None:
        # timm's warm-up: the n-th update keeps 1 - n ** (-2 / 3) of the average, at most the decay
        keep = min(0.9, 1 - number ** (-2 / 3))
        for name in ("first.weight", "norm.weight", "last.weight", "last.bias"):
            average[name] = keep * average.get(name, weights[name]) + (1 - keep) * weights[name]

    def before_step(module: nn.Module, arguments: object) -> None:
        nonlocal number
        if number and module.training:  # the weights are as the step before left them
            follow(module.state_dict())
        number += module.training

    def keep_average(progress: Progress, record: EpochRecord, averaged: nn.Module) -> None:
        averages.append({name: value.clone() for name, value in averaged.state_dict().items()})
        add(progress, record, averaged)

    model.register_forward_pre_hook(before_step)
    monkeypatch.setattr(Progress, "add", keep_average)
    run(model, quick(epochs=2, learning_rate=0.02, ema_warmup=True, ema_decay=0.9))
    follow(model.state_dict())
    assert (number, len(averages)) == (6, 2)  # three steps an epoch
    for name, expected in average.items():
        torch.testing.assert_close(averages[-1][name], expected, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("net", [SmallNet, tiny_unet])
def test_two_runs_give_identical_weights_and_another_seed_others(net: Callable[[], nn.Module]) -> None:
    digests = []
    for seed in (42, 42, 43):
        torch.rand(5)  # what was drawn before must not matter
        digests.append(weights_digest(run(net(), quick(seed=seed)).weights))
    assert digests[0] == digests[1] != digests[2]


def test_each_epoch_runs_at_the_rate_of_the_schedule() -> None:
    result = run(SmallNet(), quick(epochs=4))
    middle = 3e-4  # epochs 3 and 4 are the cosine's only two: its start and its end
    assert [r.learning_rate for r in result.history] == pytest.approx([1.5e-4, 3e-4, middle, 1e-5])


class WatchedSGD(torch.optim.SGD):
    """Remembers the learning rate of each step it takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=1.0)
        self.rates: list[float] = []

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.rates.append(self.param_groups[0]["lr"])
        super().step(closure)


@pytest.mark.parametrize("schedule", ["epoch", "step"])
def test_every_step_runs_at_its_own_rate(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = SmallNet(), quick(epochs=4, warmup_epochs=1, schedule=schedule)
    watched = WatchedSGD(model)
    monkeypatch.setattr("cd_pipeline.training.loop.build_optimizer", lambda model, settings: watched)
    result = run(model, settings)
    # 3 steps an epoch: the warm-up is 1 epoch or 3 steps, the cosine runs over 3 epochs or 9 steps
    unit, turns = (1, 2) if schedule == "epoch" else (3, 8)
    cosine = [1e-5 + (3e-4 - 1e-5) * (1 + math.cos(math.pi * i / turns)) / 2 for i in range(turns + 1)]
    positions = [3e-4 * (i + 1) / unit for i in range(unit)] + cosine
    expected = [rate for rate in positions for _ in range(3 // unit)]
    assert watched.rates == pytest.approx(expected, rel=1e-9)
    assert [record.learning_rate for record in result.history] == pytest.approx(expected[2::3], rel=1e-9)


def test_by_steps_the_last_step_of_training_runs_at_the_lowest_rate() -> None:
    result = run(SmallNet(), quick(epochs=3, schedule="step", min_learning_rate=2e-6))
    assert result.history[-1].learning_rate == pytest.approx(2e-6)


def test_pairs_are_asked_for_once_an_epoch_in_a_new_order() -> None:
    pairs = TinyPairs(10, 32)
    train(SmallNet(), pairs, TinyPairs(4, 32), quick(pos_weight_batches=1), RUNTIME)
    asked = [[index for epoch, index in pairs.asked[4:] if epoch == number] for number in (0, 1)]
    assert sorted(asked[0]) == sorted(asked[1]) == list(range(10))
    assert asked[0] != asked[1]


def test_the_positive_weight_comes_from_the_first_batches_alone() -> None:
    pairs = TinyPairs(24, 32)
    loss = loss_of(pairs, quick(batch_size=2, pos_weight_batches=3))
    order = np.random.Generator(np.random.PCG64([42, 0])).permutation(24)[:6]
    masks = np.stack([pairs.arrays[i].mask for i in order]) > 0
    assert float(loss.pos_weight) == pytest.approx(math.sqrt((~masks).sum() / masks.sum()), rel=1e-6)
    assert [index for _, index in pairs.asked] == order.tolist()


def test_the_positive_weight_of_pairs_without_change_is_the_limit() -> None:
    pairs = TinyPairs(4, 32)
    pairs.arrays = [pairs.arrays[3]] * 4
    assert float(loss_of(pairs, quick()).pos_weight) == 10


def test_twenty_batches_are_enough_by_default() -> None:
    pairs = TinyPairs(90, 16)
    loss_of(pairs, quick())
    assert len(pairs.asked) == 20 * 4


def test_validation_uses_the_averaged_weights() -> None:
    settings = quick(epochs=1, learning_rate=0.05)
    model = SmallNet()
    result = run(model, settings)
    average = SmallNet()
    average.load_state_dict(result.weights)
    pairs = TinyPairs(4, 32, seed=1)
    loss = loss_of(TinyPairs(10, 32), settings)
    assert result.best.val_loss == pytest.approx(
        validate(average, pairs, loss, settings, RUNTIME).loss, rel=1e-6
    )
    assert result.best.val_loss != pytest.approx(
        validate(model, pairs, loss, settings, RUNTIME).loss, rel=1e-6
    )


def test_the_result_holds_the_weights_of_the_best_epoch_not_of_the_last() -> None:
    first = run(SmallNet(), quick(epochs=1, learning_rate=0.02))
    longer = run(SmallNet(), quick(epochs=3, learning_rate=0.02, min_improvement=1.0))
    assert longer.best.epoch == 1
    assert len(longer.history) == 3
    assert weights_digest(longer.weights) == weights_digest(first.weights)


class TrainedAtOnce(BrightnessChange):
    """A network that is right from the start and hardly moves."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 1, 1, 1))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.scale * super().forward(before, after)


def test_training_stops_after_the_patience_without_an_improvement() -> None:
    seen: list[EpochRecord] = []
    result = run(TrainedAtOnce(), quick(epochs=9, patience=2), on_epoch=seen.append)
    assert result.best.val_f1 > 0.9
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert seen == result.history
    assert result.stop_reason == "no better val F1 in 2 epochs"


def test_a_loss_that_turns_nan_stops_and_keeps_the_earlier_best() -> None:
    healthy = run(SmallNet(), quick(epochs=1))
    result = run(SmallNet(nan_from_step=5), quick(epochs=5))  # three steps an epoch: in the second
    assert (result.best.epoch, len(result.history)) == (1, 2)
    assert math.isnan(result.history[-1].train_loss)
    assert result.stop_reason == "loss not finite in epoch 2"
    assert weights_digest(result.weights) == weights_digest(healthy.weights)


def test_a_loss_that_is_nan_from_the_start_is_an_error_with_a_remedy() -> None:
    with pytest.raises(FloatingPointError, match=r"not finite in epoch 1; lower training\.learning_rate"):
        run(SmallNet(nan_from_step=2), quick())


def test_an_exploding_learning_rate_is_an_error_with_a_remedy() -> None:
    with pytest.raises(FloatingPointError, match=r"lower training\.learning_rate"):
        run(SmallNet(), quick(learning_rate=1e38))


def test_half_precision_trains_to_about_the_same_loss() -> None:
    settings = quick(epochs=1, learning_rate=0.02)
    full = run(SmallNet(), settings)
    half = train(
        SmallNet(),
        TinyPairs(10, 32),
        TinyPairs(4, 32, seed=1),
        settings,
        replace(RUNTIME, precision="bfloat16"),
    )
    assert half.best.train_loss == pytest.approx(full.best.train_loss, rel=0.02)
    assert all(value.dtype != torch.bfloat16 for value in half.weights.values())


@pytest.mark.slow
def test_the_network_learns_a_few_pairs() -> None:
    pairs = TinyPairs(6)
    settings = quick(epochs=40, learning_rate=3e-3, ema_decay=0.6, patience=40)
    result = train(tiny_unet(), pairs, pairs, settings, RUNTIME)
    losses = [record.train_loss for record in result.history]
    assert losses[-1] < 0.7 * losses[0]
    positive = sum(np.count_nonzero(a.mask) for a in pairs.arrays)
    assert result.best.val_f1 > everything_changed_f1(positive, 6 * 64 * 64) + 0.1


def record(epoch: int, f1: float, loss: float = 0.5) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        learning_rate=1e-4,
        train_loss=loss,
        val_loss=0.5,
        val_f1=f1,
        val_iou=f1,
        val_mean_image_iou=f1,
        val_pixel_accuracy=0.9,
        train_iou=0.7,
        train_pixel_accuracy=0.8,
        threshold=0.2,
        train_seconds=1.0,
        val_seconds=1.0,
        images_per_second=10.0,
        memory_gb=0.5,
        gpu_memory_gb=None,
    )


def follow(scores: list[float], patience: int = 12, floor_f1: float = 0.0) -> Progress:
    """Run through epochs of these val F1 as training does; each epoch's weights are its number."""
    progress = Progress(0.005, patience, floor_f1)
    model = nn.Linear(1, 1)
    for epoch, f1 in enumerate(scores, 1):
        nn.init.constant_(model.weight, epoch)
        progress.add(record(epoch, f1), model)
        if progress.stop_reason:
            break
    return progress


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.2, 0.3], 3),
        ([0.3, 0.2, 0.1], 1),
        ([0.5, 0.5045, 0.509], 3),  # each step is too small, two of them are not
        ([0.5, 0.504, 0.504], 1),
        ([0.0, 0.0], 1),
        ([0.2, 0.4, 0.403, 0.1, 0.42], 5),
    ],
)
def test_the_best_epoch_is_the_last_that_improved_enough(scores: list[float], best: int) -> None:
    progress = follow(scores)
    assert progress.best == record(best, scores[best - 1])
    assert float(progress.weights["weight"]) == best


def best_epoch(scores: list[float]) -> int:
    """Return the last epoch that beat the best of all before it, by the rule spelled out."""
    if len(scores) == 1:
        return 1
    before = best_epoch(scores[:-1])
    return len(scores) if scores[-1] > scores[before - 1] + 0.005 else before


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 100).map(lambda n: n / 100) | st.just(0.0), min_size=1, max_size=40),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.2]),
)
def test_best_and_stop_agree_with_the_rule_spelled_out(
    scores: list[float], patience: int, floor_f1: float
) -> None:
    lengths = range(1, len(scores) + 1)
    best = {n: best_epoch(scores[:n]) for n in lengths}
    stops = [n for n in lengths if n - best[n] >= patience and scores[best[n] - 1] > floor_f1 + 0.005]
    stop = min(stops, default=len(scores))
    progress = follow(scores, patience, floor_f1)
    assert len(progress.history) == stop
    assert progress.best is not None
    assert progress.best.epoch == best[stop]


def test_patience_does_not_run_out_before_the_network_beats_marking_everything() -> None:
    assert len(follow([0.2] * 30, patience=3, floor_f1=0.2).history) == 30
    assert len(follow([0.3] * 30, patience=3, floor_f1=0.2).history) == 4


def test_the_kept_weights_do_not_follow_the_model() -> None:
    progress, model = Progress(0.005, 12), nn.Linear(1, 1)
    kept = copy.deepcopy(model.state_dict())
    progress.add(record(1, 0.5), model)
    nn.init.constant_(model.weight, 9)
    assert torch.equal(progress.weights["weight"], kept["weight"])


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_an_epoch_with_a_broken_loss_is_never_the_best(loss: float) -> None:
    progress, model = Progress(0.005, 12), nn.Linear(1, 1)
    progress.add(record(1, 0.2), model)
    progress.add(record(2, 0.9, loss), model)
    assert progress.best == record(1, 0.2)
    assert progress.stop_reason == "loss not finite in epoch 2"


def test_without_a_clip_norm_gradients_are_left_alone() -> None:
    model = SmallNet()
    result = run(model, quick(epochs=1, clip_norm=None, learning_rate=0.02))
    last, average, loss = plain_epoch(math.inf, 0.02, 0.99)
    assert result.history[0].train_loss == pytest.approx(loss, rel=1e-5)
    assert_moved_alike(dict(model.state_dict()), last)
    assert_moved_alike(result.weights, average)


def test_the_loss_of_the_settings_is_the_one_that_is_trained() -> None:
    loss = loss_of(TinyPairs(4, 32), TrainingSettings(preset="siamese"))
    parts = (loss.bce_weight, loss.tversky_weight, loss.dice_weight, float(loss.pos_weight))
    assert parts == (1.0, 0.0, 1.0, 1.0)


def disagreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate as if F1 were best in epoch 1 and the mean IoU of the images in epoch 2."""
    scores = [(0.9, 0.2), (0.5, 0.6), (0.7, 0.4), (0.6, 0.5), (0.6, 0.5)]
    left = iter(scores)

    def validation(*arguments: object, **options: object) -> Validation:
        f1, iou = next(left)
        return Validation(
            loss=0.5,
            f1=f1,
            iou=f1 / (2 - f1),
            mean_image_iou=iou,
            pixel_accuracy=0.9,
            threshold=0.3,
            floor_f1=f1,
        )

    monkeypatch.setattr("cd_pipeline.training.loop.validate", validation)


@pytest.mark.parametrize(("best_by", "best"), [("f1", 1), ("mean_image_iou", 2)])
def test_the_best_epoch_is_that_of_the_figure_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, best_by: str, best: int
) -> None:
    disagreeing(monkeypatch)
    result = run(SmallNet(), quick(epochs=5, best_by=best_by, patience=None))
    assert result.best.epoch == best
    assert result.best.val_mean_image_iou == [0.2, 0.6][best - 1]
    assert [record.val_mean_image_iou for record in result.history] == [0.2, 0.6, 0.4, 0.5, 0.5]
    disagreeing(monkeypatch)
    until_then = run(SmallNet(), quick(epochs=best, best_by=best_by, schedule="constant"))
    disagreeing(monkeypatch)
    whole = run(SmallNet(), quick(epochs=5, best_by=best_by, schedule="constant", patience=None))
    assert weights_digest(whole.weights) == weights_digest(until_then.weights)


def test_patience_waits_for_the_figure_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    disagreeing(monkeypatch)
    result = run(SmallNet(), quick(epochs=5, best_by="mean_image_iou", patience=2))
    assert (result.best.epoch, len(result.history)) == (2, 4)
    assert result.stop_reason == "no better val mean IoU of the images in 2 epochs"


def test_with_a_constant_rate_every_epoch_has_the_same() -> None:
    result = run(SmallNet(), quick(epochs=3, schedule="constant"))
    assert [record.learning_rate for record in result.history] == [3e-4] * 3


def test_without_decay_the_average_is_the_network_itself() -> None:
    model = SmallNet()
    result = run(model, quick(epochs=1, learning_rate=0.02, ema_decay=0.0))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(result.weights[name], value, rtol=0, atol=1e-7, msg=name)


def test_scores_of_the_training_batches_are_those_of_the_network_as_it_went() -> None:
    pairs, model = TinyPairs(8, 32), SmallNet()
    result = train(model, pairs, TinyPairs(4, 32), quick(epochs=1, batch_size=8), RUNTIME)
    items = torch.stack([pairs[0, index] for index in range(8)]).float()
    with torch.no_grad():  # the only step saw the weights of the start, and the batch's own statistics
        logits = SmallNet().train()(items[:, :3] / 255, items[:, 3:6] / 255)
    flat = (items[:, 6] > 0).numpy().ravel(), (logits[:, 0] > 0).numpy().ravel()
    assert result.best.train_pixel_accuracy == pytest.approx(accuracy_score(*flat))
    assert result.best.train_iou == pytest.approx(jaccard_score(*flat))


def nested(classes: int, *, deep_supervision: bool = True) -> UNetPlusPlus:
    torch.manual_seed(0)
    return UNetPlusPlus(classes=classes, widths=(8, 16, 24), norm="group", deep_supervision=deep_supervision)


def of_scenes(**values: object) -> TrainingSettings:
    return quick(loss="ce", schedule="constant", learning_rate=1e-2, ema_decay=0.5, **values)


def test_the_loss_of_several_heads_is_their_mean_and_the_last_one_is_scored() -> None:
    scenes = TinyScenes(4)
    result = train(nested(3), scenes, TinyScenes(2, seed=1), of_scenes(epochs=1), RUNTIME)
    items, loss = items_of(scenes), build_segmentation_loss("ce", classes=3)
    with torch.no_grad():
        heads = nested(3).train()(items[:, :3].float() / 255)
    assert len(heads) == 2
    truth = items[:, 3:4].long()
    assert result.best.train_loss == pytest.approx(
        np.mean([float(loss(logits, truth)) for logits in heads]), rel=1e-5
    )
    flat = truth[:, 0].numpy().ravel(), heads[-1].argmax(1).numpy().ravel()
    assert result.best.train_pixel_accuracy == pytest.approx(accuracy_score(*flat))
    assert result.best.train_iou == pytest.approx(jaccard_score(*flat, average="macro"))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_a_nested_network_learns_a_few_scenes(deep_supervision: bool) -> None:
    scenes = TinyScenes(4)
    model = nested(3, deep_supervision=deep_supervision)
    result = train(model, scenes, scenes, of_scenes(epochs=20, best_by="iou", patience=None), RUNTIME)
    losses = [record.train_loss for record in result.history]
    assert losses[-1] < 0.5 * losses[0]
    assert result.best.val_iou > 0.5
    assert {record.threshold for record in result.history} == {None}
    assert result.pos_weight == 1


@pytest.mark.parametrize(("loss", "void"), [("ce", False), ("ce_dice", True), ("focal_dice", True)])
def test_several_classes_are_learnt_with_void_left_out(loss: str, void: bool) -> None:
    scenes = TinyScenes(4, void=void)
    torch.manual_seed(0)
    model = build_model(ModelSettings(name="unet", widths=(8, 16), norm="group"), scenes.task)
    settings = of_scenes(epochs=20, best_by="iou", patience=None).model_copy(update={"loss": loss})
    result = train(model, scenes, scenes, settings, RUNTIME)
    losses = [record.train_loss for record in result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert result.history[-1].train_iou > result.history[0].train_iou
    assert result.best.val_iou > 0.5


def test_void_teaches_nothing() -> None:
    losses = []
    for wrong in (False, True):
        scenes = TinyScenes(4, void=True)
        if wrong:
            scenes.samples = [
                sample._replace(mask=np.where(sample.valid == 0, np.uint8(2), sample.mask))
                for sample in scenes.samples
            ]
        torch.manual_seed(0)
        model = build_model(ModelSettings(name="unet", widths=(8, 16), norm="group"), scenes.task)
        result = train(model, scenes, TinyScenes(2, seed=1), of_scenes(epochs=2), RUNTIME)
        losses.append([(record.train_loss, record.train_iou, record.val_loss) for record in result.history])
    assert losses[0] == losses[1]


def test_class_weights_reach_the_loss() -> None:
    scenes, weights = TinyScenes(4), [0.2, 1.0, 1.8]
    result = train(
        nested(3, deep_supervision=False),
        scenes,
        TinyScenes(2, seed=1),
        of_scenes(epochs=1),
        RUNTIME,
        class_weights=weights,
    )
    items = items_of(scenes)
    with torch.no_grad():
        answer = nested(3, deep_supervision=False).train()(items[:, :3].float() / 255)
    logits = answer[-1] if isinstance(answer, list) else answer
    expected = build_segmentation_loss("ce", classes=3, class_weights=weights)(logits, items[:, 3:4].long())
    assert result.best.train_loss == pytest.approx(float(expected), rel=1e-5)


def test_the_change_loss_of_several_classes_is_refused_with_the_others() -> None:
    with pytest.raises(
        ValueError, match=r"training\.loss is change, for a binary mask; of 3 classes take ce"
    ):
        train(nested(3), TinyScenes(2), TinyScenes(2), quick(), RUNTIME)


def test_a_binary_loss_by_name_weighs_positives_as_the_settings_say() -> None:
    scenes = TinyScenes(4, classes=1)
    for limit, expected in ((10.0, None), (1.0, 1.0)):
        settings = quick(loss="bce_dice", max_pos_weight=limit)
        found = build_loss(BatchLoader(scenes, RUNTIME, 4), settings).pos_weight
        marked = np.stack([sample.mask for sample in scenes.samples]) > 0
        assert float(found) == pytest.approx(expected or math.sqrt((~marked).sum() / marked.sum()))


class PlainNet(nn.Module):
    """A small network that compiles as a whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        logits: Tensor = self.last(self.norm(self.first(torch.cat([before, after], 1))).relu())
        return logits


@pytest.mark.slow
def test_a_compiled_training_gives_the_same_weights_each_time_and_those_of_a_plain_one_but_for_rounding() -> (
    None
):
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler here")
    pairs, settings = (TinyPairs(10, 32), TinyPairs(4, 32, seed=1)), quick(epochs=2)
    plain, *compiled = (
        train(PlainNet(), *pairs, settings, replace(RUNTIME, compile=compile)).weights
        for compile in (False, True, True)
    )
    assert weights_digest(compiled[0]) == weights_digest(compiled[1])
    assert list(compiled[0]) == list(plain)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[0][name], value, rtol=1e-3, atol=1e-4, msg=name)
