import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.data.names import NAME_BYTES, safe_name

CONTENT = "0123456789abcdef" * 4
OTHER = "f" * 64


@pytest.mark.parametrize(
    ("stem", "tile", "name"),
    [
        ("crack_01", None, "crack_01__01234567"),
        ("crack_01", 7, "crack_01__01234567_007"),
        ("a b/c:d*e", None, "a_b_c_d_e__01234567"),
        ("방 1", 0, "방_1__01234567_000"),
        ("..hidden", None, "hidden__01234567"),
        ("", None, "___01234567"),
        ("...", 12, "___01234567_012"),
        ("x", 1234, "x__01234567_1234"),
    ],
)
def test_a_name_is_stem_content_and_tile(stem: str, tile: int | None, name: str) -> None:
    assert safe_name(stem, CONTENT, tile) == name


@given(st.text(max_size=200), st.none() | st.integers(0, 999))
def test_whatever_the_stem_the_name_is_safe_and_short(stem: str, tile: int | None) -> None:
    name = safe_name(stem, CONTENT, tile)
    assert len(name.encode()) <= NAME_BYTES
    assert re.fullmatch(r"[\w.-]+", name)
    assert not name.startswith(".")
    assert name.endswith("__01234567" + ("" if tile is None else f"_{tile:03d}"))
    assert safe_name(stem, OTHER, tile) != name


def test_a_long_stem_is_cut_between_characters_and_keeps_content_and_tile() -> None:
    name = safe_name("방" * 100, CONTENT, 5)
    tail = "__01234567_005"
    assert name == "방" * ((NAME_BYTES - len(tail)) // 3) + tail
    assert safe_name("방" * 100, CONTENT, 6) != name
