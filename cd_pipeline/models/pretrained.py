"""Finding ImageNet weights in timm's hub, without waiting for one that cannot be reached."""

import urllib.request
from pathlib import Path

import huggingface_hub
import timm
from huggingface_hub import constants

WEIGHTS_FILE = "model.safetensors"
REACH_TIMEOUT = 8.0
"""Seconds within which the hub must answer."""


class WeightsUnavailableError(RuntimeError):
    """Pretrained weights that are neither in the local cache nor to be had from the hub."""


def find_weights(name: str) -> Path:
    """Return the file with the ImageNet weights of a timm model, from the cache or downloaded.

    Raises:
        WeightsUnavailableError: within 10 s when the hub does not answer.
    """
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    cached = huggingface_hub.try_to_load_from_cache(repository, WEIGHTS_FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=REACH_TIMEOUT).close()
        return Path(huggingface_hub.hf_hub_download(repository, WEIGHTS_FILE))
    except Exception as error:  # the hub's client raises errors of several libraries; none may stop training
        raise WeightsUnavailableError(f"{constants.ENDPOINT}: {error}") from None
