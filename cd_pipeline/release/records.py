"""What is written of a version: `release.json` beside its files, `current.json` beside what is shipped."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from cd_pipeline.release.errors import ReleaseError

RECORD, CURRENT = "release.json", "current.json"
VERSION = re.compile(r"[0-9a-f]{12}")
"""A version, whole."""
Model = TypeVar("Model", bound=BaseModel)


class Rule(BaseModel):
    """By what a challenger is judged; the fields are those of the recipe's `release`."""

    model_config = ConfigDict(frozen=True)

    margin: float
    confidence: float
    resamples: int
    seed: int


class Decision(BaseModel):
    """Whether a version was released, and all numbers of it.

    Attributes:
        released: it was.
        why: in a sentence.
        measure: f1 or miou.
        test_set: hash of the examples that both were scored on.
        challenger: score of this version, in [0, 1].
        against: the champion; None: there was none, and nothing was compared.
        champion: its score.
        difference: challenger less champion.
        low, high: one-sided bounds of the difference, each with the rule's confidence.
        examples, clusters: of the test set; examples of a cluster share a photo.
        rule: that was applied.
    """

    model_config = ConfigDict(frozen=True)

    released: bool
    why: str
    measure: Literal["f1", "miou"]
    test_set: str
    challenger: float
    rule: Rule
    against: str | None = None
    champion: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    examples: int | None = None
    clusters: int | None = None


class Candidate(BaseModel):
    """A package with all its forms, as it is delivered.

    Attributes:
        version: hash of all below that it is known by, 12 hex digits.
        checkpoint_version: hash of the weights.
        data_version: hash of the manifest they were trained on.
        threshold: above it a pixel is marked; None: the most probable class is taken.
        package_digest: what the Core ML package computes and says.
        input_size: of the network, px.
        torchscript: name of the TorchScript file.
        files: SHA-256 of every file, by its path in the folder.
    """

    model_config = ConfigDict(frozen=True)

    version: str = Field(pattern=rf"^{VERSION.pattern}$")
    checkpoint_version: str
    data_version: str
    threshold: float | None
    package_digest: str
    input_size: int
    torchscript: str
    files: dict[str, str]


class Record(Candidate):
    """A kept version.

    Attributes:
        number: of its decision, counted up: the newest has the highest.
        decided_at: time of the decision, in UTC.
        decision: the newest on it.
    """

    number: int
    decided_at: str
    decision: Decision

    @computed_field  # type: ignore[prop-decorator]
    @property
    def parents(self) -> tuple[str, ...]:
        """The version it was compared with, if any."""
        return (self.decision.against,) if self.decision.against else ()


class Shipment(BaseModel):
    """That a version was made the shipped one.

    Attributes:
        version: that was.
        why: in a sentence.
        since: in UTC.
        by: the asset release, or a person's rollback.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    why: str
    since: str
    by: Literal["release", "rollback"]


class Current(Shipment):
    """What is shipped, after what, and what was before.

    Attributes:
        after: the version shipped just before; None: it is the first.
        history: earlier shipments, oldest first.
    """

    after: str | None = None
    history: tuple[Shipment, ...] = ()

    @classmethod
    def of(cls, shipments: Sequence[Shipment]) -> Self:
        """Make it of all shipments, oldest first, the current one last."""
        *earlier, last = shipments
        after = earlier[-1].version if earlier else None
        return cls(**last.model_dump(), after=after, history=tuple(earlier))

    @property
    def shipments(self) -> tuple[Shipment, ...]:
        """All of them, oldest first."""
        return (*self.history, Shipment(**self.model_dump(include=set(Shipment.model_fields))))


class Lineage(NamedTuple):
    """What shipments have come to.

    Attributes:
        line: versions each of which was shipped on top of the one before it; the last is shipped now.
        withdrawn: versions that rollbacks went back from; only another rollback ships them again.
    """

    line: tuple[str, ...]
    withdrawn: frozenset[str]


def lineage(shipments: Sequence[Shipment]) -> Lineage:
    """Follow shipments, oldest first: a rollback within the line cuts it off there, any other one adds to it."""
    line: list[str] = []
    withdrawn: set[str] = set()
    for shipment in shipments:
        version = shipment.version
        if shipment.by == "rollback":
            back = version in line
            cut = len(line) - 1 - line[::-1].index(version) if back else len(line)
            withdrawn.update(line[cut:] if back else line[-1:])
            line = line[:cut]
        line.append(version)
        withdrawn.discard(version)
    return Lineage(tuple(line), frozenset(withdrawn))


def read_model(path: Path, kind: type[Model], remedy: str) -> Model:
    """Read a JSON file.

    Raises:
        FileNotFoundError: there is none.
        ReleaseError: not such a file; the message names the first wrong field and the remedy.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise ReleaseError(f"{path}: {field}: {first['msg']}; {remedy}") from None


def now() -> str:
    """Return the time in UTC, to the second; it is told, and nothing depends on it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
