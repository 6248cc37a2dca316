import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cd_pipeline.training.losses import dice_loss, tversky_loss
from cd_pipeline.training.segmentation_losses import (
    LossName,
    binary_cross_entropy,
    build_segmentation_loss,
    cross_entropy,
    focal_loss,
    focal_tversky_loss,
    soft_dice_loss,
    soft_tversky_loss,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Array = npt.NDArray[Any]
seeds = st.integers(0, 2**32 - 1)

BINARY: tuple[LossName, ...] = tuple(name for name in get_args(LossName) if not name.startswith("ce"))
SEVERAL: tuple[LossName, ...] = tuple(name for name in get_args(LossName) if not name.startswith("bce"))
CASES = [(name, 1) for name in BINARY] + [(name, 3) for name in SEVERAL]
REGIONS: tuple[LossName, ...] = ("dice", "tversky", "focal_tversky")
every_loss = pytest.mark.parametrize(("name", "classes"), CASES)


def draw(
    seed: int, classes: int, spread: float = 2.0, shape: tuple[int, int, int] = (3, 4, 5)
) -> tuple[Array, Array, Array]:
    """Draw logits, truth and valid; the last image holds class 0 alone, as far as its pixels count."""
    rng = np.random.default_rng(seed)
    images, height, width = shape
    truth = rng.integers(0, max(classes, 2), (images, 1, height, width))
    valid = (rng.random(truth.shape) < 0.7).astype(np.float64)
    valid[:, 0, 0, 0] = 1
    truth[-1][valid[-1] > 0] = 0
    return rng.normal(0, spread, (images, classes, height, width)), truth, valid


def tensors(logits: Array, truth: Array, valid: Array | None) -> tuple[Tensor, Tensor, Tensor | None]:
    classes = logits.shape[1]
    return (
        torch.tensor(logits),
        torch.tensor(truth) if classes > 1 else torch.tensor(truth).double(),
        None if valid is None else torch.tensor(valid),
    )


# The reference: plain Python, one pixel after the other


def probabilities(logits: Array) -> list[float]:
    """Return the probability of each class; binary: of class 0 and class 1."""
    exponentials = [math.exp(logit) for logit in ([0.0, *logits] if len(logits) == 1 else list(logits))]
    return [value / sum(exponentials) for value in exponentials]


def pixels(logits: Array, truth: Array, valid: Array | None) -> Iterator[tuple[int, list[float], int]]:
    """Yield the image, the class probabilities and the true class of each pixel that counts."""
    for image, _, row, column in np.ndindex(*truth.shape):
        if valid is None or valid[image, 0, row, column]:
            yield image, probabilities(logits[image, :, row, column]), int(truth[image, 0, row, column])


def reference_of_pixels(
    sample: tuple[Array, Array, Array | None],
    factors: Sequence[float],
    gamma: float = 0.0,
    by_weight: bool = True,
) -> float:
    """Mean of factor * (1 - p)^gamma * -log p, divided by the factors or by the number of pixels."""
    total = divisor = 0.0
    for _, p, true in pixels(*sample):
        total += factors[true] * (1 - p[true]) ** gamma * -math.log(p[true])
        divisor += factors[true] if by_weight else 1
    return total / divisor


def reference_of_regions(
    sample: tuple[Array, Array, Array | None],
    formula: Callable[[float, float, float], float],
    weights: Sequence[float],
    exponent: float = 1.0,
) -> float:
    """Mean over images of the weighted mean over classes of formula(TP, FP, FN)^exponent."""
    logits = sample[0]
    classes = range(logits.shape[1]) if logits.shape[1] > 1 else [1]
    images = []
    for image in range(len(logits)):
        own = [(p, true) for number, p, true in pixels(*sample) if number == image]
        weighted = 0.0
        for weight, one in zip(weights, classes, strict=True):
            if any(true == one for _, true in own):
                tp = sum(p[one] for p, true in own if true == one)
                fp = sum(p[one] for p, true in own if true != one)
                fn = sum(1 - p[one] for p, true in own if true == one)
                loss = formula(tp, fp, fn)
            else:
                loss = sum(p[one] for p, _ in own) / len(own)
            weighted += weight * loss**exponent
        images.append(weighted / sum(weights))
    return sum(images) / len(images)


def reference_loss(
    name: str, sample: tuple[Array, Array, Array | None], weights: Sequence[float] | None = None
) -> float:
    """The loss of that name, with numbers that are nobody's defaults: see OPTIONS."""
    classes = sample[0].shape[1]
    each = [1.0] * classes if weights is None else weights

    def dice(tp: float, fp: float, fn: float) -> float:
        return 1 - (2 * tp + 0.1) / (2 * tp + fp + fn + 0.1)

    def tversky(tp: float, fp: float, fn: float) -> float:
        return 1 - tp / (tp + 0.2 * fp + 0.9 * fn + 1e-3)

    def focal() -> float:
        if weights is not None:
            return reference_of_pixels(sample, weights, 1.5)
        return reference_of_pixels(sample, [0.4] + [0.6] * max(classes - 1, 1), 1.5, by_weight=False)

    def bce() -> float:
        return reference_of_pixels(sample, [1.0, 2.5], by_weight=False)

    terms: dict[str, Callable[[], float]] = {
        "bce": bce,
        "ce": lambda: reference_of_pixels(sample, each),
        "dice": lambda: reference_of_regions(sample, dice, each),
        "focal": focal,
        "tversky": lambda: reference_of_regions(sample, tversky, each),
        "focal_tversky": lambda: reference_of_regions(sample, tversky, each, 1 / 1.6),
    }
    if name == "focal_dice":
        return 0.3 * terms["dice"]() + 0.7 * focal()
    if name in ("bce_dice", "ce_dice", "bce_tversky"):
        first, second = name.split("_")
        return 0.8 * terms[first]() + terms[second]()
    return terms[name]()


OPTIONS: dict[str, Any] = {
    "pos_weight": 2.5,
    "cross_entropy_weight": 0.8,
    "smooth": 0.1,
    "focal_alpha": 0.6,
    "focal_gamma": 1.5,
    "dice_share": 0.3,
    "false_positive": 0.2,
    "false_negative": 0.9,
    "tversky_gamma": 1.6,
}


@every_loss
@settings(max_examples=8, deadline=None)
@given(seed=seeds, partly=st.booleans(), weighted=st.booleans())
def test_each_loss_is_that_of_a_loop_over_pixels(
    name: LossName, classes: int, seed: int, partly: bool, weighted: bool
) -> None:
    logits, truth, valid = draw(seed, classes)
    sample = (logits, truth, valid if partly else None)
    weights = [0.5, 0.0, 3.0] if weighted and classes > 1 else None
    loss = build_segmentation_loss(name, classes=classes, class_weights=weights, **OPTIONS)
    value = loss(*tensors(*sample))
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(reference_loss(name, sample, weights), rel=1e-9, abs=1e-12)


# Values by hand, with the defaults

TRUTH = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
EVEN = torch.zeros(1, 1, 1, 4)  # probability 1/2: TP, FP and FN are 1 each
LN2 = math.log(2)
BY_HAND: list[tuple[LossName, float]] = [
    ("bce", LN2),
    ("dice", 1 - 2.00001 / 4.00001),
    ("focal", 0.25 * LN2 * (0.25 + 0.75) / 2),
    ("focal_dice", 0.5 * (1 - 2.00001 / 4.00001) + 0.5 * 0.125 * LN2),
    ("tversky", 1 - 1 / 2.001),
    ("focal_tversky", (1 - 1 / 2.001) ** 0.75),
    ("bce_dice", 0.5 * LN2 + 1 - 2.00001 / 4.00001),
    ("bce_tversky", 0.5 * LN2 + 1 - 1 / 2.001),
]


@pytest.mark.parametrize(("name", "expected"), BY_HAND)
def test_the_defaults_are_the_published_ones(name: LossName, expected: float) -> None:
    assert float(build_segmentation_loss(name, classes=1)(EVEN, TRUTH)) == pytest.approx(expected, rel=1e-6)


def test_misses_cost_more_than_false_alarms_of_the_same_size_in_tversky() -> None:
    missed, alarmed = torch.tensor([[[[20.0, -20, -20, -20]]]]), torch.tensor([[[[20.0, 20, 20, -20]]]])
    # TP 1, FN 1; TP 2, FP 1
    assert float(soft_tversky_loss(missed, TRUTH)) == pytest.approx(1 - 1 / 1.701, rel=1e-6)
    assert float(soft_tversky_loss(alarmed, TRUTH)) == pytest.approx(1 - 2 / 2.301, rel=1e-6)


def test_three_classes_by_hand() -> None:
    logits = torch.log(torch.tensor([[[[0.5, 0.2]], [[0.25, 0.7]], [[0.25, 0.1]]]]))  # 1x3x1x2
    truth = torch.tensor([[[[0, 1]]]])
    entropies = [-math.log(0.5), -math.log(0.7)]
    assert float(cross_entropy(logits, truth)) == pytest.approx(sum(entropies) / 2, rel=1e-6)
    assert float(cross_entropy(logits, truth, class_weights=[3, 1, 9])) == pytest.approx(
        (3 * entropies[0] + entropies[1]) / 4, rel=1e-6
    )
    # class 0: TP 0.5, FP 0.2, FN 0.5; class 1: TP 0.7, FP 0.25, FN 0.3; class 2 is absent: mean 0.175
    dices = [1 - 1 / 1.7, 1 - 1.4 / 1.95, 0.175]
    assert float(soft_dice_loss(logits, truth, smooth=0.0)) == pytest.approx(sum(dices) / 3, rel=1e-6)
    assert float(soft_dice_loss(logits, truth, smooth=0.0, class_weights=[0, 1, 3])) == pytest.approx(
        (dices[1] + 3 * dices[2]) / 4, rel=1e-6
    )
    focal = (0.75 * 0.5**2 * entropies[0] + 0.25 * 0.3**2 * entropies[1]) / 2
    assert float(focal_loss(logits, truth)) == pytest.approx(focal, rel=1e-5)


# Against other implementations


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_cross_entropy_is_that_of_torch_with_the_rest_ignored(seed: int) -> None:
    logits, truth, valid = (torch.tensor(values) for values in draw(seed, 4))
    weights = torch.tensor([0.2, 1.0, 3.0, 0.5], dtype=torch.float64)
    ignored = torch.where(valid > 0, truth, -100)[:, 0]
    expected = F.cross_entropy(logits, ignored, weights, ignore_index=-100)
    assert float(cross_entropy(logits, truth, valid, class_weights=weights.tolist())) == pytest.approx(
        float(expected)
    )


@settings(max_examples=15, deadline=None)
@given(seeds, st.sampled_from([0.0, 1.0, 2.0, 3.5]), st.sampled_from([None, 0.25, 0.8]))
def test_two_classes_cost_what_the_binary_focal_loss_does(
    seed: int, gamma: float, alpha: float | None
) -> None:
    logits, truth, valid = (torch.tensor(values) for values in draw(seed, 1))
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    assert float(focal_loss(two, truth, valid, alpha=alpha, gamma=gamma)) == pytest.approx(
        float(focal_loss(logits, truth, valid, alpha=alpha, gamma=gamma)), rel=1e-9
    )


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_a_focal_loss_without_focus_is_cross_entropy(seed: int) -> None:
    logits, truth, valid = (torch.tensor(values) for values in draw(seed, 1))
    assert float(focal_loss(logits, truth, valid, alpha=None, gamma=0)) == pytest.approx(
        float(binary_cross_entropy(logits, truth, valid)), rel=1e-9
    )
    logits, truth, valid = (torch.tensor(values) for values in draw(seed, 3))
    weights = [1.0, 2.0, 5.0]
    assert float(focal_loss(logits, truth, valid, gamma=0, class_weights=weights)) == pytest.approx(
        float(cross_entropy(logits, truth, valid, class_weights=weights)), rel=1e-9
    )


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_where_every_image_has_positives_the_losses_are_those_of_change_detection(seed: int) -> None:
    logits, truth, valid = (torch.tensor(values).double() for values in draw(seed, 1))
    truth[:, 0, 0, 0] = 1
    probability = logits.sigmoid()
    assert float(soft_dice_loss(logits, truth, valid)) == pytest.approx(
        float(dice_loss(probability, truth, valid, eps=1e-5)), rel=1e-9
    )
    assert float(soft_tversky_loss(logits, truth, valid)) == pytest.approx(
        float(tversky_loss(probability, truth, valid, false_positive=0.3, false_negative=0.7)), rel=1e-9
    )
    assert float(focal_tversky_loss(logits, truth, valid, gamma=1)) == pytest.approx(
        float(soft_tversky_loss(logits, truth, valid)), rel=1e-9
    )


# Gradients


@every_loss
@pytest.mark.parametrize("partly", [False, True])
def test_the_gradient_is_that_of_finite_differences(name: LossName, classes: int, partly: bool) -> None:
    logits, truth, valid = draw(5, classes, shape=(2, 2, 3))  # the last image holds class 0 alone
    values, target, counted = tensors(logits, truth, valid if partly else None)
    weights = [0.5, 1.0, 3.0] if classes > 1 and partly else None
    loss = build_segmentation_loss(name, classes=classes, class_weights=weights, **OPTIONS)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, counted), values.requires_grad_())


