"""`build_model`: from settings to a network."""

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import Task
from cd_pipeline.models.attention_unet import AttentionUNet
from cd_pipeline.models.network import Network
from cd_pipeline.models.pretrained import WeightsUnavailableError, find_weights
from cd_pipeline.models.resnet50_unet import ResNet50UNet
from cd_pipeline.models.resunet import ResUNet
from cd_pipeline.models.scaling import with_scaling
from cd_pipeline.models.settings import ONE_IMAGE_NETWORKS, ModelSettings
from cd_pipeline.models.siamese_unet import SiameseUNet
from cd_pipeline.models.tiny_cd import TinyCD
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.models.tiny_siamese_unet import TinySiameseUNet
from cd_pipeline.models.unet import UNet
from cd_pipeline.models.unet_plus_plus import UNetPlusPlus

NETWORKS: Mapping[str, type[Network]] = {
    "tiny_change_unet": TinyChangeUNet,
    "tiny_siamese_unet": TinySiameseUNet,
    "siamese_unet": SiameseUNet,
    "tiny_cd": TinyCD,
    "unet": UNet,
    "unet_plus_plus": UNetPlusPlus,
    "attention_unet": AttentionUNet,
    "resunet": ResUNet,
    "resnet50_unet": ResNet50UNet,
}


def build_model(
    settings: ModelSettings, task: Task | None = None, input_settings: InputSettings | None = None
) -> Network:
    """Build the network with fresh weights, drawn from torch's global generator.

    Args:
        settings: which network.
        task: what it is given and answers; None: one class, and as many pictures as the network takes.
        input_settings: how its pictures are scaled; None: they stay in [0, 1].

    Raises:
        ValueError: the network is not for the task.
    """
    task = task or Task(pictures=settings.pictures)
    if settings.pictures != task.pictures or (task.multi_class and settings.pictures == 2):
        raise ValueError(
            f"model.name is {settings.name}, which takes {settings.pictures} pictures and is not for "
            f"{task.pictures} pictures and {task.classes} classes; one image: {', '.join(ONE_IMAGE_NETWORKS)}"
        )
    classes = {"classes": task.classes} if settings.pictures == 1 else {}
    return with_scaling(
        NETWORKS[settings.name](**settings.options(), **classes), input_settings or InputSettings()
    )


def load_start(model: Network, path: Path, logger: logging.Logger) -> None:
    """Load a state dict file into a network; blocks that the published one never read are dropped.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not a state dict of this network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; set model.start_from to a state dict, or to null")
    try:
        dropped = model.load_published_state(torch.load(path, map_location="cpu", weights_only=True))
    except (
        RuntimeError,
        AttributeError,
        TypeError,
        ValueError,
        EOFError,
        OSError,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"{path}: model.start_from is not a state dict of this network ({reason})") from None
    logger.info(f"starting from {path}; {len(dropped)} unused tensors dropped")


def start_model(
    settings: ModelSettings,
    task: Task | None = None,
    input_settings: InputSettings | None = None,
    *,
    seed: int,
    logger: logging.Logger,
) -> tuple[Network, bool]:
    """Build a network ready for training.

    Args:
        settings: the network, and whether ImageNet weights are wanted.
        task: as of `build_model`.
        input_settings: as of `build_model`.
        seed: of the fresh weights.
        logger: gets one warning where the weights cannot be had.

    Returns:
        The network, and whether its encoder is pretrained.
    """
    torch.manual_seed(seed)
    model = build_model(settings, task, input_settings)
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
