"""Manifests: the Parquet files between the stages, one row a photo or a pair.

Image columns of the pair manifest hold references, `source:<path>` under the user's folder or
`workspace:<path>` under the recipe's own, so that the same table serves on any machine.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from sys import intern
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cd_pipeline.data.example import PictureFile
from cd_pipeline.data.files import atomic_path
from cd_pipeline.data.labels import Box
from cd_pipeline.data.photos import Photo
from cd_pipeline.data.plan_columns import PLAN, REALISTIC_PLAN
from cd_pipeline.data.task import MaskForm
from cd_pipeline.data.two_date import TwoDatePair

Row = dict[str, Any]

DAMAGED = (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError)
"""What Arrow and pandas raise for files that are cut short, damaged or foreign."""

ROW_GROUP = 4096
"""Rows that are written and read at a time."""
SHARED = ("tree", "class_name", "split")
"""Columns of few different texts: the rows in memory share them."""

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
    """Write rows as Parquet, whole or not at all; the same rows give the same bytes.

    No more rows than `ROW_GROUP` are taken at a time.
    """
    left = iter(rows)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        while group := list(islice(left, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def each_row(
    path: Path, schema: pa.Schema, kind: type[Any], split: str | None = None, having: str | None = None
) -> Iterator[Row]:
    """Read a manifest row by row; no more than a group of rows is in memory.

    Args:
        path: of the Parquet file.
        schema: that it must have.
        kind: the dataclass of a row; a column can be empty where its field can be None.
        split: read the rows of this one alone; None: all.
        having: read the rows alone that have a value in this column; None: all.

    Raises:
        ManifestError: not a Parquet file, damaged, columns of another version, or a value missing.
    """
    needed = [name for name, hint in get_type_hints(kind).items() if NoneType not in get_args(hint)]
    # ParquetFile and not read_table, which takes columns from the names of folders such as a=1/
    with _read(path, partial(pq.ParquetFile, path)) as file:
        found = _read(path, lambda: file.schema_arrow)
        if not found.equals(schema):
            missing = sorted(set(schema.names) - set(found.names))
            raise ManifestError(f"{path}: columns of another version (missing: {missing}); {_remedy(path)}")
        before = 0
        for number in range(file.num_row_groups):
            group: pa.Table = _read(path, partial(_row_group, file, number, split))
            if empty := next((name for name in needed if _has_empty(group[name].combine_chunks())), None):
                row = before + [_is_empty(value.as_py()) for value in group[empty]].index(True)
                raise ManifestError(f"{path}: row {row} has no {empty}; delete it and {_remedy(path)}")
            if split is not None:
                group = group.filter(pc.equal(group["split"], split))
            if having is not None:
                group = group.filter(group[having].is_valid())
            rows: list[Row] = _read(path, group.to_pylist)
            yield from rows
            before += file.metadata.row_group(number).num_rows


def write_photos(path: Path, photos: Iterable[Photo]) -> None:
    """Write photos as a table with the schema `PHOTOS`."""
    write_rows(path, ({**_shallow(photo), "boxes": _boxes(photo.boxes)} for photo in photos), PHOTOS)


def each_photo(path: Path) -> Iterator[Photo]:
    """Read a table written by `write_photos`, photo by photo."""
    return (_from_row(Photo, row) for row in each_row(path, PHOTOS, Photo))


def read_photos(path: Path) -> list[Photo]:
    """Read a table written by `write_photos`."""
    return list(each_photo(path))


def write_two_date(path: Path, pairs: Iterable[TwoDatePair]) -> None:
    """Write the pairs of a two-date folder as a table with the schema `TWO_DATE_PAIRS`."""
    write_rows(path, map(_shallow, pairs), TWO_DATE_PAIRS)


def read_two_date(path: Path) -> list[TwoDatePair]:
    """Read a table written by `write_two_date`."""
    return [TwoDatePair(**row) for row in each_row(path, TWO_DATE_PAIRS, TwoDatePair)]


def write_pairs(path: Path, pairs: Iterable[Pair], plan_version: str = "") -> None:
    """Write pairs as a table with the schema `PAIRS`, and the hash of the settings they were planned with."""
    schema = PAIRS.with_metadata({PLAN_VERSION: plan_version})
    write_rows(path, ({**_shallow(pair), "boxes": _boxes(pair.boxes)} for pair in pairs), schema)


def plan_version_of(path: Path) -> str:
    """Return the hash of the settings that a manifest's pairs were planned with.

    Raises:
        ManifestError: not a Parquet file.
    """
    metadata: dict[bytes, bytes] = _read(path, partial(pq.read_schema, path)).metadata or {}
    return metadata.get(PLAN_VERSION.encode(), b"").decode(errors="replace")


def each_pair(path: Path, split: str | None = None, *, frozen: bool = False) -> Iterator[Pair]:
    """Read the pairs of a manifest one by one, in its order.

    Args:
        path: of the manifest.
        split: those of this one alone; None: all.
        frozen: without those that are drawn anew each epoch.

    Raises:
        ManifestError: as `each_row`.
    """
    having = "after" if frozen else None
    return (_from_row(Pair, row) for row in each_row(path, PAIRS, Pair, split, having))


def read_pairs(path: Path, split: str | None = None) -> list[Pair]:
    """Read the pairs of a manifest, or those of one split, in the manifest's order."""
    return list(each_pair(path, split))


def count_splits(path: Path) -> Counter[str]:
    """Count the rows of each split in a manifest of pairs or of images.

    Raises:
        ManifestError: not a Parquet file, damaged, or without splits.
    """
    with _read(path, partial(pq.ParquetFile, path)) as file:
        table: pa.Table = _read(path, partial(file.read, columns=["split"]))
        return Counter(_read(path, lambda: table["split"].to_pylist()))


def _read(path: Path, reader: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the reader returns
    try:
        return reader()
    except DAMAGED as error:
        raise ManifestError(
            f"{path}: not a readable Parquet file ({reason_of(error)}); delete it and {_remedy(path)}"
        ) from None


def _row_group(file: pq.ParquetFile, number: int, split: str | None) -> pa.Table:
    # of a group without a row of the split, or one that has none, no row
    if split is not None:
        splits = set(file.read_row_group(number, columns=["split"])["split"].to_pylist())
        if splits.isdisjoint({split, None}):
            return file.schema_arrow.empty_table()
    group = file.read_row_group(number)
    group.validate(full=True)
    return group


def _has_empty(column: pa.Array) -> bool:
    # or a part that is: no list or struct of a needed column can have one
    if column.null_count:
        return True
    if pa.types.is_struct(column.type):
        return any(map(_has_empty, column.flatten()))
    return pa.types.is_list(column.type) and _has_empty(column.flatten())


def _is_empty(value: object) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return any(map(_is_empty, value)) if isinstance(value, list) else value is None


def _from_row(kind: type[Any], row: Row) -> Any:  # noqa: ANN401 - Photo or Pair, by `kind`
    values: Row = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    values["boxes"] = tuple(Box(**box) for box in row["boxes"])
    for name in SHARED:
        if name in values:
            values[name] = intern(values[name])
    if values.get("before") == values.get("photo", ""):
        values["before"] = values["photo"]
    return kind(**values)


def _boxes(boxes: Iterable[Box]) -> list[Row]:
    return [box._asdict() for box in boxes]


def _shallow(row: Photo | TwoDatePair | Pair) -> Row:
    return {field.name: getattr(row, field.name) for field in fields(row)}


def _remedy(path: Path) -> str:
    return f"materialize {path.parent.name} again"