def uniform(classes: int, true: int, side: int = 6) -> Tensor:
    """Return a truth of one class alone."""
    return torch.full((2, 1, side, side), true, dtype=torch.int64 if classes > 1 else torch.float32)


def saying(classes: int, one: int, strength: float, side: int = 6) -> Tensor:
    """Return logits for one class everywhere."""
    if classes == 1:
        return torch.full((2, 1, side, side), strength if one else -strength)
    logits = torch.full((2, classes, side, side), -strength / 2)
    logits[:, one] = strength / 2
    return logits


@every_loss
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("strength", [20.0, 1000.0])
def test_empty_and_full_masks_cost_nothing_where_they_are_predicted(
    name: LossName, classes: int, full: bool, strength: float
) -> None:
    true = max(classes - 1, 1) if full else 0
    logits = saying(classes, true, strength).requires_grad_()
    value = build_segmentation_loss(name, classes=classes)(logits, uniform(classes, true))
    value.backward()
    assert 0 <= float(value.detach()) < 1e-3
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() < 1e-3


@every_loss
@pytest.mark.parametrize("full", [False, True])
def test_empty_and_full_masks_have_a_gradient_towards_them_where_something_else_is_predicted(
    name: LossName, classes: int, full: bool
) -> None:
    true, other = (max(classes - 1, 1), 0) if full else (0, max(classes - 1, 1))
    logits = saying(classes, other, 2.0).requires_grad_()
    value = build_segmentation_loss(name, classes=classes)(logits, uniform(classes, true))
    value.backward()
    assert float(value.detach()) > 0.1
    assert logits.grad is not None
    # raising what is said of the other class costs more, at every pixel
    towards = logits.grad[:, other] if classes > 1 else logits.grad * (-1 if full else 1)
    assert (towards > 1e-5).all()


