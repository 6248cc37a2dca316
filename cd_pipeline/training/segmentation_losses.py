"""The losses of binary and multi-class segmentation, on logits, with pixels that do not count left out.

One form everywhere:

- logits: Nx1xHxW (binary, sigmoid) or NxCxHxW with C >= 2 (multi-class, softmax), of any float type.
  All is computed in float32 (float64 logits stay float64), under autocast too.
- truth: Nx1xHxW; 0 or 1 (binary), or int64 class indices 0..C-1 (multi-class). Where a pixel does not
  count the truth may be anything, a void index of 255 for example.
- valid: Nx1xHxW, 1 where a pixel counts and 0 where it does not; None: all count.

Cross-entropy and focal loss are means over the pixels of the batch that count. Dice and Tversky are
computed per image and class, each class against the rest, then averaged; a class that an image does not
hold costs its mean probability there, as in cd_pipeline.training.losses.tversky_loss: 0 where it is not
predicted, and a gradient that pulls it down where it is. A batch in which nothing counts costs 0.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from cd_pipeline.training.losses import dice_loss, tversky_loss
from cd_pipeline.training.settings import LossName

ClassWeights = Sequence[float] | None
"""One weight of 0 or more for each class, of any scale: every loss divides by their sum. None: all equal."""
Term = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A loss of logits, truth and valid."""
PlaneLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A loss of the probabilities, the truth and the pixels that count of one class of one image, 1x1xHxW."""

FOCAL_TVERSKY_FLOOR = 1e-7
"""A Tversky loss below this is taken as this: the slope of x^0.75 is infinite at 0."""


def binary_cross_entropy(
    logits: Tensor, truth: Tensor, valid: Tensor | None = None, *, pos_weight: float = 1.0
) -> Tensor:
    """Return the mean of -(pos_weight * t * log p + (1 - t) * log(1 - p)) over the pixels that count.

    As torch.nn.functional.binary_cross_entropy_with_logits, over those pixels alone.

    Args:
        logits: Nx1xHxW.
        truth: Nx1xHxW, 0 or 1.
        valid: Nx1xHxW, 0 where a pixel does not count; None: all count.
        pos_weight: how often a positive pixel counts.

    Raises:
        ValueError: the shapes do not fit.

    >>> truth = torch.tensor([[[[1.0, 0.0]]]])
    >>> round(binary_cross_entropy(torch.zeros(1, 1, 1, 2), truth).item(), 4)  # ln 2
    0.6931
    """
    logits, truth, counted = _prepared(logits, truth, valid)
    if logits.shape[1] > 1:
        raise ValueError(f"logits {tuple(logits.shape)} have several channels: use cross_entropy")
    weight = logits.new_tensor(pos_weight)
    return _mean(
        F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight, reduction="none"), counted
    )


def cross_entropy(
    logits: Tensor, truth: Tensor, valid: Tensor | None = None, *, class_weights: ClassWeights = None
) -> Tensor:
    """Return sum(w_t * -log p_t) / sum(w_t) over the pixels that count, t being the true class.

    As torch.nn.functional.cross_entropy, which gives NaN where nothing counts; this gives 0.

    Args:
        logits: NxCxHxW, C >= 2.
        truth: Nx1xHxW, int64 class indices.
        valid: Nx1xHxW, 0 where a pixel does not count; None: all count.
        class_weights: one for each class.

    Raises:
        ValueError: the shapes or the number of weights do not fit.

    >>> truth = torch.tensor([[[[3, 0]]]])
    >>> round(cross_entropy(torch.zeros(1, 4, 1, 2), truth).item(), 4)  # ln 4
    1.3863
    """
    logits, truth, counted = _prepared(logits, truth, valid)
    if logits.shape[1] == 1:
        raise ValueError(f"logits {tuple(logits.shape)} have one channel: use binary_cross_entropy")
    return _mean(_entropy(logits, truth), counted * _weights_of(logits, class_weights)[truth])


def focal_loss(
    logits: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    class_weights: ClassWeights = None,
) -> Tensor:
    """Return the mean of -alpha_t * (1 - p_t)^gamma * log p_t over the pixels that count.

    Lin et al. 2017, Focal Loss for Dense Object Detection (arXiv 1708.02002). Binary: p_t is the
    probability of the true side; torchvision.ops.sigmoid_focal_loss. Multi-class: p_t is the softmax
    probability of the true class, and class 0 is the background, with 1 - alpha, as in MONAI: two classes
    with logits (0, z) cost what the binary loss of z does.

    Args:
        logits: Nx1xHxW or NxCxHxW.
        truth: Nx1xHxW, 0 or 1, or int64 class indices.
        valid: Nx1xHxW, 0 where a pixel does not count; None: all count.
        alpha: alpha_t is alpha for positives (every class but 0) and 1 - alpha for negatives (class 0);
            None: 1 for all.
        gamma: 0, or 1 and more: in between, the gradient of a pixel that is surely right is not finite.
        class_weights: multi-class only; they stand in for alpha, and the sum is divided by the weights of
            the pixels that count, as in cross_entropy.

    Raises:
        ValueError: the shapes, gamma or the number of weights do not fit.

    >>> truth = torch.tensor([[[[1.0, 0.0]]]])  # each pixel: 0.5^2 * ln 2, times 0.25 and 0.75
    >>> round(focal_loss(torch.zeros(1, 1, 1, 2), truth).item(), 4)
    0.0866
    """
    logits, truth, counted = _prepared(logits, truth, valid)
    weights = _weights_of(logits, class_weights)
    if gamma < 0 or 0 < gamma < 1:
        raise ValueError(f"gamma is {gamma}: it must be 0, or 1 and more")
    if logits.shape[1] == 1:
        return _mean(
            sigmoid_focal_loss(logits, truth, alpha=-1 if alpha is None else alpha, gamma=gamma), counted
        )
    entropy = _entropy(logits, truth)
    focal = (-torch.expm1(-entropy)) ** gamma * entropy  # p_t = exp(-entropy)
    if class_weights is not None:
        return _mean(focal, counted * weights[truth])
    if alpha is not None:
        focal = focal * logits.new_tensor([1 - alpha] + [alpha] * (len(weights) - 1))[truth]
    return _mean(focal, counted)


def soft_dice_loss(
    logits: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    *,
    class_weights: ClassWeights = None,
    smooth: float = 1e-5,
) -> Tensor:
    """Return the mean over images of sum(w_c * D_c) / sum(w_c).

    D_c = 1 - (2*TP + smooth) / (sum of probabilities + sum of truth + smooth), as
    cd_pipeline.training.losses.dice_loss, for a class that the image holds, and the mean probability of c
    for one that it does not: the formula would be all but 1 there whatever is predicted, and libraries
    that set it to 0 instead teach nothing about false alarms. Where an image holds few of many classes
    the loss is small for that reason; a weight of 0 leaves a class out, the background for example.

    Args:
        logits: Nx1xHxW (binary: the positive class alone) or NxCxHxW.
        truth: Nx1xHxW, 0 or 1, or int64 class indices.
        valid: Nx1xHxW, 0 where a pixel does not count; None: all count.
        class_weights: w, multi-class only.
        smooth: in numerator and denominator.

    Raises:
        ValueError: the shapes or the number of weights do not fit.

    >>> truth = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    >>> round(soft_dice_loss(torch.zeros(1, 1, 2, 2), truth).item(), 4)  # TP 1: 1 - 2 / (2 + 2)
    0.5
    >>> round(soft_dice_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item(), 4)
    0.5
    """

    def of_plane(probability: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
        dice = dice_loss(probability, truth, counted, eps=smooth)
        return torch.where((truth * counted).sum() > 0, dice, _mean(probability, counted))

    return _weighted_mean(_per_image_and_class(of_plane, logits, truth, valid), class_weights)


def soft_tversky_loss(
    logits: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    *,
    class_weights: ClassWeights = None,
    false_positive: float = 0.3,
    false_negative: float = 0.7,
) -> Tensor:
    """Return the mean over images of sum(w_c * T_c) / sum(w_c).

    T_c is cd_pipeline.training.losses.tversky_loss of class c against the rest: 1 - TP / (TP + a*FP +
    b*FN + 1e-3), and the mean probability of c where the image does not hold it. Salehi et al. 2017,
    Tversky loss function for image segmentation (arXiv 1706.05721).

    Args:
        logits: Nx1xHxW (binary: the positive class alone) or NxCxHxW.
        truth: Nx1xHxW, 0 or 1, or int64 class indices.
        valid: Nx1xHxW, 0 where a pixel does not count; None: all count.
        class_weights: w, multi-class only.
        false_positive: a.
        false_negative: b.

    Raises:
        ValueError: the shapes or the number of weights do not fit.

    >>> truth = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])  # TP, FP and FN are 1 each
    >>> round(soft_tversky_loss(torch.zeros(1, 1, 2, 2), truth).item(), 4)  # 1 - 1 / 2.001
    0.5002
    """
    losses = _tversky(logits, truth, valid, false_positive, false_negative)
    return _weighted_mean(losses, class_weights)


def focal_tversky_loss(
    logits: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    *,
    class_weights: ClassWeights = None,
    false_positive: float = 0.3,
    false_negative: float = 0.7,
    gamma: float = 4 / 3,
) -> Tensor:
    """Return the mean over images of sum(w_c * T_c^(1 / gamma)) / sum(w_c), T_c as in soft_tversky_loss.

    Abraham and Khan 2018, A novel focal Tversky loss function (arXiv 1810.07842): the exponent is 1 / gamma,
    gamma in [1, 3], best at 4/3; their program writes the exponent itself, 0.75. A gamma of 1.33 is
    therefore an exponent of 0.75, not of 1.33, which would turn the focus round. They sum over classes;
    the weighted mean here keeps its size whatever their number. The exponent applies to the mean
    probability of a class that is not there as well.

    Args:
        logits: Nx1xHxW (binary: the positive class alone) or NxCxHxW.
        truth: Nx1xHxW, 0 or 1, or int64 class indices.
        valid: Nx1xHxW, 0 where a pixel does not count; None: all count.
        class_weights: w, multi-class only.
        false_positive: a.
        false_negative: b.
        gamma: 1 and more; 1 is Tversky.

    Raises:
        ValueError: the shapes, gamma or the number of weights do not fit.

    >>> truth = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    >>> round(focal_tversky_loss(torch.zeros(1, 1, 2, 2), truth).item(), 4)  # 0.5002^0.75
    0.5948
    """
    if gamma < 1:
        raise ValueError(f"gamma is {gamma}: it must be 1 and more, for the exponent is 1 / gamma")
    losses = _tversky(logits, truth, valid, false_positive, false_negative)
    return _weighted_mean(losses.clamp(min=FOCAL_TVERSKY_FLOOR) ** (1 / gamma), class_weights)


class SegmentationLoss(nn.Module):
    """The sum of weight * term over (weight, term) pairs, for logits of a fixed number of classes."""

    def __init__(self, terms: Sequence[tuple[float, Term]], *, classes: int, pos_weight: float = 1.0) -> None:
        super().__init__()
        self.pos_weight = pos_weight
        self.terms = tuple(terms)
        self.classes = classes

    def forward(self, logits: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map logits NxCxHxW, truth and valid Nx1xHxW to a scalar; see the head of this file.

        Of a batch that processes share, each takes the mean over its own pixels.
        """
        if logits.ndim != 4 or logits.shape[1] != self.classes:
            raise ValueError(f"logits {tuple(logits.shape)} are not Nx{self.classes}xHxW")
        total = logits.new_zeros((), dtype=_precise(logits))
        for weight, term in self.terms:
            total = total + weight * term(logits, truth, valid)
        return total


