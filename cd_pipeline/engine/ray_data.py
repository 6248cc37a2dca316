"""The engine of a Ray cluster: its processes work on shards, by Ray Data. Needs the extra `ray`."""

import logging
import os
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from cd_pipeline.engine.engine import Result, Shard

SHARDS_AT_ONCE = 1024
"""Shards in Ray's object store at a time, some 100 MB of manifest rows: memory does not grow with the manifest.
More would be too much for a small machine; fewer, and starting the workers anew would cost more than the work."""
TOLD = "told"
"""The column of pickled results, as `shard` is that of pickled shards."""


class RayEngine:
    """Works on shards in processes of the Ray cluster that this process is connected to.

    Each process loads the work once and takes one shard after the other; each has one core, on which torch and
    OpenCV use one thread, or a GPU to itself. So results depend neither on the number of workers nor on their
    machines' cores. A shard whose process died is done by another; relative paths lead from the driver's folder.

    Args:
        workers: processes.
        gpu: each has a GPU.
    """

    def __init__(self, workers: int, *, gpu: bool = False) -> None:
        self._workers = workers
        self._gpu = gpu

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the result of each shard, as of `Engine`.

        Raises:
            ConnectionError: the cluster, or a worker of it, was lost.
        """
        import ray

        held, left = ray.put(pickle.dumps(work)), iter(shards)
        while some := list(islice(left, SHARDS_AT_ONCE)):
            yield from self._results(held, [{"shard": pickle.dumps(shard)} for shard in some])

    def _results(self, held: Any, rows: list[dict[str, bytes]]) -> Iterator[Any]:  # noqa: ANN401 - of Ray
        import ray.data
        from ray.exceptions import RayError

        logging.getLogger("ray.data").setLevel(logging.WARNING)
        logging.getLogger("ray.data._internal.progress").setLevel(
            logging.ERROR
        )  # that there is none, it warns
        waiting = ray.data.from_items(rows, override_num_blocks=len(rows))  # a task for each shard
        waiting.context.execution_options.preserve_order = True
        waiting.context.enable_progress_bars = False
        waiting.context.print_on_execution_start = False
        found = waiting.map(
            _Worker,  # type: ignore[arg-type]  # a class is taken too, and becomes an actor
            fn_constructor_args=(held, Path.cwd()),
            compute=ray.data.ActorPoolStrategy(size=min(self._workers, len(rows))),
            num_cpus=None if self._gpu else 1,
            num_gpus=1 if self._gpu else None,
        )
        try:
            for row in found.iter_rows():
                good, told = pickle.loads(row[TOLD])
                if not good:
                    raise told
                yield told
        except RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise ConnectionError(
                f"the Ray cluster gave no answer ({type(error).__name__}: {reason}); see its logs, then run again: "
                "what is done is not done again"
            ) from error


class _Worker:
    """What lives in a process of the cluster: the work, loaded when the first shard comes."""

    def __init__(self, held: Any, folder: Path) -> None:  # noqa: ANN401 - a reference of Ray
        if folder.is_dir():
            os.chdir(folder)  # the driver's, from which relative paths lead
        os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")  # read when OpenCV is loaded, with the work
        self._held = held
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        import ray

        try:
            if self._work is None:
                self._work = pickle.loads(ray.get(self._held))
            return {TOLD: pickle.dumps((True, self._work(pickle.loads(row["shard"]))))}
        except Exception as error:  # told to the driver, which raises it
            return {TOLD: pickle.dumps((False, portable(error)))}


def portable(error: Exception) -> Exception:
    """Return an error as another process can read it: itself, with a note of where it was raised.

    One that cannot be pickled becomes a RuntimeError that says the same.
    """
    error.add_note("in a Ray worker:\n" + "".join(traceback.format_exception(error)))
    plain = error.with_traceback(None)
    plain.__cause__ = plain.__context__ = None
    try:
        same = pickle.loads(pickle.dumps(plain))
        if type(same) is type(plain) and str(same) == str(plain):
            return plain
    except Exception:  # whatever an exception's own pickling raises
        same = None
    return RuntimeError(f"{type(error).__name__}: {error}")
