"""Names of manifest rows: unique, and safe as file names."""

import re

NAME_BYTES = 120


def safe_name(stem: str, content: str, tile: int | None = None) -> str:
    """Name a row: stem, 8 hex digits of its content and the number of its tile.

    At most 120 bytes of UTF-8.

    Args:
        stem: of the user's file, whatever it holds.
        content: hexadecimal hash.
        tile: None: the row is the whole picture.
    """
    tail = f"__{content[:8]}" + ("" if tile is None else f"_{tile:03d}")
    safe = re.sub(r"[^\w.-]", "_", stem).lstrip(".") or "_"
    return safe.encode()[: NAME_BYTES - len(tail)].decode(errors="ignore") + tail