@every_loss
@pytest.mark.parametrize("full", [False, True])
def test_logits_that_are_surely_wrong_have_a_finite_loss_and_gradient(
    name: LossName, classes: int, full: bool
) -> None:
    true, other = (max(classes - 1, 1), 0) if full else (0, max(classes - 1, 1))
    logits = saying(classes, other, 1000.0).requires_grad_()
    value = build_segmentation_loss(name, classes=classes)(logits, uniform(classes, true))
    value.backward()
    assert math.isfinite(float(value.detach()))
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", REGIONS)
def test_a_sample_without_positives_costs_its_mean_probability(name: LossName) -> None:
    probability = torch.tensor([[[[0.9, 0.1], [0.4, 0.2]]]])
    expected = 0.4**0.75 if name == "focal_tversky" else 0.4
    value = build_segmentation_loss(name, classes=1)(probability.logit(), torch.zeros(1, 1, 2, 2))
    assert float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", REGIONS)
def test_a_class_that_is_not_there_is_pulled_down_where_it_is_predicted(name: LossName) -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 2] = 1.0
    logits.requires_grad_()
    loss = build_segmentation_loss(name, classes=3, class_weights=[0, 0, 1])
    loss(logits, torch.tensor([[[[0, 1], [1, 0]]]])).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 2] > 0).all()
    assert (logits.grad[:, :2] < 0).all()


