"""The command `cd-pipeline release` as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cd_pipeline.cli import main
from cd_pipeline_tests.release.deliveries import Releases, scores_with, version_of

HEAVY = ("dagster", "torch", "cv2", "pandas", "pyarrow", "coremltools", "numpy")


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """Rooms with a first release, a better one, and a worse candidate."""
    monkeypatch.setenv("CD_PIPELINE_DATA", str(tmp_path))
    found = Releases(tmp_path / "rooms")
    for number, (name, recall) in enumerate((("first", 0.5), ("better", 0.6), ("worse", 0.4))):
        found.offer(name, scores_with(recall, seed=number))
    return found


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr; nothing may be on stdout."""
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    assert found.err.startswith("cd-pipeline release: ")
    return found.err


def test_the_list_shows_what_is_shipped_and_why_each_version_is_or_is_not(
    releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["release", "list"]) == 0
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.endswith(f"release/current leads to {version_of('better')}")
    words = [(row[0], *row[1:].split()[:2]) for row in rows]
    assert words == [
        (" ", version_of("worse"), "rejected"),
        ("*", version_of("better"), "shipped"),
        (" ", version_of("first"), "earlier"),
    ]
    assert "with 95 % confidence at least -0." in rows[0]
    assert last.startswith("shipped since 20")
    assert "by a release: test F1 0.7" in last


def test_a_rollback_without_version_goes_to_the_one_shipped_before(
    releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["release", "rollback"]) == 0
    assert capsys.readouterr().out == f"shipped: {version_of('first')}, instead of {version_of('better')}\n"
    assert releases.current_text() == "change_ts.pt of first"
    told = json.loads((releases.store.folder / "current.json").read_text())
    assert (told["by"], told["after"]) == ("rollback", version_of("better"))
    assert main(["release", "list"]) == 0
    printed = capsys.readouterr().out
    assert f"  {version_of('better')}  withdrawn" in printed
    assert "by a rollback: asked for by" in printed
    assert main(["release", "rollback"]) == 2
    assert f"no kept version was shipped before {version_of('first')}" in said(capsys)


def test_a_rollback_goes_to_any_kept_version_and_says_if_it_had_been_rejected(
    releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["release", "rollback", version_of("worse")]) == 0
    assert "; it had been rejected" in capsys.readouterr().out
    assert releases.current_text() == "change_ts.pt of worse"


def test_another_recipe_has_releases_of_its_own(
    releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Releases(tmp_path / "cracks").offer("crack", scores_with(0.5))
    assert main(["release", "list", "--recipe", "cracks"]) == 0
    assert version_of("crack") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rollback", "../../../checkpoint"], "expected 12 digits or letters from a to f"),
        (["rollback", "/etc/passwd"], "expected 12 digits or letters from a to f"),
        (["rollback", ".."], "expected 12 digits or letters from a to f"),
        (["rollback", "0" * 12], f"version {'0' * 12} is not in "),
        (["rollback", version_of("better")], "is shipped already"),
        (["list", "--recipe", "../rooms"], "--recipe '../rooms': expected a name of small letters"),
        (["rollback", "--recipe", "a/b"], "--recipe 'a/b': expected a name of small letters"),
        (["list", "--recipe", "garage"], 'materialize -m cd_pipeline.definitions --select "*garage/release"'),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2_and_changes_nothing(
    releases: Releases, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = sorted(releases.store.folder.rglob("*"))
    assert main(["release", *arguments]) == 2
    assert message in said(capsys)
    assert sorted(releases.store.folder.rglob("*")) == before
    assert releases.current_text() == "change_ts.pt of better"


@pytest.mark.parametrize("arguments", [["release"], ["release", "forward"], ["release", "list", "extra"]])
def test_what_the_parser_refuses_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "--help" in told


def test_a_damaged_record_is_named_and_the_others_are_listed(
    releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    record = releases.store.folder / "versions" / version_of("first") / "release.json"
    record.write_text("{")
    assert main(["release", "list"]) == 0
    found = capsys.readouterr()
    assert found.err.startswith(f"left out: {record}: ")
    assert found.out.count("\n") == 4


def test_the_release_command_loads_none_of_the_heavy_packages(releases: Releases) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from cd_pipeline.cli import main; main(['release', 'list']); main(['release', 'rollback']); "
            f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "[]"
    assert f"shipped: {version_of('first')}" in done.stdout
