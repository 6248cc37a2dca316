"""Which examples are drawn together, and what tells a test set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.task import MaskForm
from cd_pipeline.recipe import ReleaseSettings
from cd_pipeline.release.records import Rule
from cd_pipeline.release.scores import ScoresError, cluster_of, example_scores, version_of_test_set
from cd_pipeline_tests.tiny_images import draw_scene, write_labelled
from cd_pipeline_tests.tiny_pairs import draw_pair, write_pairs_to


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[list[Pair], Roots]:
    return write_pairs_to(tmp_path, [draw_pair(number, 16) for number in range(3)])


def test_pairs_of_one_photo_are_one_cluster_and_images_and_real_pairs_their_own(
    pairs: tuple[list[Pair], Roots], tmp_path: Path
) -> None:
    first, second, third = pairs[0]
    assert cluster_of(first) == cluster_of(replace(second, photo_sha256=first.photo_sha256))
    assert cluster_of(first) != cluster_of(third)
    real = [
        replace(pair, photo="", photo_sha256="", before_sha256=pair.pair_id * 10) for pair in (first, second)
    ]
    assert cluster_of(real[0]) != cluster_of(real[1])
    scenes = [draw_scene(number, 16, 1) for number in range(2)]
    images = [
        write_labelled(tmp_path, f"scene_{number}", scene.pictures[0], scene.mask, MaskForm())
        for number, scene in enumerate(scenes)
    ]
    assert cluster_of(images[0]) == images[0].image_sha256 != cluster_of(images[1])


def test_a_test_set_is_told_by_its_rows_and_its_rendered_pictures_not_by_their_order(
    pairs: tuple[list[Pair], Roots],
) -> None:
    rows, roots = pairs
    version = version_of_test_set(rows, roots)
    assert version_of_test_set(rows[::-1], roots) == version
    others: list[Sequence[Pair]] = [rows[:2], [replace(rows[0], photo_sha256="f" * 64), *rows[1:]]]
    assert version not in {version_of_test_set(other, roots) for other in others}
    mask = roots.resolve(str(rows[1].mask))
    mask.write_bytes(mask.read_bytes() + b"more")
    assert version_of_test_set(rows, roots) != version


def test_scores_are_brought_into_the_order_of_their_names_and_foreign_ones_refused(
    pairs: tuple[list[Pair], Roots], tmp_path: Path
) -> None:
    rows = pairs[0][::-1]
    where = tmp_path / "test_predictions" / "predictions.parquet"
    scores = pd.DataFrame(
        {"file": [f"{row.name}.png" for row in rows], "tp": [3, 2, 1], "fp": 0, "fn": 0, "f1": np.nan}
    )
    found = example_scores(scores, rows, where)
    assert found["example"].tolist() == ["p0", "p1", "p2"]
    assert found["tp"].tolist() == [1, 2, 3]
    assert list(found) == ["example", "cluster", "tp", "fp", "fn"]
    with pytest.raises(
        ScoresError, match="not the test examples of the manifest; materialize test_predictions"
    ):
        example_scores(scores, rows[::-1], where)


def test_the_recipes_rule_has_the_fields_of_a_decisions_rule() -> None:
    rule = Rule(**ReleaseSettings().rule)
    assert rule.model_dump() == {"margin": 0.01, "confidence": 0.95, "resamples": 2000, "seed": 42}


@pytest.mark.parametrize(
    "wrong", [{"margin": -0.1}, {"confidence": 0.5}, {"confidence": 1}, {"resamples": 10}, {"keep": -1}]
)
def test_a_setting_out_of_its_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ReleaseSettings(**wrong)  # type: ignore[arg-type]
