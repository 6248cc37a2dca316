"""A candidate is compared with what is shipped, kept, and shipped itself if it is not worse."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cd_pipeline.data.frames import read_frame
from cd_pipeline.release.errors import ReleaseError
from cd_pipeline.release.records import Candidate, Decision, Record, Rule, now
from cd_pipeline.release.scores import Measure, compare_scores, score_of
from cd_pipeline.release.store import ReleaseStore

MEASURE_NAMES = {"f1": "test F1", "miou": "mean of the test images' mIoU"}


@dataclass(frozen=True)
class Scored:
    """A candidate's test scores.

    Attributes:
        scores: as of `example_scores`.
        measure: what is compared.
        test_set: hash of the examples.
    """

    scores: pd.DataFrame
    measure: Measure
    test_set: str


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate.

    Attributes:
        record: of the candidate.
        shipped: the version that is shipped now.
        withdrawn: a rollback went back from the candidate: it is not shipped again by itself.
        deleted: older versions that were.
    """

    record: Record
    shipped: str | None
    withdrawn: bool
    deleted: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What happened, for a log."""
        version, decision = self.record.version, self.record.decision
        if self.withdrawn and self.shipped != version:
            return f"{version} was withdrawn by a rollback; {self.shipped} stays shipped"
        done = "released" if decision.released else f"rejected, {self.shipped} stays shipped"
        return f"{version} {done}: {decision.why}"


def release_candidate(
    store: ReleaseStore,
    candidate: Candidate,
    source: Path,
    scored: Scored,
    champion_scores: Callable[[Record], pd.DataFrame],
    *,
    rule: Rule,
    keep: int,
) -> Outcome:
    """Decide on a candidate and carry it out. Run again after a crash, it finishes what was begun.

    A candidate that is shipped, or was decided on against the same champion, test set and rule, changes nothing.

    Args:
        store: of the recipe.
        candidate: the delivery.
        source: its folder.
        scored: its test scores.
        champion_scores: scores the shipped version on the same examples; asked only where that was not yet done.
        rule: of the decision.
        keep: as of `ReleaseStore.prune`.

    Raises:
        ReleaseError, ScoresError: the candidate or the champion cannot be used.
    """
    store.clean()
    champion, version = store.shipped, candidate.version
    withdrawn = version in store.withdrawn
    record = store.verified(version) if store.path(version).is_dir() else None
    settled = record is not None and (withdrawn or champion == version)
    if record is None or not (settled or _answers(record.decision, champion, scored, rule)):
        decision = _decide(store, candidate, champion, scored, champion_scores, rule)
        if record is None:
            store.keep(candidate, source)
        record = _recorded(store, candidate, decision)
        store.decide(record, _parquet(scored.scores))
    if record.decision.released and not withdrawn and champion != version:
        store.ship(version, record.decision.why, "release", instead_of=champion)
    deleted = store.prune(keep, [version])
    return Outcome(record, store.shipped, withdrawn, tuple(deleted))


def _answers(decision: Decision, champion: str | None, scored: Scored, rule: Rule) -> bool:
    return (decision.against, decision.test_set, decision.rule) == (champion, scored.test_set, rule)


def _decide(
    store: ReleaseStore,
    candidate: Candidate,
    champion: str | None,
    scored: Scored,
    champion_scores: Callable[[Record], pd.DataFrame],
    rule: Rule,
) -> Decision:
    score = score_of(scored.scores, scored.measure)
    name = MEASURE_NAMES[scored.measure]
    if champion is None:
        return Decision(
            released=True,
            why=f"{name} {score:.4f}; the first, there is nothing to compare it with",
            measure=scored.measure,
            test_set=scored.test_set,
            challenger=score,
            rule=rule,
        )
    shipped = store.verified(champion)
    found = compare_scores(
        _scores_of(store, shipped, scored, champion_scores),
        scored.scores,
        scored.measure,
        rule,
        own_size=shipped.input_size != candidate.input_size,
    )
    return Decision(
        released=found.low >= -rule.margin,
        why=f"{name} {found.second:.4f} against {found.first:.4f} of {champion}: difference {found.difference:+.4f}, "
        f"with {100 * rule.confidence:g} % confidence at least {found.low:+.4f}; required is {-rule.margin:+.4f}",
        measure=scored.measure,
        test_set=scored.test_set,
        challenger=found.second,
        rule=rule,
        against=champion,
        champion=found.first,
        difference=found.difference,
        low=found.low,
        high=found.high,
        examples=found.examples,
        clusters=found.clusters,
    )


def _scores_of(
    store: ReleaseStore,
    champion: Record,
    scored: Scored,
    champion_scores: Callable[[Record], pd.DataFrame],
) -> pd.DataFrame:
    path = store.scores(champion.version, scored.test_set)
    if path is not None:
        return read_frame(path)
    found = champion_scores(champion)
    store.keep_scores(champion.version, scored.test_set, _parquet(found))
    return found


def _recorded(store: ReleaseStore, candidate: Candidate, decision: Decision) -> Record:
    records, _ = store.records()
    number = 1 + max((record.number for record in records), default=0)
    facts = candidate.model_dump(include=set(Candidate.model_fields))
    return Record(**facts, number=number, decided_at=now(), decision=decision)


def _parquet(scores: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    scores.to_parquet(content, index=False)
    return content.getvalue()


def require_same_task(found: tuple[object, ...], wanted: tuple[object, ...], path: Path) -> None:
    """Refuse a champion whose answers are of another kind: nobody but a person can choose between them.

    Args:
        found: pictures, classes and names of the champion's.
        wanted: of the recipe's.
        path: of the champion, for the message.

    Raises:
        ReleaseError: they differ.
    """
    if found != wanted:
        raise ReleaseError(
            f"{path}: is shipped and takes {found[0]} pictures and tells {found[1]} classes {found[2]}; the recipe "
            f"has {wanted[0]}, {wanted[1]} and {wanted[2]}: they cannot be compared. Move {path.parents[2]} away "
            "to release the new one without comparison"
        )
