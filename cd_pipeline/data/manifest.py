"""Manifests: the Parquet files between the stages, one row a photo or a pair.

Image columns of the pair manifest hold references, `source:<path>` under the user's folder or
`workspace:<path>` under the recipe's own, so that the same table serves on any machine.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from cd_pipeline.data.example import PictureFile
from cd_pipeline.data.files import atomic_path
from cd_pipeline.data.labels import Box
from cd_pipeline.data.photos import Photo
from cd_pipeline.data.task import MaskForm
from cd_pipeline.data.two_date import TwoDatePair

Row = dict[str, Any]

DAMAGED = (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError)
"""What Arrow and pandas raise for files that are cut short, damaged or foreign."""

BOX = pa.struct(
    [
        ("class_id", pa.int64()),
        ("cx", pa.float64()),
        ("cy", pa.float64()),
        ("w", pa.float64()),
        ("h", pa.float64()),
    ]
)

PHOTOS = pa.schema(
    [
        ("path", pa.string()),
        ("tree", pa.string()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),
        ("label_path", pa.string()),
        ("sha256", pa.string()),
        ("label_sha256", pa.string()),
        ("pixels_sha256", pa.string()),
        ("perceptual_hash", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(BOX)),
        ("dropped_labels", pa.list_(pa.string())),
    ]
)

TWO_DATE_PAIRS = pa.schema(
    [
        ("name", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),
        ("before", pa.string()),
        ("after", pa.string()),
        ("label", pa.string()),
        ("before_sha256", pa.string()),
        ("after_sha256", pa.string()),
        ("label_sha256", pa.string()),
        ("before_pixels_sha256", pa.string()),
        ("after_pixels_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bits", pa.int32()),
        ("changed_share", pa.float64()),
    ]
)

CHANGE = pa.struct(
    [
        ("kind", pa.string()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("to_x", pa.int32()),
        ("to_y", pa.int32()),
        ("noise_seed", pa.int64()),
        ("erased", pa.list_(pa.list_(pa.int32()))),
    ]
)

PLAN = pa.struct(
    [
        ("changes", pa.list_(CHANGE)),
        ("truthful", pa.bool_()),
        ("jpeg_quality", pa.int32()),
    ]
)

PATCH = pa.struct(
    [
        ("photo", pa.string()),
        ("sha256", pa.string()),
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("width", pa.float64()),
        ("height", pa.float64()),
    ]
)

REALISTIC_CHANGE = pa.struct(
    [
        ("kind", pa.string()),
        ("shape", pa.string()),
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("to_left", pa.float64()),
        ("to_top", pa.float64()),
        ("feather", pa.float64()),
        ("seed", pa.int64()),
        ("outline", PATCH),
        ("source", PATCH),
    ]
)

NUISANCE = pa.struct(
    [
        ("gains", pa.list_(pa.float64())),
        ("offset", pa.float64()),
        ("contrast", pa.float64()),
        ("gamma", pa.float64()),
        ("gradient", pa.list_(pa.float64())),
        ("vignette", pa.float64()),
        ("shadow", pa.float64()),
        ("shadow_outline", pa.list_(pa.float64())),
        ("blur", pa.float64()),
        ("noise", pa.float64()),
        ("shot_noise", pa.float64()),
        ("noise_seed", pa.int64()),
        ("jpeg_quality", pa.int32()),
        ("corners", pa.list_(pa.float64())),
    ]
)

VIEW = pa.struct(
    [
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("flipped", pa.bool_()),
    ]
)

REALISTIC_PLAN = pa.struct(
    [
        ("view", VIEW),
        ("changes", pa.list_(REALISTIC_CHANGE)),
        ("swapped", pa.bool_()),
        ("min_visible", pa.float64()),
        ("before_nuisance", NUISANCE),
        ("after_nuisance", NUISANCE),
    ]
)

CROP = pa.struct([("left", pa.int32()), ("top", pa.int32()), ("width", pa.int32()), ("height", pa.int32())])

PLAN_VERSION = "cd_pipeline.plan_version"
"""Key of the file's metadata."""

PAIRS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("split", pa.string()),
        ("class_name", pa.string()),
        ("before", pa.string()),
        ("after", pa.string()),
        ("mask", pa.string()),
        ("valid", pa.string()),
        ("before_sha256", pa.string()),
        ("after_sha256", pa.string()),
        ("mask_sha256", pa.string()),
        ("crop", CROP),
        ("tiled", pa.bool_()),
        ("own_size", pa.bool_()),
        ("bits", pa.int32()),
        ("side", pa.int32()),
        ("photo", pa.string()),
        ("photo_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(BOX)),
        ("seed", pa.int64()),
        ("changed", pa.bool_()),
        ("plan", PLAN),
        ("realistic_plan", REALISTIC_PLAN),
    ]
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One sample: two images and a mask of what changed between them.

    `before`, `after`, `mask` and `valid` are references; `valid` is None where every pixel counts, and
    `after`, `mask`, `changed` and both plans are None where the pair is drawn anew each epoch. The hashes are
    those that files under the user's folder must have; None: the file was rendered. `crop` is the part of
    the pictures that the pair is, in px (None: all of them); `tiled` says how a network sees them: in tiles at
    their own scale, or resized; `own_size`, that they are scored at their own size; `bits` are the significant ones of 16-bit pictures. `photo`, `boxes`, `seed` and one of the plans say how a synthesised pair was
    made (`photo` is "" for one really taken at two times); `width` and `height` are the photo's, and `side` is
    what a realistic pair is rendered at (None: the photo's own size). `changed`: a change is planned, or
    labelled.
    """

    pair_id: str
    split: str
    class_name: str
    before: str
    after: str | None
    mask: str | None
    photo: str
    photo_sha256: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    seed: int
    changed: bool | None
    plan: Row | None
    valid: str | None = None
    before_sha256: str | None = None
    after_sha256: str | None = None
    mask_sha256: str | None = None
    crop: Row | None = None
    tiled: bool = False
    own_size: bool = False
    bits: int = 16
    side: int | None = None
    realistic_plan: Row | None = None

    @property
    def name(self) -> str:
        """As every `Example` has it."""
        return self.pair_id

    @property
    def pictures(self) -> tuple[PictureFile, ...]:
        """Before and after; before alone where the pair is drawn anew each epoch."""
        before = PictureFile(self.before, self.before_sha256)
        return (before,) if self.after is None else (before, PictureFile(self.after, self.after_sha256))

    @property
    def mask_form(self) -> MaskForm:
        """Changed or not."""
        return MaskForm()

    @property
    def clahe(self) -> None:
        """Pairs are as they are."""
        return


class ManifestError(ValueError):
    """A manifest that cannot be read; the message names the file and the remedy."""


def reason_of(error: BaseException) -> str:
    """Return what an error says, in a line of at most 160 characters."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet, whole or not at all; the same rows give the same bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd")


