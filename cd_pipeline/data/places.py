"""Where the pipeline keeps its files, and the command that makes them; light, for the command line."""

import os
import re
from pathlib import Path

from cd_pipeline.data.files import digest

MATERIALIZE = 'dagster asset materialize -m cd_pipeline.definitions --select "*{key}"'
"""Makes an asset and all before it."""
SCHEMES = ("s3", "gs")
"""Of addresses on object stores."""
_mirrors: dict[str, str] = {}


def is_remote(place: str) -> bool:
    """Tell whether a place is an address on an object store rather than a folder's path.

    Raises:
        ValueError: an address of another kind.
    """
    scheme, separator, _ = place.partition("://")
    if separator and scheme not in SCHEMES:
        known = " or ".join(f"{name}://<bucket>/<prefix>" for name in SCHEMES)
        raise ValueError(f"{place}: found {scheme}://, expected {known}, or a folder's path")
    return bool(separator)


def data_place() -> str:
    """Return the path or address of the folder of all recipes: CD_PIPELINE_DATA, or else data."""
    return os.environ.get("CD_PIPELINE_DATA") or "data"


def data_root() -> Path:
    """Return the folder of all recipes, or the mirror of it."""
    return local_folder(data_place())


def local_folder(place: str) -> Path:
    """Return a place's folder on this machine: itself, or the mirror of an address in the cache.

    Raises:
        ValueError: an address of another kind than those known.
    """
    if not is_remote(place):
        return Path(place).expanduser()
    address = place.partition("?")[0].rstrip("/")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", address.partition("://")[2])[:80]
    mirror = (cache_root() / f"{name}-{digest(place.rstrip('/'))[:12]}").absolute()
    _mirrors[str(mirror)] = address
    return mirror


def cache_root() -> Path:
    """Return the folder of all mirrors: CD_PIPELINE_CACHE, or cd_pipeline in the user's cache folder."""
    if own := os.environ.get("CD_PIPELINE_CACHE"):
        return Path(own).expanduser()
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(users).expanduser() / "cd_pipeline"


def with_addresses(text: str) -> str:
    """Return a text with the addresses of object stores in place of their mirrors' paths."""
    for mirror, address in _mirrors.items():
        text = text.replace(mirror, address)
    return text
