"""From the rows of the manifest to pictures: a pair rendered from its photo and plan."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.files import digest, digest_of
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.manifest import Pair, each_pair
from cd_pipeline.data.samples import CACHE_BYTES, Roots, Sample
from cd_pipeline.engine.local import LocalEngine
from cd_pipeline.engine.runner import ShardRunner
from cd_pipeline.engine.shards import Shards
from cd_pipeline.synthesis.pairs import FOLDER, plan_of
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.plan import ChangePlan, label_owners
from cd_pipeline.synthesis.realistic_plan import RealisticPlan
from cd_pipeline.synthesis.realistic_render import Rendering, render_realistic
from cd_pipeline.synthesis.render import render

PAIRS_A_SHARD = 8
"""A tenth of a second of work or a few, against a millisecond for the record: a hundred pairs keep 12 cores busy, and
a killed run does no more than a shard a core again."""


def render_plan(pair: Pair, plan: ChangePlan | RealisticPlan, photos: PhotoStore) -> Sample:
    """Render a plan of a pair: a realistic one at the pair's `side`, a published one at the photo's size.

    Raises:
        PhotoError: a photo is no longer the one that plans are drawn for.
    """
    if isinstance(plan, RealisticPlan):
        return _rendering(pair, plan, photos).pair
    return render(photos.photo(pair.photo, pair.photo_sha256), plan)


class FrozenPairs:
    """The pairs of a manifest that are rendered once, read anew each time they are gone through.

    Args:
        manifest: its path.
    """

    def __init__(self, manifest: Path) -> None:
        self._manifest = manifest

    def __iter__(self) -> Iterator[Pair]:
        return each_pair(self._manifest, frozen=True)


@dataclass(frozen=True, slots=True)
class RenderedShard:
    """What comes of rendering some pairs.

    Attributes:
        versions: content hash of each pair's pictures.
        files: SHA-256 of each file, by its path below `change_masks`.
    """

    versions: list[str]
    files: dict[str, str]

    def to_plain(self) -> Mapping[str, Any]:
        """Return all of it by name."""
        return {"versions": self.versions, "files": self.files}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what `to_plain` returned."""
        return cls(plain["versions"], plain["files"])


