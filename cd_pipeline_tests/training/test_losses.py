import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.training.losses import ChangeLoss, balanced_pos_weight, dice_loss, tversky_loss

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Array = npt.NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, spread: float = 4.0, shape: tuple[int, ...] = (3, 1, 5, 6)) -> tuple[Array, Array]:
    """Draw logits and a truth in which every image has a changed pixel."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(shape) < rng.uniform(0.05, 0.95)).astype(np.float64)
    truth[:, 0, 0, 0] = 1
    return rng.normal(0, spread, shape), truth


def reference_loss(logits: Array, truth: Array, pos_weight: float) -> float:
    """0.6 BCE + 0.4 (1 - mean Tversky), pixel by pixel from the published formula."""
    p = 1 / (1 + np.exp(-np.clip(logits, -15, 15)))
    bce = -(pos_weight * truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    indices = []
    for image, changed in zip(p, truth, strict=True):
        tp, fp, fn = (image * changed).sum(), (image * (1 - changed)).sum(), ((1 - image) * changed).sum()
        indices.append(tp / (tp + 0.7 * fp + 0.3 * fn + 1e-3))
    return float(0.6 * bce + 0.4 * (1 - np.mean(indices)))


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(1, 10), st.floats(0.1, 30))
def test_the_loss_follows_the_published_formula(seed: int, pos_weight: float, spread: float) -> None:
    logits, truth = draw(seed, spread)
    ours = ChangeLoss(pos_weight=pos_weight)(torch.tensor(logits), torch.tensor(truth).float())
    assert float(ours) == pytest.approx(reference_loss(logits, truth, pos_weight), rel=1e-3, abs=1e-5)


def test_the_weights_and_penalties_can_be_set() -> None:
    logits, truth = torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    loss = ChangeLoss(pos_weight=1, bce_weight=1, tversky_weight=2, false_positive=0.2, false_negative=0.6)
    # BCE ln 2; TP, FP and FN are 0.5 each: 0.5 / (0.5 + 0.1 + 0.3 + 0.001)
    assert float(loss(logits, truth)) == pytest.approx(math.log(2) + 2 * (1 - 0.5 / 0.901), rel=1e-6)


def test_tversky_of_a_hand_made_batch() -> None:
    truth = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]], [[[1.0, 0.0, 0.0, 0.0]]]])
    probability = torch.tensor([[[[1.0, 0.5, 0.5, 0.0]]], [[[1.0, 1.0, 1.0, 0.0]]]])
    # TP 1.5 FP 0.5 FN 0.5, and TP 1 FP 2 FN 0
    expected = ((1 - 1.5 / (1.5 + 0.35 + 0.15 + 0.001)) + (1 - 1 / (1 + 1.4 + 0.001))) / 2
    assert float(tversky_loss(probability, truth)) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_tversky_lies_between_zero_and_one_and_is_lowest_at_the_truth(seed: int) -> None:
    logits, truth = (torch.tensor(values) for values in draw(seed))
    value = float(tversky_loss(logits.sigmoid(), truth))
    assert 0 <= float(tversky_loss(truth, truth)) <= value <= 1


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_the_order_of_images_does_not_matter(seed: int) -> None:
    logits, truth = (torch.tensor(values).float() for values in draw(seed))
    loss = ChangeLoss(pos_weight=3.0)
    order = [2, 0, 1]
    assert float(loss(logits[order], truth[order])) == pytest.approx(float(loss(logits, truth)), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_false_alarms_cost_more_than_misses_of_the_same_size(seed: int) -> None:
    pixels = int(np.random.default_rng(seed).integers(1, 8))
    truth = torch.zeros(1, 1, 4, 8)
    truth[..., :16].view(-1)[:16] = 1
    missed, alarmed = truth.clone(), truth.clone()
    missed.view(-1)[:pixels] = 0
    alarmed.view(-1)[16 : 16 + pixels] = 1
    assert float(tversky_loss(alarmed, truth)) > float(tversky_loss(missed, truth)) > 0.001


def test_an_image_without_change_costs_nothing_where_nothing_is_predicted() -> None:
    empty = torch.zeros(2, 1, 4, 4)
    assert float(tversky_loss(empty, empty)) == 0
    assert float(ChangeLoss(pos_weight=10.0)(empty - 15, empty)) < 1e-6


def test_an_image_without_change_still_pulls_its_probabilities_down() -> None:
    probability = torch.tensor([[[[0.9, 0.1], [0.5, 0.0]]]], requires_grad=True)
    value = tversky_loss(probability, torch.zeros(1, 1, 2, 2))
    value.backward()
    assert float(value.detach()) == pytest.approx(1.5 / 4)
    assert probability.grad is not None
    assert (probability.grad > 0).all()


def test_images_with_and_without_change_are_averaged() -> None:
    probability, truth = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, 1, 2, 2)
    truth[0] = 1
    expected = ((1 - 2 / (2 + 0.3 * 2 + 1e-3)) + 0.5) / 2
    assert float(tversky_loss(probability, truth)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("beyond", [16.0, 1e4, math.inf])
def test_logits_beyond_15_count_as_15(sign: int, beyond: float) -> None:
    truth = torch.tensor([[[[1.0, 0.0, 1.0]]]])
    loss = ChangeLoss(pos_weight=2.0)
    at_the_limit = loss(torch.full((1, 1, 1, 3), 15.0 * sign), truth)
    assert float(loss(torch.full((1, 1, 1, 3), beyond * sign), truth)) == float(at_the_limit)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    # 90,000 pixels: their sum is beyond float16
    logits = torch.full((2, 1, 300, 300), 4.0, dtype=dtype, requires_grad=True)
    truth = torch.ones(2, 1, 300, 300)
    value = ChangeLoss(pos_weight=10.0)(logits, truth)
    value.backward()
    assert value.dtype == torch.float32
    expected = reference_loss(np.full((2, 1, 300, 300), 4.0), np.ones((2, 1, 300, 300)), 10.0)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_not_a_number_is_not_hidden() -> None:
    assert math.isnan(
        float(ChangeLoss(pos_weight=1.0)(torch.full((1, 1, 2, 2), math.nan), torch.ones(1, 1, 2, 2)))
    )


@pytest.mark.parametrize("empty", [False, True])
def test_the_gradient_of_tversky_is_that_of_finite_differences(empty: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand((2, 1, 3, 4), generator=generator, dtype=torch.float64) * 0.8 + 0.1
    truth = (torch.rand((2, 1, 3, 4), generator=generator) > 0.5).double()
    if empty:
        truth[1] = 0
    assert torch.autograd.gradcheck(lambda p: tversky_loss(p, truth), probability.requires_grad_())


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (1, 1, 4, 5), (1, 4, 4)])
def test_unequal_shapes_are_refused_with_both_in_the_message(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\).*differ in shape"):
        tversky_loss(torch.zeros(1, 1, 4, 4), torch.zeros(shape))
    with pytest.raises(ValueError, match=r"1, 1, 4, 4"):
        ChangeLoss(pos_weight=1.0)(torch.zeros(1, 1, 4, 4), torch.zeros(shape))


@pytest.mark.parametrize(
    ("positive", "total", "expected"),
    [
        (100, 1000, 3.0),
        (500, 1000, 1.0),
        (1, 2, 1.0),
        (200, 1000, 2.0),
        (1, 101, 10.0),
        (1, 5000, 10.0),
        (0, 50, 10.0),
    ],
)
def test_the_positive_weight_is_the_root_of_the_ratio_up_to_ten(
    positive: int, total: int, expected: float
) -> None:
    assert balanced_pos_weight(positive, total, 10.0) == pytest.approx(expected)


def test_the_positive_weight_moves_with_the_loss() -> None:
    assert "pos_weight" in ChangeLoss(pos_weight=2.0).state_dict()


def counted(seed: int) -> Array:
    """Draw which pixels count; in every image the first one, which is changed, does."""
    valid = (np.random.default_rng([seed, 1]).random((3, 1, 5, 6)) < 0.6).astype(np.float64)
    valid[:, 0, 0, 0] = 1
    return valid


def loss_of_counted(logits: Array, truth: Array, valid: Array, pos_weight: float) -> float:
    """0.6 BCE + 0.4 Tversky, one pixel after the other, over those that count alone."""
    bce, images = [], []
    for image, changed, counts in zip(logits, truth, valid, strict=True):
        tp = fp = fn = 0.0
        probabilities = []
        for logit, t, v in zip(image.ravel(), changed.ravel(), counts.ravel(), strict=True):
            if not v:
                continue
            p = 1 / (1 + math.exp(-min(max(logit, -15), 15)))
            bce.append(-pos_weight * math.log(p) if t else -math.log(1 - p))
            tp, fp, fn = tp + p * t, fp + p * (1 - t), fn + (1 - p) * t
            probabilities.append(p)
        has_change = any(t and v for t, v in zip(changed.ravel(), counts.ravel(), strict=True))
        images.append(
            1 - tp / (tp + 0.7 * fp + 0.3 * fn + 1e-3)
            if has_change
            else sum(probabilities) / len(probabilities)
        )
    return 0.6 * sum(bce) / len(bce) + 0.4 * sum(images) / len(images)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(1, 10))
def test_the_loss_is_that_of_the_pixels_that_count(seed: int, pos_weight: float) -> None:
    logits, truth = draw(seed)
    valid = counted(seed)
    truth[2] *= 1 - valid[2]  # an image whose changes do not count is one without change
    ours = ChangeLoss(pos_weight=pos_weight)(
        torch.tensor(logits), torch.tensor(truth).float(), torch.tensor(valid).float()
    )
    assert float(ours) == pytest.approx(loss_of_counted(logits, truth, valid, pos_weight), rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_what_is_predicted_where_nothing_counts_does_not_matter(seed: int) -> None:
    values, truth = (torch.tensor(array).float() for array in draw(seed))
    valid = torch.tensor(counted(seed)).float()
    values = values.clamp(-10, 10)  # beyond 15 there is no gradient anywhere
    logits = values.clone().requires_grad_()
    loss = ChangeLoss(pos_weight=2.0)
    value = loss(logits, truth, valid)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[valid == 0].any()
    assert (logits.grad[valid == 1] != 0).all()
    elsewhere = torch.where(valid > 0, values, -values)
    assert float(loss(elsewhere, torch.where(valid > 0, truth, 1 - truth), valid)) == pytest.approx(
        float(value.detach()), rel=1e-6
    )


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_where_all_pixels_count_the_loss_is_the_published_one(seed: int) -> None:
    logits, truth = (torch.tensor(array).float() for array in draw(seed))
    loss = ChangeLoss(pos_weight=3.0)
    assert float(loss(logits, truth, torch.ones_like(truth))) == pytest.approx(
        float(loss(logits, truth)), rel=1e-6
    )
    assert float(tversky_loss(logits.sigmoid(), truth, torch.ones_like(truth))) == pytest.approx(
        float(tversky_loss(logits.sigmoid(), truth)), rel=1e-6
    )


def test_a_batch_in_which_nothing_counts_costs_nothing() -> None:
    logits = torch.full((2, 1, 3, 3), 2.0, requires_grad=True)
    value = ChangeLoss(pos_weight=2.0)(logits, torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3))
    value.backward()
    assert float(value.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def loop_of_dice(probability: Array, truth: Array, valid: Array | None = None) -> float:
    """Mean over images of 1 - (2 TP + eps) / (sums + eps), one pixel after the other."""
    losses = []
    for number, (image, changed) in enumerate(zip(probability, truth, strict=True)):
        both = total = 0.0
        for place in np.ndindex(*image.shape):
            if valid is None or valid[number][place]:
                both += image[place] * changed[place]
                total += image[place] + changed[place]
        losses.append(1 - (2 * both + 1e-6) / (total + 1e-6))
    return sum(losses) / len(losses)


@settings(max_examples=40, deadline=None)
@given(seeds, st.booleans())
def test_dice_is_that_of_a_loop_over_the_pixels_that_count(seed: int, partly: bool) -> None:
    logits, truth = draw(seed)
    probability, valid = 1 / (1 + np.exp(-logits)), counted(seed) if partly else None
    ours = dice_loss(
        torch.tensor(probability), torch.tensor(truth), None if valid is None else torch.tensor(valid)
    )
    assert float(ours) == pytest.approx(loop_of_dice(probability, truth, valid), rel=1e-9)


def test_dice_of_images_worked_out_by_hand() -> None:
    truth = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]], [[[1.0, 0.0, 0.0, 0.0]]]])
    probability = torch.tensor([[[[1.0, 0.5, 0.5, 0.0]]], [[[1.0, 1.0, 1.0, 0.0]]]])
    # 2 * 1.5 of 2 + 2, and 2 * 1 of 3 + 1
    assert float(dice_loss(probability, truth)) == pytest.approx((1 - 3 / 4 + 1 - 2 / 4) / 2, rel=1e-6)
    assert float(dice_loss(truth, truth)) == 0
    assert float(dice_loss(1 - truth, truth)) == pytest.approx(1, abs=1e-6)


def test_dice_of_an_image_without_change_is_0_for_an_empty_prediction_and_all_but_1_otherwise() -> None:
    empty = torch.zeros(1, 1, 4, 4)
    assert float(dice_loss(empty, empty)) == 0
    assert float(dice_loss(empty + 0.01, empty)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("case", ["all", "valid", "empty"])
def test_the_gradient_of_dice_is_that_of_finite_differences(case: str) -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand((2, 1, 3, 4), generator=generator, dtype=torch.float64) * 0.8 + 0.1
    truth = (torch.rand((2, 1, 3, 4), generator=generator) > 0.5).double()
    valid = (torch.rand((2, 1, 3, 4), generator=generator) > 0.4).double() if case == "valid" else None
    if case == "empty":
        truth[1] = 0
    assert torch.autograd.gradcheck(lambda p: dice_loss(p, truth, valid), probability.requires_grad_())


def test_what_dice_leaves_out_has_no_gradient() -> None:
    probability, truth = (torch.tensor(values) for values in draw(3, spread=0.2))
    probability = probability.sigmoid().requires_grad_()
    valid = torch.tensor(counted(3))
    dice_loss(probability, truth, valid).backward()  # type: ignore[no-untyped-call]
    assert probability.grad is not None
    assert not probability.grad[valid == 0].any()
    assert (probability.grad[valid == 1] != 0).all()


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (1, 1, 4, 5), (1, 4, 4)])
def test_dice_refuses_unequal_shapes_with_both_in_the_message(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\).*differ in shape") as caught:
        dice_loss(torch.zeros(1, 1, 4, 4), torch.zeros(shape))
    assert str(shape) in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(seeds, st.booleans())
def test_the_loss_of_the_siamese_network_is_cross_entropy_plus_dice(seed: int, partly: bool) -> None:
    logits, truth = draw(seed)
    valid = counted(seed) if partly else np.ones_like(truth)
    loss = ChangeLoss(pos_weight=1.0, bce_weight=1.0, tversky_weight=0.0, dice_weight=1.0)
    ours = loss(torch.tensor(logits), torch.tensor(truth).float(), torch.tensor(valid).float())
    p = 1 / (1 + np.exp(-np.clip(logits, -15, 15)))
    bce = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))[valid > 0].mean()
    assert float(ours) == pytest.approx(float(bce) + loop_of_dice(p, truth, valid), rel=1e-4)


def test_a_loss_of_dice_alone_is_weighted_dice() -> None:
    logits, truth = (torch.tensor(values).float() for values in draw(11))
    loss = ChangeLoss(pos_weight=5.0, bce_weight=0.0, tversky_weight=0.0, dice_weight=2.5)
    assert float(loss(logits, truth)) == pytest.approx(
        2.5 * float(dice_loss(logits.sigmoid(), truth)), rel=1e-5
    )


def test_by_default_dice_has_no_say() -> None:
    logits, truth = (torch.tensor(values).float() for values in draw(12))
    without = ChangeLoss(pos_weight=2.0, dice_weight=0.0)
    assert float(ChangeLoss(pos_weight=2.0)(logits, truth)) == float(without(logits, truth))
