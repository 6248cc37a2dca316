from collections.abc import Iterator
from pathlib import Path

import pytest

from cd_pipeline.data.files import digest
from cd_pipeline.data.manifest import Pair, write_pairs
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.samples import Roots, load_sample
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.engine.local import LocalEngine
from cd_pipeline.engine.records import ShardRecords
from cd_pipeline.engine.runner import ShardRunner
from cd_pipeline.synthesis import rendered_pairs
from cd_pipeline.synthesis.pairs import plan_pairs
from cd_pipeline.synthesis.rendered_pairs import FrozenPairs, render_pairs
from cd_pipeline.synthesis.settings import RealisticSynthesis
from cd_pipeline_tests.drawn import draw_photo_tree


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Pair]]:
    """A folder of photos, and pairs that are planned from them, some of them to be drawn anew each epoch."""
    source = draw_photo_tree(tmp_path_factory.mktemp("photos"), {"trainval": {"A": 5}, "test": {"A": 2}})
    photos = assign_splits(scan_photos(source).photos, SplitSettings())
    settings = RealisticSynthesis(preset="realistic", epoch_pairs=8, frozen_pairs=6)
    return source, plan_pairs(photos, settings, 48)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cd_pipeline.synthesis.rendered_pairs.PAIRS_A_SHARD", 2)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in visible(folder)}


def visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.png") if path.is_file())


def kept(folder: Path, threads: int = 1) -> ShardRunner:
    return ShardRunner(LocalEngine(threads), ShardRecords(folder / "change_masks", "one recipe"))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_version_does_not_depend_on_shards_or_threads(
    drawn: tuple[Path, list[Pair]], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, pairs = drawn
    version = render_pairs(pairs, Roots(source, tmp_path / "a"), threads=1)
    monkeypatch.setattr("cd_pipeline.synthesis.rendered_pairs.PAIRS_A_SHARD", size)
    assert render_pairs(pairs, Roots(source, tmp_path / "b"), threads=3) == version
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_version_is_a_hash_of_the_pictures_that_lie_on_disk(
    drawn: tuple[Path, list[Pair]], tmp_path: Path
) -> None:
    source, pairs = drawn
    roots = Roots(source, tmp_path)
    version = render_pairs(pairs, roots, threads=2)
    frozen = [pair for pair in pairs if pair.after is not None]
    arrays = ((pair.pair_id, load_sample(pair, roots).arrays) for pair in frozen)
    assert version == digest(*(digest(name, *(array.tobytes() for array in found)) for name, found in arrays))


def test_pairs_read_from_the_manifest_as_they_are_rendered_give_the_same(
    drawn: tuple[Path, list[Pair]], tmp_path: Path
) -> None:
    source, pairs = drawn
    write_pairs(tmp_path / "pairs.parquet", pairs)
    frozen = FrozenPairs(tmp_path / "pairs.parquet")
    for _ in range(2):
        assert [pair.pair_id for pair in frozen] == [pair.pair_id for pair in pairs if pair.split != "train"]
    calls: list[None] = []
    version = render_pairs(frozen, Roots(source, tmp_path / "a"), progress=lambda: calls.append(None))
    assert version == render_pairs(pairs, Roots(source, tmp_path / "b"))
    assert len(calls) == len(list(frozen))


def test_what_was_rendered_before_an_error_is_not_rendered_again(
    drawn: tuple[Path, list[Pair]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, pairs = drawn
    whole = render_pairs(pairs, Roots(source, tmp_path / "whole"))
    frozen = [pair for pair in pairs if pair.after is not None]
    fails, rendered, original = frozen[7].pair_id, list[str](), rendered_pairs.render_pair

    def render(pair: Pair, *rest: object) -> object:
        if pair.pair_id == fails:
            raise OSError(28, "No space left on device")
        rendered.append(pair.pair_id)
        return original(pair, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rendered_pairs, "render_pair", render)
    roots = Roots(source, tmp_path / "data")
    with pytest.raises(OSError, match="No space left"):
        render_pairs(pairs, roots, runner=kept(roots.workspace))
    assert rendered == [pair.pair_id for pair in frozen[:7]]
    fails = ""
    rendered.clear()
    calls: list[None] = []
    version = render_pairs(pairs, roots, runner=kept(roots.workspace, 2), progress=lambda: calls.append(None))
    assert version == whole
    assert sorted(rendered) == sorted(pair.pair_id for pair in frozen[6:])
    assert len(calls) == len(frozen)
    assert files(roots.workspace) == files(tmp_path / "whole")