class RenderShard:
    """Renders the pairs of one shard after the other; keeps decoded photos.

    A copy in another process, of which there is one a core, keeps a quarter as many.
    """

    def __init__(self, roots: Roots, cache_bytes: int) -> None:
        self._roots, self._cache_bytes = roots, cache_bytes
        self._photos = PhotoStore(roots, cache_bytes=cache_bytes)

    def __reduce__(self) -> tuple[type["RenderShard"], tuple[Roots, int]]:
        return RenderShard, (self._roots, self._cache_bytes // 4)

    def __call__(self, pairs: Sequence[Pair]) -> RenderedShard:
        """Write the pictures of pairs, as `render_pairs` does."""
        done, folder = RenderedShard([], {}), self._roots.workspace / FOLDER
        for pair in pairs:
            arrays = render_pair(pair, self._photos)
            for path, sha256 in _write_pair(pair, arrays, self._roots):
                done.files[path.relative_to(folder).as_posix()] = sha256
            done.versions.append(_version(pair, arrays))
        return done


def render_pairs(
    pairs: Sequence[Pair] | FrozenPairs,
    roots: Roots,
    *,
    threads: int = 1,
    runner: ShardRunner | None = None,
    progress: Callable[[], object] = lambda: None,
) -> str:
    """Render frozen pairs to `change_masks/<split>/{before,after,mask,valid}/<pair_id>.png`.

    `before` and `after` are written where they are not the photo itself, `valid` where part of the area does not count.

    Files of pairs that are no longer in the manifest are deleted. With `FrozenPairs` memory hardly grows with the
    manifest.

    Args:
        pairs: rows of the manifest; those that are drawn anew each epoch are left out.
        roots: where photos are read and pictures written.
        threads: without a runner, shards of pairs that are rendered at a time.
        runner: where they are rendered, and what is done already; the bytes do not depend on it.
        progress: called once a pair.

    Returns:
        The content hash of all pictures.

    Raises:
        FileNotFoundError, ValueError: a photo is gone or no longer the one that plans are drawn for, or a plan is
            missing.
    """
    runner = runner or ShardRunner(LocalEngine(threads))
    frozen = pairs if isinstance(pairs, FrozenPairs) else [pair for pair in pairs if pair.after is not None]
    shards, first = Shards(frozen, PAIRS_A_SHARD), next(iter(frozen), None)
    # published pairs need each photo once, at its own size: nothing to keep
    work = RenderShard(roots, CACHE_BYTES if first and first.side else 0)

    def versions() -> Iterator[str]:
        for done in runner.map(work, shards, RenderedShard):
            for version in done.versions:
                progress()
                yield version

    version = digest_of(versions())
    _delete_leftovers(frozen, roots.workspace / FOLDER)
    return version


def render_pair(pair: Pair, photos: PhotoStore, *, nuisance: bool = True) -> Sample:
    """Render a frozen pair from its photo and the plan in its row.

    Args:
        pair: its row.
        photos: where photos are read.
        nuisance: False leaves it out; then the mask holds all that differs.

    Raises:
        ValueError: there is no plan, or a photo is no longer the one that it was drawn for.
    """
    plan = plan_of(pair)
    if isinstance(plan, RealisticPlan):
        return _rendering(pair, plan, photos, nuisance=nuisance).pair
    return render_plan(pair, plan, photos)


def change_owners(pair: Pair, photos: PhotoStore) -> tuple[npt.NDArray[np.int16], list[str]]:
    """Tell which change of a frozen pair each pixel belongs to.

    Returns:
        HW int16, the number of the change, -1: none, at the size the pair is rendered at; and the kinds of
        all changes in order.
    """
    plan = plan_of(pair)
    kinds = [change.kind for change in plan.changes]
    if isinstance(plan, RealisticPlan):
        return _rendering(pair, plan, photos, nuisance=False).owners, kinds
    return label_owners(plan, pair.width, pair.height), kinds


def _rendering(pair: Pair, plan: RealisticPlan, photos: PhotoStore, *, nuisance: bool = True) -> Rendering:
    if pair.side is None:
        raise ValueError(f"pair {pair.pair_id}: no side in the manifest; materialize pair_manifest again")
    return render_realistic(plan, pair.photo, pair.photo_sha256, photos, pair.side, nuisance=nuisance)


def _version(pair: Pair, arrays: Sample) -> str:
    unwritten = pair.photo_sha256
    return digest(
        pair.pair_id,
        *(
            unwritten if reference == pair.photo else image.tobytes()
            for reference, image in _images(pair, arrays)
        ),
    )


def _write_pair(pair: Pair, arrays: Sample, roots: Roots) -> Iterator[tuple[Path, str]]:
    for reference, image in _images(pair, arrays):
        if reference != pair.photo:
            path = roots.resolve(reference)
            yield path, write_png(path, image)


def _images(pair: Pair, arrays: Sample) -> Iterator[tuple[str, Image]]:
    # with their references
    for reference, image in zip(
        (pair.before, pair.after, pair.mask, pair.valid), arrays.arrays, strict=False
    ):
        if reference is not None:
            yield reference, image


def _delete_leftovers(frozen: Iterable[Pair], folder: Path) -> None:
    # a number of 8 bytes for each file that is kept: their names would fill a memory
    kept = np.sort(np.fromiter((hash(reference) for reference in _references(frozen)), np.int64))
    for kind in folder.glob("*/*"):
        if not kind.is_dir():
            continue
        with os.scandir(kind) as found:
            for file in found:
                number = hash(f"workspace:{FOLDER}/{kind.parent.name}/{kind.name}/{file.name}")
                place = int(kept.searchsorted(number))
                if file.is_file() and (place == len(kept) or kept[place] != number):
                    Path(file.path).unlink()


def _references(pairs: Iterable[Pair]) -> Iterator[str]:
    for pair in pairs:
        yield from filter(None, (pair.before, pair.after, pair.mask, pair.valid))
