"""`build_model`: from settings to a network."""

import logging

import torch

from cd_pipeline.models.pretrained import WeightsUnavailableError, find_weights
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.models.tiny_change_unet import ENCODER, TinyChangeUNet


def build_model(settings: ModelSettings) -> TinyChangeUNet:
    """Build the network with fresh weights, drawn from torch's global generator."""
    return {"tiny_change_unet": TinyChangeUNet}[settings.name]()


def start_model(settings: ModelSettings, *, seed: int, logger: logging.Logger) -> tuple[TinyChangeUNet, bool]:
    """Build a network ready for training.

    Args:
        settings: the network, and whether ImageNet weights are wanted.
        seed: of the fresh weights.
        logger: gets one warning where the weights cannot be had.

    Returns:
        The network, and whether its encoder is pretrained.
    """
    torch.manual_seed(seed)
    model = build_model(settings)
    if not settings.pretrained:
        return model, False
    try:
        model.load_encoder_weights(find_weights(ENCODER))
    except WeightsUnavailableError as error:
        logger.warning("no pretrained encoder weights (%s); training goes on from scratch", error)
        return model, False
    return model, True
