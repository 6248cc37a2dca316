"""The change loss: weighted binary cross-entropy plus Tversky or Dice."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOGIT_LIMIT = 15.0
"""Logits are clamped to +-15 (published)."""
TVERSKY_EPS = 1e-3
DICE_EPS = 1e-6
"""In numerator and denominator, per image (published)."""


def tversky_loss(
    probability: Tensor,
    truth: Tensor,
    valid: Tensor | None = None,
    *,
    false_positive: float = 0.7,
    false_negative: float = 0.3,
    eps: float = TVERSKY_EPS,
) -> Tensor:
    """Return the mean over images of 1 - TP / (TP + a*FP + b*FN + eps).

    An image without change has TP = 0 whatever is predicted: the formula would be a constant 1 without a
    gradient. Its loss is the mean probability instead, which is 0 for a correct prediction.

    Args:
        probability: Nx1xHxW in [0, 1].
        truth: the same shape, 0 or 1.
        valid: the same shape, 0 where a pixel does not count; None: all count.
        false_positive: a.
        false_negative: b.
        eps: keeps the denominator above 0.

    Raises:
        ValueError: the shapes differ.

    >>> truth = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    >>> round(tversky_loss(truth * 0.5, truth, eps=0.0).item(), 4)  # TP 1, FN 1
    0.2308
    """
    _refuse_other_shape(probability, truth)
    p, t = probability.flatten(1), truth.flatten(1)  # NxP
    counted = torch.ones_like(p) if valid is None else valid.flatten(1)
    p, t = p * counted, t * counted
    positives = t.sum(1)  # N
    true_positive = (p * t).sum(1)
    fp, fn = p.sum(1) - true_positive, positives - true_positive
    # sums are over pixels, so eps = 1e-3 of a pixel only matters where nothing is predicted
    index = true_positive / (true_positive + false_positive * fp + false_negative * fn + eps)
    mean = p.sum(1) / counted.sum(1).clamp(min=1)
    return torch.where(positives > 0, 1 - index, mean).mean()


def dice_loss(
    probability: Tensor, truth: Tensor, valid: Tensor | None = None, *, eps: float = DICE_EPS
) -> Tensor:
    """Return the mean over images of 1 - (2*TP + eps) / (sum of probabilities + sum of truth + eps).

    As published: for an image without change it is all but 1 whatever is predicted, and the
    cross-entropy beside it does the teaching.

    Args:
        probability: Nx1xHxW in [0, 1].
        truth: the same shape, 0 or 1.
        valid: the same shape, 0 where a pixel does not count; None: all count.
        eps: keeps an empty image at 0 for an empty prediction.

    Raises:
        ValueError: the shapes differ.

    >>> truth = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    >>> round(dice_loss(truth * 0.5, truth).item(), 4)  # 2 * 1 / (1 + 2)
    0.3333
    """
    _refuse_other_shape(probability, truth)
    p, t = probability.flatten(1), truth.flatten(1)  # NxP
    if valid is not None:
        p, t = p * valid.flatten(1), t * valid.flatten(1)
    return (1 - (2 * (p * t).sum(1) + eps) / (p.sum(1) + t.sum(1) + eps)).mean()


def _refuse_other_shape(probability: Tensor, truth: Tensor) -> None:
    if probability.shape != truth.shape:
        raise ValueError(
            f"probability {tuple(probability.shape)} and truth {tuple(truth.shape)} differ in shape"
        )


class ChangeLoss(nn.Module):
    """bce_weight * BCEWithLogits(pos_weight) + tversky_weight * Tversky + dice_weight * Dice, in float32."""

    pos_weight: Tensor

    def __init__(
        self,
        *,
        pos_weight: float,
        bce_weight: float = 0.6,
        tversky_weight: float = 0.4,
        dice_weight: float = 0.0,
        false_positive: float = 0.7,
        false_negative: float = 0.3,
    ) -> None:
        super().__init__()
        self.register_buffer("pos_weight", torch.tensor(pos_weight))
        self.bce_weight = bce_weight
        self.tversky_weight = tversky_weight
        self.dice_weight = dice_weight
        self.false_positive = false_positive
        self.false_negative = false_negative

    def forward(
        self, logits: Tensor, truth: Tensor, valid: Tensor | None = None, counted: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            logits: Nx1xHxW.
            truth: the same shape, 0 or 1.
            valid: the same shape, 0 where a pixel does not count; None: all do.
            counted: pixels that the cross-entropy is a mean over; None: those that count. Where a batch is
                shared by processes, what this one's would be if all pairs counted as many.
        """
        # float32 before the clamp: float16 would overflow in the exponential
        logits = logits.float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        bce = F.binary_cross_entropy_with_logits(logits, truth, valid, pos_weight=self.pos_weight)
        if valid is not None:  # the mean is over all pixels; make it one over those that count
            pixels = valid.sum() if counted is None else counted
            bce = bce * (valid.numel() / pixels.clamp(min=1))
        total, probability = self.bce_weight * bce, logits.sigmoid()
        if self.tversky_weight:
            tversky = tversky_loss(
                probability,
                truth,
                valid,
                false_positive=self.false_positive,
                false_negative=self.false_negative,
            )
            total = total + self.tversky_weight * tversky
        if self.dice_weight:
            total = total + self.dice_weight * dice_loss(probability, truth, valid)
        return total


def balanced_pos_weight(positive: int, total: int, limit: float) -> float:
    """Return min(sqrt(negative / positive), limit), and the limit where nothing is positive (published)."""
    return min(((total - positive) / positive) ** 0.5, limit) if positive else limit
