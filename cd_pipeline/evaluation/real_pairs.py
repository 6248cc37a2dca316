"""Scoring photos really taken at two times. They choose nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cd_pipeline.data.files import digest, keep_only
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.samples import Sample, at_input_size
from cd_pipeline.data.two_date import scan_pair_folder
from cd_pipeline.evaluation.figures import pair_row
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.protocol import SetScores, score_set, with_nuisance_on_after
from cd_pipeline.evaluation.sample_prediction import predict_sample


@dataclass(frozen=True, slots=True)
class RealMeasurement:
    """What is reported of a folder of real pairs.

    Attributes:
        scores: by name of the row: as they are, and with the standard nuisance on the second photo.
        rows: the first pairs as gallery rows.
        problems: a sentence for each file or pair that could not be used.
        version: hash of all predicted masks.
    """

    scores: dict[str, SetScores]
    rows: list[Image]
    problems: list[str]
    version: str


def named_pairs(folder: Path, problems: list[str]) -> Iterator[tuple[str, Sample]]:
    """Read the pairs of a folder with A/, B/ and label/ at their own size, in the order of their names.

    Args:
        folder: of the pairs.
        problems: gets a sentence for each file or pair that cannot be used.

    Raises:
        FileNotFoundError: one of the three folders is missing.
        ValueError: there is no pair.
    """
    found = scan_pair_folder(folder)
    problems.extend(found.problems)
    for files in found.pairs:
        try:
            yield files.name, Sample.of_pair(*files.read())
        except ValueError as error:
            problems.append(str(error))


def measure_real_pairs(predictor: Predictor, folder: Path, own: Path, *, shown: int = 12) -> RealMeasurement:
    """Predict and score the pairs of a folder.

    Args:
        predictor: the network and its threshold.
        folder: A/ before, B/ after, label/ what changed.
        own: gets `<name>.png` for each pair, 0/255 at its own size; other files in it are deleted.
        shown: pairs in the gallery.

    Raises:
        FileNotFoundError, ValueError: there is no usable pair.
    """
    problems: list[str] = []
    sized: list[tuple[str, Sample]] = []
    rows: list[Image] = []
    parts: list[object] = []
    for name, pair in named_pairs(folder, problems):
        prediction = predict_sample(predictor, pair)
        write_png(own / f"{name}.png", prediction.own_size)
        parts += [name, prediction.own_size.tobytes()]
        sized.append((name, prediction.sample))
        if len(rows) < shown:
            rows.append(pair_row(prediction.sample, prediction.mask))
    if not sized:
        raise ValueError(f"{folder}: no usable pair; {'; '.join(problems[:3])}")
    keep_only(own, {f"{name}.png" for name, _ in sized})
    return RealMeasurement(score_real_pairs(predictor, sized), rows, problems, digest(*parts))


def score_real_pairs(predictor: Predictor, sized: list[tuple[str, Sample]]) -> dict[str, SetScores]:
    """Score named pairs at the input size, as they are and with nuisance seeded by their names."""
    predict, threshold = predictor.probability, _threshold(predictor)
    return {
        "as they are": score_set(predict, (pair for _, pair in sized), threshold),
        "with nuisance on the second photo": score_set(predict, with_nuisance_on_after(sized), threshold),
    }


def sized_pairs(folder: Path, size: int, problems: list[str]) -> list[tuple[str, Sample]]:
    """Read the usable pairs of a folder at the input size; `problems` gets a sentence for each other file."""
    return [(name, at_input_size(pair, size)) for name, pair in named_pairs(folder, problems)]


def _threshold(predictor: Predictor) -> float:
    if predictor.threshold is None:
        raise ValueError("pairs are scored at a threshold, and the predictor has none")
    return predictor.threshold