def read_rows(path: Path, schema: pa.Schema, kind: type[Any]) -> list[Row]:
    """Read a manifest.

    Args:
        path: of the Parquet file.
        schema: that it must have.
        kind: the dataclass of a row; a column can be empty where its field can be None.

    Raises:
        ManifestError: not a Parquet file, damaged, columns of another version, or a value missing.
    """
    found = _read(path, pq.read_schema)
    if not found.equals(schema):
        missing = sorted(set(schema.names) - set(found.names))
        raise ManifestError(f"{path}: columns of another version (missing: {missing}); {_remedy(path)}")
    rows: list[Row] = _read(path, _read_whole)
    needed = {name for name, hint in get_type_hints(kind).items() if NoneType not in get_args(hint)}
    for name in schema.names:
        if name in needed and (empty := [number for number, row in enumerate(rows) if _is_empty(row[name])]):
            raise ManifestError(f"{path}: row {empty[0]} has no {name}; delete it and {_remedy(path)}")
    return rows


def write_photos(path: Path, photos: Iterable[Photo]) -> None:
    """Write photos as a table with the schema `PHOTOS`."""
    write_rows(path, ({**asdict(photo), "boxes": _boxes(photo.boxes)} for photo in photos), PHOTOS)


def read_photos(path: Path) -> list[Photo]:
    """Read a table written by `write_photos`."""
    return [_from_row(Photo, row) for row in read_rows(path, PHOTOS, Photo)]


def write_two_date(path: Path, pairs: Iterable[TwoDatePair]) -> None:
    """Write the pairs of a two-date folder as a table with the schema `TWO_DATE_PAIRS`."""
    write_rows(path, map(asdict, pairs), TWO_DATE_PAIRS)


def read_two_date(path: Path) -> list[TwoDatePair]:
    """Read a table written by `write_two_date`."""
    return [TwoDatePair(**row) for row in read_rows(path, TWO_DATE_PAIRS, TwoDatePair)]


def write_pairs(path: Path, pairs: Iterable[Pair], plan_version: str = "") -> None:
    """Write pairs as a table with the schema `PAIRS`, and the hash of the settings they were planned with."""
    schema = PAIRS.with_metadata({PLAN_VERSION: plan_version})
    write_rows(path, ({**_shallow(pair), "boxes": _boxes(pair.boxes)} for pair in pairs), schema)


def plan_version_of(path: Path) -> str:
    """Return the hash of the settings that a manifest's pairs were planned with.

    Raises:
        ManifestError: not a Parquet file.
    """
    metadata: dict[bytes, bytes] = _read(path, pq.read_schema).metadata or {}
    return metadata.get(PLAN_VERSION.encode(), b"").decode(errors="replace")


def read_pairs(path: Path, split: str | None = None) -> list[Pair]:
    """Read the pairs of a manifest, or those of one split, in the manifest's order."""
    rows = read_rows(path, PAIRS, Pair)
    return [_from_row(Pair, row) for row in rows if split is None or row["split"] == split]


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:  # noqa: ANN401 - what the reader returns
    try:
        return reader(path)
    except DAMAGED as error:
        raise ManifestError(
            f"{path}: not a readable Parquet file ({reason_of(error)}); delete it and {_remedy(path)}"
        ) from None


def _read_whole(path: Path) -> list[Row]:
    # ParquetFile and not read_table, which takes columns from the names of folders such as a=1/
    with pq.ParquetFile(path) as file:
        table = file.read()
    table.validate(full=True)
    rows: list[Row] = table.to_pylist()
    return rows


def _is_empty(value: object) -> bool:
    # or has an empty part: no list or struct of a needed column can
    if isinstance(value, dict):
        value = list(value.values())
    return any(map(_is_empty, value)) if isinstance(value, list) else value is None


def _from_row(kind: type[Any], row: Row) -> Any:  # noqa: ANN401 - Photo or Pair, by `kind`
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    values["boxes"] = tuple(Box(**box) for box in row["boxes"])
    return kind(**values)


def _boxes(boxes: Iterable[Box]) -> list[Row]:
    return [box._asdict() for box in boxes]


def _shallow(pair: Pair) -> Row:
    return {field.name: getattr(pair, field.name) for field in fields(pair)}


def _remedy(path: Path) -> str:
    return f"materialize {path.parent.name} again"