def build_segmentation_loss(
    name: LossName,
    *,
    classes: int,
    class_weights: ClassWeights = None,
    pos_weight: float = 1.0,
    cross_entropy_weight: float = 0.5,
    smooth: float = 1e-5,
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    dice_share: float = 0.5,
    false_positive: float = 0.3,
    false_negative: float = 0.7,
    tversky_gamma: float = 4 / 3,
) -> SegmentationLoss:
    """Return the loss of that name; options that it does not have are not looked at.

    | name | formula |
    |---|---|
    | bce, ce, dice, focal, tversky, focal_tversky | the function of this file |
    | focal_dice | dice_share * dice + (1 - dice_share) * focal |
    | bce_dice | cross_entropy_weight * bce + dice |
    | ce_dice | cross_entropy_weight * ce + dice |
    | bce_tversky | cross_entropy_weight * bce + tversky |

    Args:
        name: the loss.
        classes: channels of the logits; 1 is binary.
        class_weights: of ce, dice, focal and Tversky, multi-class only.
        pos_weight: of bce.
        cross_entropy_weight: of bce or ce beside dice or Tversky.
        smooth: of dice.
        focal_alpha: of focal.
        focal_gamma: of focal.
        dice_share: of focal_dice, 0.3 to 0.7 in practice.
        false_positive: of Tversky.
        false_negative: of Tversky.
        tversky_gamma: of focal_tversky; the exponent is 1 / tversky_gamma.

    Raises:
        ValueError: no such loss, or not for so many classes; the number of weights does not fit.

    >>> loss = build_segmentation_loss("bce_dice", classes=1)
    >>> truth = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    >>> round(loss(torch.zeros(1, 1, 2, 2), truth).item(), 4)  # 0.5 * ln 2 + 0.5
    0.8466
    """
    _refuse_weights(classes, class_weights)
    if classes < 1 or (classes > 1 and name.startswith("bce")) or (classes == 1 and name.startswith("ce")):
        raise ValueError(f"{name} is not for {classes} classes: bce takes 1 (binary), ce takes 2 or more")
    bce = partial(binary_cross_entropy, pos_weight=pos_weight)
    ce = partial(cross_entropy, class_weights=class_weights)
    dice = partial(soft_dice_loss, class_weights=class_weights, smooth=smooth)
    focal = partial(focal_loss, alpha=focal_alpha, gamma=focal_gamma, class_weights=class_weights)
    tversky = partial(
        soft_tversky_loss,
        class_weights=class_weights,
        false_positive=false_positive,
        false_negative=false_negative,
    )
    focal_tversky = partial(
        focal_tversky_loss,
        class_weights=class_weights,
        false_positive=false_positive,
        false_negative=false_negative,
        gamma=tversky_gamma,
    )
    terms: dict[str, list[tuple[float, Term]]] = {
        "bce": [(1.0, bce)],
        "ce": [(1.0, ce)],
        "dice": [(1.0, dice)],
        "focal": [(1.0, focal)],
        "focal_dice": [(dice_share, dice), (1 - dice_share, focal)],
        "tversky": [(1.0, tversky)],
        "focal_tversky": [(1.0, focal_tversky)],
        "bce_dice": [(cross_entropy_weight, bce), (1.0, dice)],
        "ce_dice": [(cross_entropy_weight, ce), (1.0, dice)],
        "bce_tversky": [(cross_entropy_weight, bce), (1.0, tversky)],
    }
    if name not in terms:
        raise ValueError(f"no loss {name!r}; there are {', '.join(terms)}")
    return SegmentationLoss(terms[name], classes=classes, pos_weight=pos_weight)


