"""Work on shards that a killed run need not do again."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Generic

from cd_pipeline.engine.engine import Engine
from cd_pipeline.engine.local import LocalEngine
from cd_pipeline.engine.records import Kept, ShardRecords
from cd_pipeline.engine.shards import Row, Shards

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShardRunner:
    """Applies work to shards on an engine, but to none that is done.

    Attributes:
        engine: where the work is done.
        records: of what is done; None: nothing is kept.
        logger: is told how much was done before.
    """

    engine: Engine = field(default_factory=LocalEngine)
    records: ShardRecords | None = None
    logger: logging.Logger = LOGGER

    def map(
        self,
        work: Callable[[Sequence[Row]], Kept],
        shards: Shards[Row],
        kind: type[Kept],
        made_of: Sequence[object] = (),
    ) -> Iterator[Kept]:
        """Yield the result of each shard, in the shards' order.

        Args:
            work: as of `Engine.map`.
            shards: rows; where results are kept, the `repr` of a row says all that matters of it.
            kind: of the results.
            made_of: what the results depend on beside rows and the identity of the records.

        Raises:
            Exception: what the work raises. What is done by then is not done again.
        """
        if self.records is None:
            yield from self.engine.map(work, shards)
            return
        records = self.records.of(kind.__name__, *made_of)
        paths = [records.path(shard) for shard in shards] if records.any() else []
        done = self._done(records, paths, kind)
        missing = compress(shards, (not there for there in done)) if paths else iter(shards)
        made = self.engine.map(_Recorded(work, records), missing)
        for path, there in zip(paths, done, strict=True):
            yield _again(records, path, kind) if there else next(made)
        yield from made

    def _done(self, records: ShardRecords, paths: Sequence[Path], kind: type[Kept]) -> list[bool]:
        there = [path for path in paths if path.is_file()]
        holds = self.engine.map(partial(records.holds, kind=kind), there)
        whole = {path for path, good in zip(there, holds, strict=True) if good}
        if whole:
            self.logger.info(f"resumed: {len(whole)} of {len(paths)} shards were done")
        return [path in whole for path in paths]


@dataclass(frozen=True)
class _Recorded(Generic[Row, Kept]):
    # a shard is recorded where it is worked on: what is done stays done when the driver is killed
    work: Callable[[Sequence[Row]], Kept]
    records: ShardRecords

    def __call__(self, shard: Sequence[Row]) -> Kept:
        result = self.work(shard)
        self.records.write(self.records.path(shard), result)
        return result


def _again(records: ShardRecords, path: Path, kind: type[Kept]) -> Kept:
    result = records.read(path, kind)
    if result is None:
        raise FileNotFoundError(f"{path}: was there a moment ago, and is gone or damaged now; run again")
    return result