@every_loss
def test_descending_the_loss_leads_to_the_truth(name: LossName, classes: int) -> None:
    values, truth, _ = tensors(*draw(9, classes)[:2], None)  # the last image of class 0 alone, or nearly
    logits = values.float().requires_grad_()
    loss = build_segmentation_loss(name, classes=classes)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(40):
        optimizer.zero_grad()
        loss(logits, truth).backward()
        optimizer.step()
    predicted = logits.argmax(1, keepdim=True) if classes > 1 else logits > 0
    assert (predicted == truth).all()


# Pixels that do not count


@every_loss
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_what_is_said_and_true_where_nothing_counts_does_not_matter(
    name: LossName, classes: int, seed: int
) -> None:
    values, truth, valid = tensors(*draw(seed, classes))
    assert valid is not None
    logits = values.clone().requires_grad_()
    loss = build_segmentation_loss(name, classes=classes, **OPTIONS)
    value = loss(logits, truth, valid)
    value.backward()
    assert logits.grad is not None
    outside = (valid == 0).expand_as(logits)
    assert not logits.grad[outside].any()
    assert logits.grad[~outside].any()
    void = torch.where(valid > 0, truth, 255)
    elsewhere = torch.where(outside, 30 - values, values)
    assert float(loss(elsewhere, void, valid)) == pytest.approx(float(value.detach()), rel=1e-9)


