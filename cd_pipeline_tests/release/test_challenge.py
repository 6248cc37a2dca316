"""Champion and challenger: what is shipped, what is kept, and what a crash leaves behind."""

import builtins
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cd_pipeline.data.files import file_digest
from cd_pipeline.release.challenge import Scored, require_same_task
from cd_pipeline.release.errors import ReleaseError
from cd_pipeline.release.records import Rule
from cd_pipeline.release.scores import ScoresError
from cd_pipeline_tests.release.deliveries import (
    RULE,
    Releases,
    deliver_to,
    scores_with,
    version_of,
    versions_of,
)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path)


def contents(folder: Path) -> dict[str, str]:
    """Every file and link below a folder but the lock, with what it holds."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink() else file_digest(path)
        for path in folder.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name != ".lock"
    }


def test_the_first_candidate_is_shipped_without_comparison(releases: Releases) -> None:
    outcome = releases.offer("first", scores_with(0.5))
    assert outcome.record.decision.released
    assert outcome.record.decision.against is None
    assert outcome.record.decision.challenger == pytest.approx(2 * 0.5 / 1.5, abs=0.01)
    assert str((releases.store.folder / "current").readlink()) == f"versions/{version_of('first')}"
    assert releases.current_text() == "change_ts.pt of first"
    told = json.loads((releases.store.folder / "current.json").read_text())
    assert (told["version"], told["by"], told["after"]) == (version_of("first"), "release", None)


def test_a_version_holds_the_whole_delivery_and_the_decision_with_its_numbers(releases: Releases) -> None:
    releases.offer("first", scores_with(0.5))
    releases.offer("second", scores_with(0.6, seed=1))
    folder = releases.store.folder / "versions" / version_of("second")
    assert {path for path in contents(folder) if not path.startswith("scores/")} == {
        "change_detector.mlpackage/Data/weights.bin",
        "change_ts.pt",
        "MODEL_CARD.md",
        "release.json",
    }
    told = json.loads((folder / "release.json").read_text())
    assert told["parents"] == [version_of("first")]
    decision = told["decision"]
    assert decision["difference"] == pytest.approx(decision["challenger"] - decision["champion"])
    assert decision["low"] < decision["difference"] < decision["high"]
    assert (decision["examples"], decision["clusters"]) == (40, 20)
    assert decision["rule"] == {"margin": 0.01, "confidence": 0.95, "resamples": 300, "seed": 42}


def test_a_better_challenger_is_shipped(releases: Releases) -> None:
    releases.offer("first", scores_with(0.5))
    outcome = releases.offer("better", scores_with(0.6, seed=1))
    assert outcome.record.decision.released
    assert outcome.shipped == version_of("better")
    assert releases.current_text() == "change_ts.pt of better"


def test_a_worse_challenger_is_kept_and_not_shipped(releases: Releases) -> None:
    releases.offer("first", scores_with(0.6))
    outcome = releases.offer("worse", scores_with(0.5, seed=1))
    assert not outcome.record.decision.released
    assert outcome.shipped == version_of("first")
    assert releases.current_text() == "change_ts.pt of first"
    assert releases.kept() == versions_of(["first", "worse"])
    assert "rejected" in outcome.sentence
    assert f"of {version_of('first')}" in outcome.sentence


def test_a_challenger_as_good_but_for_noise_is_shipped_and_without_margin_it_is_not(
    tmp_path: Path,
) -> None:
    for margin, released in ((0.01, True), (0.0, False)):
        releases = Releases(tmp_path / str(margin))
        rule = Rule(**{**RULE.model_dump(), "margin": margin})
        releases.offer("first", scores_with(0.6, seed=0), rule=rule)
        outcome = releases.offer("alike", scores_with(0.6, seed=2), rule=rule)
        assert outcome.record.decision.released is released


def test_the_same_candidate_again_changes_nothing(releases: Releases) -> None:
    releases.offer("first", scores_with(0.6))
    for name, recall in (("first", 0.6), ("worse", 0.5), ("better", 0.7)):
        releases.offer(name, scores_with(recall, seed=1))
        before = contents(releases.store.folder)
        again = releases.offer(name, scores_with(recall, seed=1))
        assert contents(releases.store.folder) == before
        assert again.shipped == version_of("better" if name == "better" else "first")


def test_a_champion_is_predicted_only_on_a_test_set_it_was_not_scored_on(releases: Releases) -> None:
    releases.offer("first", scores_with(0.6))
    releases.offer("worse", scores_with(0.5, seed=1))
    assert releases.predicted == []
    on_new = scores_with(0.5, seed=2, test_set="b" * 64)
    outcome = releases.offer("on new photos", on_new, champion=scores_with(0.4, seed=3))
    assert releases.predicted == [version_of("first")]
    assert outcome.record.decision.champion == pytest.approx(2 * 0.4 / 1.4, abs=0.01)
    assert outcome.shipped == version_of("on new photos")
    releases.store.restore(version_of("first"), "asked for")
    releases.offer("later", scores_with(0.3, seed=4, test_set="b" * 64))
    assert releases.predicted == [version_of("first")]  # its scores there were kept


def test_a_rejected_candidate_is_decided_on_again_where_the_rule_has_changed(releases: Releases) -> None:
    releases.offer("first", scores_with(0.6))
    assert not releases.offer("worse", scores_with(0.55, seed=1)).record.decision.released
    lax = Rule(**{**RULE.model_dump(), "margin": 0.2})
    outcome = releases.offer("worse", scores_with(0.55, seed=1), rule=lax)
    assert outcome.shipped == version_of("worse")


def test_networks_of_different_input_sizes_are_compared_at_the_pairs_own_size(releases: Releases) -> None:
    def with_own_size(recall: float, own: float) -> Scored:
        scored = scores_with(recall)
        at_own = scores_with(own).scores[["tp", "fp", "fn"]].add_prefix("own_size_")
        scored.scores[at_own.columns] = at_own
        return scored

    releases.offer("small", with_own_size(0.9, own=0.4), input_size=64)
    same = releases.offer("same size", with_own_size(0.5, own=0.5), input_size=64)
    assert not same.record.decision.released
    larger = releases.offer("larger", with_own_size(0.5, own=0.5), input_size=128)
    assert larger.record.decision.champion == pytest.approx(2 * 0.4 / 1.4, abs=0.01)
    assert larger.shipped == version_of("larger")


def test_scores_of_several_classes_are_the_mean_of_the_images_and_uncounted_images_are_left_out(
    releases: Releases,
) -> None:
    def classes(*scores: float) -> Scored:
        names = [f"image_{number}" for number in range(len(scores))]
        frame = pd.DataFrame({"example": names, "cluster": names, "miou": scores})
        return Scored(frame, "miou", "c" * 64)

    releases.offer("first", classes(0.5, 0.7, np.nan, 0.6))
    outcome = releases.offer("second", classes(0.6, 0.8, np.nan, 0.7))
    decision = outcome.record.decision
    assert (decision.champion, decision.challenger) == (pytest.approx(0.6), pytest.approx(0.7))
    assert (decision.low, decision.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert decision.examples == 3
    with pytest.raises(ScoresError, match="different images without a counted pixel"):
        releases.offer("third", classes(0.6, np.nan, 0.7, 0.7))


def test_scores_of_other_examples_are_not_compared(releases: Releases) -> None:
    releases.offer("first", scores_with(0.6))
    fewer = scores_with(0.7)
    with pytest.raises(ScoresError, match="scored on different examples"):
        releases.offer("second", replace(fewer, scores=fewer.scores.drop(index=0)))


def test_a_champion_of_another_task_is_left_to_a_person() -> None:
    path = Path("data/rooms/release/versions/0123456789ab/segmenter_ts.pt")
    with pytest.raises(ReleaseError, match=r"cannot be compared\. Move data/rooms/release away") as told:
        require_same_task((1, 3, ("a", "b", "c")), (1, 2, ("a", "b")), path)
    assert "\n" not in str(told.value)


# retention


def test_the_newest_rejected_and_a_number_of_versions_shipped_before_are_kept(releases: Releases) -> None:
    for number, recall in enumerate((0.3, 0.4, 0.5, 0.6)):
        releases.offer(f"good {number}", scores_with(recall, seed=number), keep=2)
        releases.offer(f"bad {number}", scores_with(recall - 0.2, seed=number + 10), keep=2)
    # shipped: good 3; newest rejected: bad 3; besides them the two shipped before, though bad 2 is newer
    assert releases.kept() == versions_of(["good 3", "bad 3", "good 2", "good 1"])
    outcome = releases.offer("good 4", scores_with(0.7, seed=20), keep=0)
    assert releases.kept() == versions_of(["good 4", "bad 3"])
    assert set(outcome.deleted) == versions_of(["good 3", "good 2", "good 1"])


def test_what_is_left_of_the_number_goes_to_the_newest_rejected(releases: Releases) -> None:
    releases.offer("good", scores_with(0.6), keep=2)
    for number in range(4):
        releases.offer(f"bad {number}", scores_with(0.4, seed=number + 1), keep=2)
    assert releases.kept() == versions_of(["good", "bad 3", "bad 2", "bad 1"])


def test_the_shipped_version_is_kept_however_old(releases: Releases) -> None:
    releases.offer("old", scores_with(0.6))
    for number in range(3):
        releases.offer(f"bad {number}", scores_with(0.4, seed=number + 1), keep=0)
    assert releases.kept() == versions_of(["old", "bad 2"])
    assert releases.current_text() == "change_ts.pt of old"


# rollback


def test_a_rollback_stays_though_the_same_candidate_comes_again(releases: Releases) -> None:
    releases.offer("first", scores_with(0.5))
    releases.offer("second", scores_with(0.6, seed=1))
    assert releases.store.shipped_before() == version_of("first")
    assert releases.store.restore(version_of("first"), "asked for") == version_of("second")
    before = contents(releases.store.folder)
    outcome = releases.offer("second", scores_with(0.6, seed=1))
    assert outcome.withdrawn
    assert outcome.shipped == version_of("first")
    assert "withdrawn by a rollback" in outcome.sentence
    assert contents(releases.store.folder) == before


def test_after_a_rollback_a_later_challenger_is_compared_with_what_was_gone_back_to(
    releases: Releases,
) -> None:
    releases.offer("first", scores_with(0.5))
    releases.offer("second", scores_with(0.7, seed=1))
    releases.store.restore(version_of("first"), "asked for")
    worse = releases.offer("worse", scores_with(0.4, seed=2))
    assert worse.shipped == version_of("first")
    between = releases.offer("between", scores_with(0.6, seed=3))
    assert between.record.decision.against == version_of("first")
    assert between.shipped == version_of("between")


def test_each_rollback_goes_one_version_further_back(releases: Releases) -> None:
    for number in range(3):
        releases.offer(f"version {number}", scores_with(0.5 + number / 10, seed=number))
    store = releases.store
    for number in (1, 0):
        version = store.shipped_before()
        assert version == version_of(f"version {number}")
        store.restore(version, "asked for")
    assert store.shipped_before() is None
    assert store.withdrawn == versions_of(["version 1", "version 2"])
    store.restore(version_of("version 2"), "it was right after all")
    assert store.withdrawn == versions_of(["version 0", "version 1"])
    assert store.shipped_before() == version_of("version 0")
    told = json.loads((store.folder / "current.json").read_text())
    assert [past["by"] for past in told["history"]] == ["release"] * 3 + ["rollback"] * 2
    assert (told["version"], told["after"]) == (version_of("version 2"), version_of("version 0"))


def test_a_rollback_over_two_versions_withdraws_both(releases: Releases) -> None:
    for number in range(3):
        releases.offer(f"version {number}", scores_with(0.5 + number / 10, seed=number))
    releases.store.restore(version_of("version 0"), "asked for")
    assert releases.store.withdrawn == versions_of(["version 1", "version 2"])


def test_what_was_shipped_meanwhile_is_not_overwritten(releases: Releases) -> None:
    releases.offer("first", scores_with(0.5))
    releases.offer("second", scores_with(0.6, seed=1))
    with pytest.raises(ReleaseError, match="was changed meanwhile; run it again"):
        releases.store.ship(version_of("first"), "late", "release", instead_of=version_of("first"))
    assert releases.current_text() == "change_ts.pt of second"


# damage


@pytest.mark.parametrize("damage", ["another", "missing"])
def test_a_version_with_a_damaged_file_is_not_shipped(releases: Releases, damage: str) -> None:
    releases.offer("first", scores_with(0.5))
    releases.offer("second", scores_with(0.6, seed=1))
    file = releases.store.folder / "versions" / version_of("first") / "change_ts.pt"
    file.unlink() if damage == "missing" else file.write_text("another")
    with pytest.raises(ReleaseError, match=r"change_ts\.pt: not the file that was kept"):
        releases.store.restore(version_of("first"), "asked for")
    assert releases.current_text() == "change_ts.pt of second"


def test_a_record_that_cannot_be_read_is_told_and_stops_nothing(releases: Releases) -> None:
    releases.offer("first", scores_with(0.5))
    releases.offer("second", scores_with(0.6, seed=1))
    record = releases.store.folder / "versions" / version_of("first") / "release.json"
    record.write_text('{"version": 3}')
    outcome = releases.offer("third", scores_with(0.7, seed=2), keep=0)
    assert outcome.shipped == version_of("third")
    assert version_of("first") in releases.kept()
    records, (problem,) = releases.store.records()
    assert {kept.version for kept in records} == versions_of(["third"])
    assert problem.startswith(f"{record}: version: ")
    assert "\n" not in problem


def test_a_link_that_leads_nowhere_is_told_and_mended_by_a_rollback(releases: Releases) -> None:
    releases.offer("first", scores_with(0.5))
    releases.offer("second", scores_with(0.6, seed=1))
    shutil.rmtree(releases.store.folder / "versions" / version_of("second"))
    with pytest.raises(ReleaseError, match=f"is no kept version; ship one of {version_of('first')} by a"):
        releases.offer("third", scores_with(0.7, seed=2))
    releases.store.restore(version_of("first"), "asked for")
    assert releases.current_text() == "change_ts.pt of first"
    assert [past.version for past in releases.store.shipments] == [
        version_of(name) for name in ("first", "second", "first")
    ]


def test_without_current_json_what_is_shipped_is_still_known(releases: Releases) -> None:
    releases.offer("first", scores_with(0.5))
    (releases.store.folder / "current.json").unlink()
    (told,) = releases.store.shipments
    assert (told.version, told.why) == (version_of("first"), "not recorded")
    (releases.store.folder / "current.json").write_text("{")
    with pytest.raises(ReleaseError, match=r"current\.json: .*delete it: what is shipped stays"):
        _ = releases.store.shipments


def test_a_delivery_that_changes_while_it_is_copied_is_not_kept(releases: Releases) -> None:
    candidate = deliver_to(releases.source, "first")
    deliver_to(releases.source, "second")
    with pytest.raises(ReleaseError, match="changed while it was copied; materialize release again"):
        releases.store.keep(candidate, releases.source)
    assert releases.kept() == {f".tmp-{version_of('first')}"}
    releases.offer("second", scores_with(0.5))
    assert releases.kept() == versions_of(["second"])


@pytest.mark.parametrize(
    "name", ["..", "../../checkpoint", "/etc", "", ".", "current", "0123456789AB", "0123456789abc", "a\0b"]
)
def test_a_name_that_is_no_version_leads_nowhere(releases: Releases, name: str) -> None:
    releases.offer("first", scores_with(0.5))
    before = contents(releases.store.folder)
    with pytest.raises(ReleaseError, match="expected 12 digits or letters from a to f"):
        releases.store.restore(name, "asked for")
    assert contents(releases.store.folder) == before


@pytest.mark.parametrize("target", ["/", "..", "versions/../../mlpackage", "versions"])
def test_a_link_out_of_the_versions_is_not_followed(releases: Releases, target: str) -> None:
    releases.offer("first", scores_with(0.5))
    link = releases.store.folder / "current"
    link.unlink()
    link.symlink_to(target)
    with pytest.raises(ReleaseError, match="which is no kept version"):
        _ = releases.store.shipped


# crashes


class Killed(BaseException):
    """The process ends here: nothing of it runs any more, not even what cleans up."""


FILE_SYSTEM = [
    (os, "replace"),
    (os, "rename"),
    (os, "symlink"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "mkdir"),
    (shutil, "copyfile"),
    (io, "open"),
    (builtins, "open"),
]


@contextmanager
def killed_at(step: int) -> Iterator[list[int]]:
    """Every change of the file system from the step on fails; yields how many were asked for."""
    asked = [0]

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the original takes
            mode = str(kwargs.get("mode", args[1] if len(args) > 1 else "r"))
            if original is io.open and not set(mode) & set("wax+"):
                return original(*args, **kwargs)
            asked[0] += 1
            if asked[0] > step:
                raise Killed
            return original(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, name in FILE_SYSTEM:
            patch.setattr(module, name, guarded(getattr(module, name)))
        yield asked


def shipped_whole(releases: Releases) -> str:
    """The name of the delivery that is shipped, all of its files."""
    current = releases.store.folder / "current"
    names = {
        path.read_text().partition(" of ")[2]
        for path in (current / "change_ts.pt", current / "MODEL_CARD.md")
    }
    (name,) = names
    releases.store.verified(version_of(name))
    return name


@pytest.fixture
def after_two(tmp_path: Path) -> Callable[[int], Releases]:
    """Makes copies of a folder in which two versions were released one after the other."""
    made = Releases(tmp_path / "made")
    for number in range(2):
        made.offer(f"old {number}", scores_with(0.4 + number / 10, seed=number))

    def copy(number: int) -> Releases:
        return Releases(shutil.copytree(tmp_path / "made", tmp_path / str(number), symlinks=True))

    return copy


def killed_run(releases: Releases, name: str, scored: Scored, step: int) -> tuple[bool, int]:
    """Decide on a delivery in a process that dies at a step; whether it came through, and its steps."""
    candidate = deliver_to(releases.source, name)
    with killed_at(step) as asked:
        try:
            releases.decide(candidate, scored, keep=0)
        except Killed:
            return False, asked[0]
    return True, asked[0]


def test_a_crash_at_any_step_leaves_a_whole_version_shipped_and_the_next_run_finishes(
    after_two: Callable[[int], Releases],
) -> None:
    history, done, step, steps = [], False, 0, 0
    while not done:
        releases = after_two(step)
        done, steps = killed_run(releases, "new", scores_with(0.7, seed=5), step)
        history.append(shipped_whole(releases))
        assert releases.store.shipments[-1].version == version_of(history[-1])
        assert releases.offer("new", scores_with(0.7, seed=5), keep=0).shipped == version_of("new")
        assert shipped_whole(releases) == "new"
        assert [past.version for past in releases.store.shipments] == [
            version_of(name) for name in ("old 0", "old 1", "new")
        ]
        assert releases.kept() == versions_of(["new"])
        assert not list(releases.store.folder.rglob(".tmp-*"))
        step += 1
    assert steps > 20
    swap = history.index("new")
    assert history == ["old 1"] * swap + ["new"] * (len(history) - swap)


def test_a_crash_of_the_very_first_release_leaves_nothing_shipped_or_all_of_it(tmp_path: Path) -> None:
    done, step = False, 0
    while not done:
        releases = Releases(tmp_path / str(step))
        done, _ = killed_run(releases, "new", scores_with(0.7), step)
        assert releases.store.shipped in (None, version_of("new"))
        assert releases.offer("new", scores_with(0.7)).record.decision.against is None
        assert shipped_whole(releases) == "new"
        assert len(releases.store.shipments) == 1
        step += 1


def test_a_crash_of_a_rollback_leaves_one_version_or_the_other(after_two: Callable[[int], Releases]) -> None:
    done, step = False, 0
    while not done:
        releases = after_two(step)
        with killed_at(step):
            try:
                releases.store.restore(version_of("old 0"), "asked for")
                done = True
            except Killed:
                pass
        back = shipped_whole(releases) == "old 0"
        assert back or not done
        assert releases.store.withdrawn == (versions_of(["old 1"]) if back else set())
        step += 1