def _tversky(
    logits: Tensor, truth: Tensor, valid: Tensor | None, false_positive: float, false_negative: float
) -> Tensor:
    """Return NxC Tversky losses."""
    penalised = partial(tversky_loss, false_positive=false_positive, false_negative=false_negative)
    return _per_image_and_class(penalised, logits, truth, valid)


def _per_image_and_class(loss: PlaneLoss, logits: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
    """Return NxC losses, each class against the rest."""
    logits, truth, counted = _prepared(logits, truth, valid)
    if logits.shape[1] == 1:
        probability = logits.sigmoid()
    else:
        probability = logits.softmax(1)
        truth = torch.zeros_like(logits).scatter_(1, truth, 1.0)  # an index beyond C - 1 is an error

    def of_plane(probability: Tensor, truth: Tensor, counted: Tensor) -> Tensor:  # HxW each
        return loss(probability[None, None], truth[None, None], counted[None, None])

    of_image = torch.vmap(of_plane, in_dims=(0, 0, None))  # CxHxW, CxHxW and HxW: one mask for all classes
    losses: Tensor = torch.vmap(of_image)(probability, truth, counted[:, 0])
    return losses


def _prepared(logits: Tensor, truth: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return precise logits, truth (0 where it does not count) and the pixels that count, 0 or 1."""
    for name, other in (("truth", truth), ("valid", valid)):
        if other is not None and (logits.ndim != 4 or other.shape != logits[:, :1].shape):
            raise ValueError(
                f"logits {tuple(logits.shape)} and {name} {tuple(other.shape)} do not fit: "
                f"they must be NxCxHxW and Nx1xHxW"
            )
    logits = logits.to(_precise(logits))
    counted = torch.ones_like(logits[:, :1]) if valid is None else valid.to(logits)
    truth = truth.where(counted > 0, 0)
    if logits.shape[1] == 1:
        return logits, truth.to(logits), counted
    if truth.dtype != torch.int64:
        raise ValueError(f"truth of {logits.shape[1]} classes must be int64 class indices, not {truth.dtype}")
    return logits, truth, counted


def _precise(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Return Nx1xHxW -log p of the true class; an index beyond C - 1 is an error."""
    return F.cross_entropy(logits, truth[:, 0], reduction="none")[:, None]


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean, 0 where all weights are 0."""
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1.0)


def _weighted_mean(losses: Tensor, class_weights: ClassWeights) -> Tensor:
    """Map NxC losses to the mean over images of the weighted mean over classes."""
    return _mean(losses, _weights_of(losses, class_weights).expand_as(losses))


def _weights_of(values: Tensor, class_weights: ClassWeights) -> Tensor:
    """Return a weight for each class of NxC... values."""
    _refuse_weights(values.shape[1], class_weights)
    return values.new_ones(values.shape[1]) if class_weights is None else values.new_tensor(class_weights)


def _refuse_weights(classes: int, class_weights: ClassWeights) -> None:
    if class_weights is None:
        return
    if classes == 1:
        raise ValueError(
            "class weights are for 2 classes or more; the binary losses have pos_weight or alpha"
        )
    if len(class_weights) != classes or min(class_weights) < 0 or not sum(class_weights) > 0:
        raise ValueError(f"{class_weights} are not {classes} class weights of 0 or more, one above 0")
