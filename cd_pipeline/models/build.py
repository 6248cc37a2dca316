"""`build_model`: from settings to a network."""

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

from cd_pipeline.models.change_network import ChangeNetwork
from cd_pipeline.models.pretrained import WeightsUnavailableError, find_weights
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.models.siamese_unet import SiameseUNet
from cd_pipeline.models.tiny_cd import TinyCD
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.models.tiny_siamese_unet import TinySiameseUNet

NETWORKS: Mapping[str, type[ChangeNetwork]] = {
    "tiny_change_unet": TinyChangeUNet,
    "tiny_siamese_unet": TinySiameseUNet,
    "siamese_unet": SiameseUNet,
    "tiny_cd": TinyCD,
}


def build_model(settings: ModelSettings) -> ChangeNetwork:
    """Build the network with fresh weights, drawn from torch's global generator."""
    return NETWORKS[settings.name](**settings.options())


def load_start(model: ChangeNetwork, path: Path, logger: logging.Logger) -> None:
    """Load a state dict file into a network; blocks that the published one never read are dropped.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not a state dict of this network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; set model.start_from to a state dict, or to null")
    try:
        dropped = model.load_published_state(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"{path}: model.start_from is not a state dict of this network ({reason})") from None
    logger.info(f"starting from {path}; {len(dropped)} unused tensors dropped")


def start_model(settings: ModelSettings, *, seed: int, logger: logging.Logger) -> tuple[ChangeNetwork, bool]:
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
    if settings.start_from is not None:
        load_start(model, Path(settings.start_from).expanduser(), logger)
        return model, False
    if not settings.pretrained:
        return model, False
    if model.pretrained_name is None:
        logger.info(f"{settings.name} has no pretrained encoder; training starts from fresh weights")
        return model, False
    try:
        model.load_encoder_weights(find_weights(model.pretrained_name))
    except WeightsUnavailableError as error:
        logger.warning("no pretrained encoder weights (%s); training goes on from scratch", error)
        return model, False
    return model, True
