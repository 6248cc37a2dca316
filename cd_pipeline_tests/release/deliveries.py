"""Deliveries and test scores that are drawn, not trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cd_pipeline.data.files import digest, file_digest
from cd_pipeline.release.challenge import Outcome, Scored, release_candidate
from cd_pipeline.release.records import Candidate, Record, Rule
from cd_pipeline.release.store import ReleaseStore

RULE = Rule(margin=0.01, confidence=0.95, resamples=300, seed=42)
PHOTOS, PAIRS_A_PHOTO, PIXELS = 20, 2, 1000


def scores_with(recall: float, seed: int = 0, test_set: str = "a" * 64) -> Scored:
    """Scores of pairs of 1000 changed pixels each, of which about this share is found; nothing is marked wrongly."""
    rng = np.random.default_rng(seed)
    pairs = PHOTOS * PAIRS_A_PHOTO
    found = np.clip(np.round(PIXELS * recall + rng.normal(0, 10, pairs)), 0, PIXELS).astype(np.int64)
    frame = pd.DataFrame(
        {
            "example": [f"pair_{number:03d}" for number in range(pairs)],
            "cluster": [f"photo_{number // PAIRS_A_PHOTO}" for number in range(pairs)],
            "tp": found,
            "fp": 0,
            "fn": PIXELS - found,
        }
    )
    return Scored(frame, "f1", test_set)


def deliver_to(folder: Path, name: str, input_size: int = 64) -> Candidate:
    """Write a delivery whose files say its name, in place of the one before."""
    package = folder / "change_detector.mlpackage" / "Data"
    package.mkdir(parents=True, exist_ok=True)
    paths = [package / "weights.bin", folder / "change_ts.pt", folder / "MODEL_CARD.md"]
    for path in paths:
        path.write_text(f"{path.name} of {name}")
    return Candidate(
        version=digest(name)[:12],
        checkpoint_version=digest("weights", name),
        data_version="d" * 64,
        threshold=0.5,
        package_digest=digest("package", name),
        input_size=input_size,
        torchscript="change_ts.pt",
        files={path.relative_to(folder).as_posix(): file_digest(path) for path in paths},
    )


class Releases:
    """A folder of releases and deliveries to it; `predicted` lists the champions that had to be predicted."""

    def __init__(self, root: Path) -> None:
        self.source, self.store = root / "mlpackage", ReleaseStore(root / "release")
        self.predicted: list[str] = []

    def offer(
        self,
        name: str,
        scored: Scored,
        *,
        champion: Scored | None = None,
        keep: int = 5,
        rule: Rule = RULE,
        input_size: int = 64,
    ) -> Outcome:
        """Deliver a candidate and decide on it; `champion` are the scores that predicting gives."""
        candidate = deliver_to(self.source, name, input_size)
        return self.decide(candidate, scored, champion=champion, keep=keep, rule=rule)

    def decide(
        self,
        candidate: Candidate,
        scored: Scored,
        *,
        champion: Scored | None = None,
        keep: int = 5,
        rule: Rule = RULE,
    ) -> Outcome:
        """Decide on what lies in the folder of deliveries."""

        def predict(record: Record) -> pd.DataFrame:
            self.predicted.append(record.version)
            assert champion is not None, "the champion was predicted, though its scores are kept"
            return champion.scores

        return release_candidate(self.store, candidate, self.source, scored, predict, rule=rule, keep=keep)

    def current_text(self) -> str:
        """What the shipped TorchScript file says."""
        return (self.store.folder / "current" / "change_ts.pt").read_text()

    def kept(self) -> set[str]:
        """The versions on disk, whatever their records say."""
        return {path.name for path in (self.store.folder / "versions").iterdir()}


def version_of(name: str) -> str:
    """Return the version of a delivery."""
    return digest(name)[:12]


def versions_of(names: Sequence[str]) -> set[str]:
    """Return the versions of deliveries."""
    return {version_of(name) for name in names}