@every_loss
def test_where_all_pixels_count_the_mask_changes_nothing(name: LossName, classes: int) -> None:
    logits, truth, _ = tensors(*draw(3, classes))
    loss = build_segmentation_loss(name, classes=classes)
    everything = torch.ones(truth.shape)
    assert float(loss(logits, truth, everything)) == pytest.approx(float(loss(logits, truth)), rel=1e-12)


@every_loss
def test_a_batch_in_which_nothing_counts_costs_nothing(name: LossName, classes: int) -> None:
    values, truth, _ = tensors(*draw(3, classes))
    logits = values.requires_grad_()
    value = build_segmentation_loss(name, classes=classes)(logits, truth, torch.zeros(truth.shape))
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-5)  # focal Tversky: (1e-7)^0.75
    assert logits.grad is not None
    assert not logits.grad.any()


# Class weights


@pytest.mark.parametrize("name", SEVERAL)
def test_the_scale_of_the_class_weights_does_not_matter(name: LossName) -> None:
    sample = tensors(*draw(4, 3))
    small, large = (
        build_segmentation_loss(name, classes=3, class_weights=[scale, 2 * scale, 5 * scale])
        for scale in (1e-6, 1e3)
    )
    assert float(small(*sample)) == pytest.approx(float(large(*sample)), rel=1e-9)


@pytest.mark.parametrize("name", [name for name in SEVERAL if "focal" not in name or "tversky" in name])
def test_equal_class_weights_are_none(name: LossName) -> None:
    sample = tensors(*draw(4, 3))
    equal = build_segmentation_loss(name, classes=3, class_weights=[2, 2, 2])
    assert float(equal(*sample)) == pytest.approx(float(build_segmentation_loss(name, classes=3)(*sample)))


# Half precision


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(
    name: LossName, classes: int, dtype: torch.dtype
) -> None:
    # 90,000 pixels: their sum is beyond float16
    true = max(classes - 1, 1)
    logits = saying(classes, true, 4.0, side=300).to(dtype).requires_grad_()
    truth = uniform(classes, true, side=300)
    loss = build_segmentation_loss(name, classes=classes)
    value = loss(logits, truth)
    value.backward()
    assert value.dtype == torch.float32
    expected = loss(logits.detach().double(), truth)
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@every_loss
def test_autocast_changes_nothing(name: LossName, classes: int) -> None:
    values, truth, valid = tensors(*draw(7, classes))
    logits = values.float()
    loss = build_segmentation_loss(name, classes=classes)
    outside = loss(logits, truth, valid)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(logits, truth, valid)
    assert inside.dtype == torch.float32
    assert float(inside) == float(outside)


