"""From a recipe's settings to an engine."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cd_pipeline.engine.engine import Engine
from cd_pipeline.engine.local import LocalEngine
from cd_pipeline.engine.settings import EngineSettings


@contextmanager
def build_engine(
    settings: EngineSettings, *, threads: int, logger: logging.Logger, gpu: bool = False
) -> Iterator[Engine]:
    """Have an engine for the length of the block; a Ray cluster that was started for it is shut down then.

    Args:
        settings: which engine.
        threads: of the local engine, shards at a time.
        logger: is told where a Ray cluster works.
        gpu: the work uses a GPU: each Ray worker has one of its own, if the cluster has any.

    Raises:
        ConnectionError: no Ray cluster answers.
        ValueError: it has fewer cores, or GPUs, than workers are asked for.
    """
    if settings.engine == "local":
        yield LocalEngine(threads)
        return
    from cd_pipeline.engine.ray_cluster import at_work, connected, nodes, require_room
    from cd_pipeline.engine.ray_data import RayEngine

    with connected(settings, logger):
        used, on_gpu = at_work(nodes(), gpu=gpu)
        places = sum(node.places(on_gpu=on_gpu) for node in used)
        workers = settings.workers or places
        require_room("compute.workers", workers, places, on_gpu=on_gpu)
        logger.info(f"{workers} Ray workers, each with {'a GPU' if on_gpu else 'one core'}")
        yield RayEngine(workers, gpu=on_gpu)
