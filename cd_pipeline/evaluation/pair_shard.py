"""What comes of predicting some test pairs: a PNG each, their scores, and what is pooled over all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from cd_pipeline.data.files import file_digest
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.preprocessing import resize_mask
from cd_pipeline.data.samples import CACHE_BYTES, Roots, at_input_size, load_sample
from cd_pipeline.evaluation.breakdown import FoundChange, found_changes
from cd_pipeline.evaluation.differencing import DifferencingOracle
from cd_pipeline.evaluation.figures import pair_row
from cd_pipeline.evaluation.image_sweep import ImageSweep
from cd_pipeline.evaluation.metrics import Confusion, has_alarm
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.sample_prediction import Prediction, named_rows, predict_sample, rows_named
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.rendered_pairs import change_owners

OnPair = Callable[[Pair, Prediction], None]


@dataclass(frozen=True, slots=True)
class PairScore:
    """One test pair: pixel counts at the size it is scored at, and at its own size.

    Pairs really taken at two times are scored at their own size, others at the input size. The own size is the
    photo's for published pairs; realistic ones are rendered at the input size. `exchanged` counts what the network marks
    when it is given the second picture as the first.
    """

    pair_id: str
    class_name: str
    changed: bool
    alarm: bool
    confusion: Confusion
    own_size: Confusion
    exchanged: Confusion

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what `asdict` returned."""
        counts = {name: Confusion(**plain[name]) for name in ("confusion", "own_size", "exchanged")}
        return cls(**{**plain, **counts})

    def to_row(self) -> dict[str, Any]:
        """Return the score as a flat row of plain values."""
        counts = {f"own_size_{key}": value for key, value in asdict(self.own_size).items()}
        return {
            "pair_id": self.pair_id,
            "file": f"{self.pair_id}.png",
            "class_name": self.class_name,
            "changed": self.changed,
            "alarm": self.alarm,
            "f1": self.confusion.f1,
            "iou": self.confusion.iou,
            "exchanged_f1": self.exchanged.f1,
            **asdict(self.confusion),
            **counts,
        }


@dataclass(slots=True)
class PairShard:
    """What comes of some pairs, one shard after the other.

    Attributes:
        scores: of each pair.
        changes: of the synthesised ones.
        sweep: the pairs' confusions at every threshold.
        oracle: what plain differencing makes of them.
        rows: of the gallery.
        files: SHA-256 of each PNG by its name.
    """

    scores: list[PairScore] = field(default_factory=list)
    changes: list[FoundChange] = field(default_factory=list)
    sweep: ImageSweep = field(default_factory=ImageSweep)
    oracle: DifferencingOracle = field(default_factory=DifferencingOracle)
    rows: list[Image] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def add(self, other: "PairShard") -> None:
        """Add the pairs that follow; the hashes of their files are of no use any more."""
        self.scores += other.scores
        self.changes += other.changes
        self.sweep.add_counts(other.sweep.counts)
        self.oracle.add_counts(other.oracle.counts)
        self.rows += other.rows

    def to_plain(self) -> Mapping[str, Any]:
        """Return all of it by name."""
        return {
            "scores": [asdict(score) for score in self.scores],
            "changes": [asdict(change) for change in self.changes],
            "files": self.files,
            "sweep": self.sweep.counts,
            "differencing": self.oracle.counts,
            **named_rows(self.rows),
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what `to_plain` returned."""
        scores = [PairScore.of_plain(score) for score in plain["scores"]]
        changes = [FoundChange(**change) for change in plain["changes"]]
        found = cls(scores, changes, rows=rows_named(plain), files=plain["files"])
        found.sweep.add_counts(plain["sweep"])
        found.oracle.add_counts(plain["differencing"])
        return found


class PredictPairs:
    """Predicts the pairs of one shard after the other; keeps the network and decoded photos.

    Args:
        predictor: the network and its threshold.
        roots: where pictures are.
        folder: for the PNGs.
        drawn: names of the pairs of the gallery.
        cache_bytes: of decoded photos; a copy in another process, of which there can be one a core, keeps a quarter.
    """

    def __init__(
        self,
        predictor: Predictor,
        roots: Roots,
        folder: Path,
        drawn: frozenset[str],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._predictor, self._roots, self._folder, self._drawn = predictor, roots, folder, drawn
        self._cache_bytes, self._photos = cache_bytes, PhotoStore(roots, cache_bytes)

    def __reduce__(self) -> tuple[type["PredictPairs"], tuple[Any, ...]]:
        made_of = self._predictor, self._roots, self._folder, self._drawn
        return PredictPairs, (*made_of, self._cache_bytes // 4)

    def __call__(self, pairs: Sequence[Pair]) -> PairShard:
        """Predict pairs, write their PNGs, and gather what is reported of them."""
        done = PairShard()
        look = partial(self._look, done)
        done.scores += predict_pairs(self._predictor, pairs, self._roots, self._folder, on_pair=look)
        for name in (f"{pair.pair_id}.png" for pair in pairs):
            done.files[name] = file_digest(self._folder / name)
        return done

    def _look(self, done: PairShard, row: Pair, found: Prediction) -> None:
        size = self._predictor.size
        pair, probability, prediction, _ = found
        done.sweep.update(probability, pair.mask, pair.valid)
        if row.plan or row.realistic_plan:  # only synthesised changes have a kind
            done.changes += found_changes(*change_owners(row, self._photos), prediction, pair.valid)
        done.oracle.update(pair.before, pair.after, pair.mask, pair.valid)
        if row.pair_id in self._drawn:
            done.rows.append(pair_row(at_input_size(pair, size), resize_mask(prediction, size)))


def predict_pairs(
    predictor: Predictor,
    pairs: Sequence[Pair],
    roots: Roots,
    folder: Path,
    *,
    on_pair: OnPair = lambda pair, prediction: None,
) -> list[PairScore]:
    """Predict pairs and write `<folder>/<pair_id>.png` (0/255, the pair's own size) for each.

    Args:
        predictor: the network and its threshold.
        pairs: rows of the manifest.
        roots: where their pictures are.
        folder: is made if needed.
        on_pair: gets each row and what is predicted.

    Raises:
        FileNotFoundError, ValueError: as `load_sample`.
    """
    scores = []
    for pair in pairs:
        arrays = load_sample(pair, roots)
        predict = partial(predict_sample, predictor, tiled=pair.tiled, own_size=pair.own_size)
        found = predict(arrays)
        sized, _, prediction, own = found
        turned = predict(arrays._replace(pictures=arrays.pictures[::-1]))
        write_png(folder / f"{pair.pair_id}.png", own)
        on_pair(pair, found)
        scores.append(
            PairScore(
                pair_id=pair.pair_id,
                class_name=pair.class_name,
                changed=bool(arrays.mask.any()),
                alarm=has_alarm(prediction if sized.valid is None else prediction & sized.valid),
                confusion=Confusion.of(prediction, sized.mask, sized.valid),
                own_size=Confusion.of(own, arrays.mask, arrays.valid),
                exchanged=Confusion.of(turned.mask, sized.mask, sized.valid),
            )
        )
    return scores