@every_loss
def test_not_a_number_is_not_hidden(name: LossName, classes: int) -> None:
    logits = torch.full((1, classes, 2, 2), math.nan)
    assert math.isnan(
        float(build_segmentation_loss(name, classes=classes)(logits, uniform(classes, 0, side=2)[:1]))
    )


@every_loss
def test_a_loss_can_be_sent_to_another_process(name: LossName, classes: int) -> None:
    sample = tensors(*draw(8, classes))
    loss = build_segmentation_loss(name, classes=classes)
    assert float(pickle.loads(pickle.dumps(loss))(*sample)) == float(loss(*sample))


# What is refused


@every_loss
@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (1, 1, 4, 5), (1, 4, 4), (1, 2, 4, 4)])
def test_unequal_shapes_are_refused_with_both_in_the_message(
    name: LossName, classes: int, shape: tuple[int, ...]
) -> None:
    loss = build_segmentation_loss(name, classes=classes)
    logits, truth = torch.zeros(1, classes, 4, 4), uniform(classes, 0, side=4)[:1]
    with pytest.raises(ValueError, match=rf"\(1, {classes}, 4, 4\) and truth") as caught:
        loss(logits, torch.zeros(shape, dtype=truth.dtype))
    assert str(shape) in str(caught.value)
    with pytest.raises(ValueError, match=rf"\(1, {classes}, 4, 4\) and valid") as caught:
        loss(logits, truth, torch.ones(shape))
    assert str(shape) in str(caught.value)


@every_loss
def test_logits_of_another_number_of_classes_are_refused(name: LossName, classes: int) -> None:
    loss = build_segmentation_loss(name, classes=classes)
    with pytest.raises(ValueError, match=rf"\(1, {classes + 1}, 4, 4\) are not Nx{classes}xHxW"):
        loss(torch.zeros(1, classes + 1, 4, 4), uniform(classes, 0, side=4)[:1])


def test_cross_entropies_refuse_each_others_logits() -> None:
    with pytest.raises(ValueError, match="use cross_entropy"):
        binary_cross_entropy(torch.zeros(1, 2, 2, 2), uniform(2, 0, side=2)[:1])
    with pytest.raises(ValueError, match="use binary_cross_entropy"):
        cross_entropy(torch.zeros(1, 1, 2, 2), uniform(1, 0, side=2)[:1])


@pytest.mark.parametrize("name", SEVERAL)
def test_indices_must_be_whole_numbers_below_the_number_of_classes(name: LossName) -> None:
    loss = build_segmentation_loss(name, classes=3)
    with pytest.raises(ValueError, match=r"int64 class indices, not torch\.float32"):
        loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        loss(torch.zeros(1, 3, 2, 2), torch.full((1, 1, 2, 2), 3))


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, math.nan, 1.0]])
def test_class_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="not 3 class weights"):
        build_segmentation_loss("dice", classes=3, class_weights=weights)
    with pytest.raises(ValueError, match="not 3 class weights"):
        soft_dice_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2).long(), class_weights=weights)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bce_dice", {"classes": 3}, "bce_dice is not for 3 classes"),
        ("ce", {"classes": 1}, "ce is not for 1 classes"),
        ("dice", {"classes": 0}, "dice is not for 0 classes"),
        ("dice", {"classes": 1, "class_weights": [1.0]}, "for 2 classes or more"),
        ("dicey", {"classes": 1}, "no loss 'dicey'; there are bce, ce, dice"),
    ],
)
def test_a_loss_that_cannot_be_built_is_refused(
    name: LossName, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_segmentation_loss(name, **options)


@pytest.mark.parametrize("gamma", [-1.0, 0.5])
def test_exponents_without_a_finite_gradient_are_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=f"gamma is {gamma}"):
        focal_loss(EVEN, TRUTH, gamma=gamma)
    with pytest.raises(ValueError, match=f"gamma is {gamma}"):
        focal_tversky_loss(EVEN, TRUTH, gamma=gamma)
