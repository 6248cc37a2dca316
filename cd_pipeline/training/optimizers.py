"""The optimisers."""

import torch
from torch import nn

from cd_pipeline.training.settings import TrainingSettings

OPTIMIZERS: dict[str, type[torch.optim.AdamW] | type[torch.optim.Adam]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
}


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the settings' optimiser of all parameters, in its fused form."""
    return OPTIMIZERS[settings.optimizer](
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        eps=settings.adam_eps,
        fused=True,
    )
