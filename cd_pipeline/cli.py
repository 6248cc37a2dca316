"""The command `cd-pipeline`: a trained model on photos of one's own, and which model is shipped."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cd_pipeline.data.places import MATERIALIZE, data_place, data_root, is_remote, with_addresses

if TYPE_CHECKING:
    from cd_pipeline.prediction.detector import Model
    from cd_pipeline.prediction.folder import Found, Row

DONE, SOME_LEFT_OUT, WRONG = 0, 1, 2
RELEASED = Path("rooms", "release", "current")
"""What is shipped, in the data root."""
NOT_RELEASED = Path("rooms", "mlpackage")
"""The newest package, where nothing was released yet."""
DEFAULT_MODEL = "change_ts.pt"
OVERLAY_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LISTED_BOXES = 10
DESCRIPTION = """\
Mark what changed between two photos of one view, or what a model finds in one photo.

  cd-pipeline predict before.jpg after.jpg -o mask.png --overlay overlay.png
  cd-pipeline predict before/ after/ -o masks/
  cd-pipeline predict crack.jpg --model data/cracks/mlpackage/segmenter_ts.pt -o mask.png

Photos can have any size; the mask has the first one's. Files of two folders are paired by their names without
suffix; masks are written to OUT/<name>.png and all results to OUT/predictions.parquet. Nothing is written that
is not asked for."""
EXIT_CODES = """\
exit codes: 0 done; 1 some files of a folder could not be used, each named with its reason on stderr and in
predictions.parquet; 2 wrong usage, or a photo or model that cannot be used"""


class UsageError(ValueError):
    """Arguments that do not go together."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors are one line on stderr.

    Args:
        arguments: None: those of the process.

    Returns:
        The exit code.
    """
    given = _parser().parse_args(arguments)
    try:
        code: int = given.run(given)
        return code
    except (ValueError, OSError) as error:
        print(f"cd-pipeline {given.command}: {' '.join(with_addresses(str(error)).split())}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    from cd_pipeline.release.command import add_release

    parser = _Parser(prog="cd-pipeline", description="Trained models of cd_pipeline on photos of your own.")
    parser.add_argument("--version", action="version", version=f"cd-pipeline {version('cd_pipeline')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{predict,release}")
    _add_predict(commands)
    add_release(commands)
    return parser


def _add_predict(commands: Any) -> None:  # noqa: ANN401 - argparse keeps its type to itself
    predict = commands.add_parser(
        "predict",
        help="mark what changed between two photos, or what is in one",
        usage="cd-pipeline predict [options] BEFORE AFTER | BEFORE_DIR AFTER_DIR | IMAGE | IMAGE_DIR",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.set_defaults(run=_predict)
    predict.add_argument(
        "photos", nargs="+", type=Path, metavar="PHOTO", help="one or two photos, or folders of them"
    )
    predict.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="the mask, a .png file; of folders a folder"
    )
    predict.add_argument(
        "--overlay",
        type=Path,
        metavar="FILE",
        help="the first photo with what was marked, .png or .jpg; of folders a folder",
    )
    predict.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE.json",
        help="the results as JSON, to a file or, without FILE.json, to stdout; put it last",
    )
    predict.add_argument(
        "--model",
        type=Path,
        help=f"TorchScript or checkpoint (.pt), .mlpackage or .onnx; default: in CD_PIPELINE_DATA, or in data, {RELEASED / DEFAULT_MODEL}, or {NOT_RELEASED / DEFAULT_MODEL} where nothing was released yet",
    )
    predict.add_argument(
        "--threshold", type=float, help="above it a pixel is marked, 0 to 1; default: the model's own"
    )
    predict.add_argument(
        "--fit",
        choices=("resize", "letterbox", "tile"),
        help="resize: the whole photo becomes the model's input, and two may differ in shape; letterbox: so too, in its own shape; tile: at its own scale in overlapping tiles; default: the model's own",
    )
    predict.add_argument(
        "--register",
        choices=("ecc", "features"),
        help="bring the second photo to the first one's view before: ecc for small movements, features for larger ones; what it does not show is not marked",
    )
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default: auto")


def _predict(given: argparse.Namespace) -> int:
    photos: list[Path] = given.photos
    if len(photos) > 2:
        raise UsageError(f"{len(photos)} photos given, expected one or two")
    for photo in photos:
        if not photo.exists():
            raise FileNotFoundError(f"{photo}: no such file or folder")
    folders = [photo.is_dir() for photo in photos]
    if any(folders) and not all(folders):
        raise UsageError(f"{photos[0]} and {photos[1]}: give two photos or two folders")
    _check_outputs(given, of_folders=all(folders))
    model = _model(given)
    if len(photos) != model.pictures:
        wanted = "two photos, before and after" if model.pictures == 2 else "one photo"
        raise UsageError(f"{model.opened.path} takes {wanted}; {len(photos)} given")
    return _of_folders(model, given) if all(folders) else _of_photos(model, given)


def _check_outputs(given: argparse.Namespace, *, of_folders: bool) -> None:
    if given.json not in (None, "-") and not given.json.endswith(".json"):
        raise UsageError(f"--json {given.json}: expected a name that ends in .json, or nothing for stdout")
    if of_folders and given.output is None:
        raise UsageError("folders need a folder for the masks: -o OUT")
    inputs = {photo.resolve() for photo in given.photos}
    for option, path in (("-o", given.output), ("--overlay", given.overlay)):
        if path is None:
            continue
        if path.resolve() in inputs:
            raise UsageError(f"{option} {path}: would write over what is read; give another name")
        if of_folders:
            continue
        suffixes = (".png",) if option == "-o" else OVERLAY_SUFFIXES
        if path.suffix.lower() not in suffixes:
            raise UsageError(f"{option} {path}: expected a name that ends in {' or '.join(suffixes)}")


def _model(given: argparse.Namespace) -> "Model":
    from cd_pipeline.prediction.detector import load_model

    path: Path = given.model or _default_model()
    if given.model is None and len(given.photos) == 1:
        raise UsageError("one photo needs a model of single images: give it with --model")
    return load_model(path, device=given.device, threshold=given.threshold)


def _default_model() -> Path:
    root = data_root()
    if is_remote(data_place()):
        _fetch_default(root)
    released, newest = root / RELEASED, root / NOT_RELEASED / DEFAULT_MODEL
    if not os.path.lexists(released):
        if not newest.exists():
            remedy = MATERIALIZE.format(key="mlpackage")
            raise FileNotFoundError(f"{newest} is not there: run {remedy}, or give a model with --model")
        return newest
    if not (released / DEFAULT_MODEL).exists():  # no reason to take one that was not released
        raise FileNotFoundError(
            f"{released / DEFAULT_MODEL} is not there: ship a version with cd-pipeline release rollback VERSION, "
            "or give a model with --model"
        )
    return released / DEFAULT_MODEL


def _fetch_default(root: Path) -> None:
    from cd_pipeline.release.on_store import fetch_releases
    from cd_pipeline.remote.object_folder import ObjectFolder
    from cd_pipeline.remote.results import StoredResult

    remote = ObjectFolder(data_place())
    fetch_releases(remote / RELEASED.parent.as_posix(), root / RELEASED.parent)
    if not os.path.lexists(root / RELEASED):
        StoredResult(remote / NOT_RELEASED.as_posix(), root / NOT_RELEASED).fetch(None)


def _options(model: "Model", given: argparse.Namespace) -> dict[str, Any]:
    if model.pictures == 1 and given.register:
        raise UsageError("--register is for two photos; leave it out")
    options = {"fit": given.fit, "register": given.register}
    return {name: value for name, value in options.items() if value is not None}


def _of_photos(model: "Model", given: argparse.Namespace) -> int:
    from cd_pipeline.prediction.folder import write_mask, write_overlay
    from cd_pipeline.prediction.photo import as_image

    pictures = [as_image(photo, photo.name) for photo in given.photos]
    found = model.predict(*pictures, **_options(model, given))
    if given.output:
        write_mask(given.output, found, model)
    if given.overlay:
        write_overlay(given.overlay, pictures[0], found, model)
    if given.json:
        _write_json(given, {**_heading(model, given), **_described(found)})
    if given.json != "-":
        _tell(found)
    return DONE


def _of_folders(model: "Model", given: argparse.Namespace) -> int:
    from cd_pipeline.prediction.folder import predict_folders

    predict = partial(model.predict, **_options(model, given))
    rows = predict_folders(
        predict, model, given.photos, given.output, overlays=given.overlay, progress=_progress
    )
    left_out = [row for row in rows if row.reason]
    for row in left_out:
        print(f"left out: {row.name}: {row.reason}", file=sys.stderr)
    if given.json:
        _write_json(given, {**_heading(model, given), **_listed(rows)})
    if given.json != "-":
        print(f"{len(rows) - len(left_out)} predicted, {len(left_out)} left out: {given.output}")
    return SOME_LEFT_OUT if left_out else DONE


def _progress(matches: Sequence[Any]) -> Iterable[Any]:
    if not sys.stderr.isatty():
        return matches
    from tqdm import tqdm

    return tqdm(matches, desc="predicting", leave=False)


def _heading(model: "Model", given: argparse.Namespace) -> dict[str, Any]:
    from cd_pipeline.prediction.description import describe_model

    names = model.interface.task.picture_names
    photos = {name: str(photo) for name, photo in zip(names, given.photos, strict=True)}
    used = {"fit": given.fit or model.interface.fit, "register": given.register}
    return {**photos, **used, "threshold": model.threshold, "model": describe_model(model)}


def _described(found: "Found") -> dict[str, Any]:
    from cd_pipeline.prediction.description import describe_result

    return describe_result(found)


def _listed(rows: "Sequence[Row]") -> dict[str, Any]:
    return {
        "results": [{"name": row.name, **row.description} for row in rows if not row.reason],
        "left_out": [{"name": row.name, "reason": row.reason} for row in rows if row.reason],
    }


def _write_json(given: argparse.Namespace, content: dict[str, Any]) -> None:
    from cd_pipeline.data.files import write_text

    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if given.json == "-":
        print(text, end="")
    else:
        write_text(Path(given.json), text)


def _tell(found: "Found") -> None:
    from cd_pipeline.prediction.results import Prediction

    if isinstance(found, Prediction):
        covered = (
            f", of the {found.covered_fraction:.0%} that both show" if found.transform is not None else ""
        )
        print(f"changed: {found.changed_fraction:.2%} of the photo{covered}; {_places(found)}")
    else:
        shares = {name: share for name, share in found.fractions.items() if share}
        print(f"marked: {found.marked_fraction:.2%} of the photo; {_places(found)}")
        for name, share in sorted(shares.items(), key=lambda item: -item[1]):
            print(f"  {name}: {share:.2%}")
    for box in found.boxes[:LISTED_BOXES]:
        name = f"{box.class_name}, " if box.class_name else ""
        print(
            f"  {name}{box.width}x{box.height} px at left {box.left}, top {box.top}; "
            f"probability {box.mean_probability:.2f}"
        )
    if len(found.boxes) > LISTED_BOXES:
        print(f"  and {len(found.boxes) - LISTED_BOXES} smaller ones")


def _places(found: "Found") -> str:
    return "1 place" if len(found.boxes) == 1 else f"{len(found.boxes)} places"


if __name__ == "__main__":
    sys.exit(main())
