"""Prediction of folders: every pair or photo, a mask each, and one table."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cd_pipeline.data.files import atomic_path, write_bytes
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.listing import match_files
from cd_pipeline.prediction.description import describe_result
from cd_pipeline.prediction.detector import Model
from cd_pipeline.prediction.opened_model import ModelError
from cd_pipeline.prediction.overlay import palette_of, prediction_overlay, segmentation_overlay
from cd_pipeline.prediction.photo import as_image
from cd_pipeline.prediction.results import Prediction, Segmentation

TABLE = "predictions.parquet"
Found = Prediction | Segmentation
Predict = Callable[..., Found]
"""As many HWC uint8 RGB pictures as the model takes -> its result."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pair or photo of a folder: what was found, or the reason why it could not be used."""

    name: str
    description: dict[str, Any]
    reason: str = ""


def predict_folders(
    predict: Predict,
    model: Model,
    folders: Sequence[Path],
    out: Path,
    *,
    overlays: Path | None = None,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> list[Row]:
    """Predict every pair or photo of some folders, and write masks and a table.

    Files are paired by stem, whatever their formats. What cannot be used is a row with its reason, and stops
    nothing.

    Args:
        predict: called with the pictures of one name.
        model: that it predicts with.
        folders: before and after, or images.
        out: masks are written to `<name>.png` in it, and the rows to `predictions.parquet`.
        overlays: the first photos with what was marked are written to `<name>.jpg` in it; None: they are not.
        progress: passes what it is given on, and shows how far it is.

    Returns:
        The rows by name.

    Raises:
        ValueError: the folders hold no picture.
    """
    matches, faults = match_files(Path(), [str(folder) for folder in folders], truth="")
    if not matches:
        raise ValueError(f"no pictures in {' or '.join(str(folder) for folder in folders)}")
    rows = [Row(name, {}, reason) for name, reason in faults]
    for match in progress(matches):
        if match.problem:
            rows.append(Row(match.name, {}, match.problem))
            continue
        rows.append(
            _predicted(predict, model, match.name, [paths[0] for paths in match.files], out, overlays)
        )
    rows.sort(key=lambda row: row.name)
    write_table(out / TABLE, rows, model)
    return rows


def _predicted(
    predict: Predict, model: Model, name: str, files: Sequence[Path], out: Path, overlays: Path | None
) -> Row:
    try:
        pictures = [as_image(file, file.name) for file in files]
        found = predict(*pictures)
    except ModelError:
        raise
    except (ValueError, OSError) as error:
        return Row(name, {}, " ".join(str(error).split()))
    write_mask(out / f"{name}.png", found, model)
    if overlays is not None:
        write_overlay(overlays / f"{name}.jpg", pictures[0], found, model)
    return Row(name, describe_result(found))


def write_mask(path: Path, found: Found, model: Model) -> None:
    """Write a mask as PNG: 0 and 255, or of several classes their indices with a palette; whole or not at all."""
    if not model.class_names:
        write_png(path, found.mask)
        return
    from cd_pipeline.data.palette import write_palette_png

    write_palette_png(path, found.mask, palette_of(model.class_names))


def write_overlay(path: Path, photo: Image, found: Found, model: Model) -> None:
    """Write a photo with what was marked on it, in the format of the suffix; whole or not at all."""
    import cv2

    if isinstance(found, Prediction):
        shown = prediction_overlay(photo, found)
    else:
        shown = segmentation_overlay(photo, found, model.class_names)
    write_bytes(path, cv2.imencode(path.suffix, cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))[1].tobytes())


def write_table(path: Path, rows: Sequence[Row], model: Model) -> None:
    """Write the rows as Parquet, whole or not at all.

    Columns: name, the share (`changed_fraction`, or `marked_fraction`), `fractions` of several classes, `boxes`
    as a list of structs, and `reason`, null where the row was predicted.
    """
    import pyarrow as pa
    from pyarrow import parquet

    share = "changed_fraction" if model.pictures == 2 else "marked_fraction"
    whole, real = pa.int32(), pa.float64()
    box = pa.struct(
        [
            *((name, whole) for name in ("left", "top", "width", "height", "area")),
            *((name, real) for name in ("mean_probability", "max_probability")),
            ("class_name", pa.string()),
        ]
    )
    fractions = pa.list_(pa.struct([("class_name", pa.string()), ("fraction", real)]))
    schema = pa.schema(
        [
            ("name", pa.string()),
            ("width", whole),
            ("height", whole),
            (share, real),
            *([("covered_fraction", real)] if model.pictures == 2 else [("fractions", fractions)]),
            ("boxes", pa.list_(box)),
            ("reason", pa.string()),
        ]
    )
    values = [_values(row) for row in rows]
    with atomic_path(path) as temporary:
        parquet.write_table(pa.Table.from_pylist(values, schema), temporary)


def _values(row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {**row.description, "name": row.name, "reason": row.reason or None}
    shares = row.description.get("fractions")
    if shares is not None:
        values["fractions"] = [{"class_name": name, "fraction": share} for name, share in shares.items()]
    return values
