from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data import manifest
from cd_pipeline.data.labels import Box
from cd_pipeline.data.manifest import (
    PAIRS,
    PHOTOS,
    ManifestError,
    Pair,
    each_pair,
    plan_version_of,
    read_pairs,
    read_photos,
    read_two_date,
    write_pairs,
    write_photos,
    write_rows,
    write_two_date,
)
from cd_pipeline.data.photos import Photo
from cd_pipeline.data.two_date import TwoDatePair
from cd_pipeline.synthesis.nuisance import Nuisance
from cd_pipeline.synthesis.plan import Change, ChangePlan
from cd_pipeline.synthesis.realistic_plan import Patch, RealisticChange, RealisticPlan, View

texts = st.text(max_size=8)
sizes = st.integers(0, 2**31 - 1)
seeds = st.integers(0, 2**63 - 1)
boxes = st.lists(st.builds(Box, st.integers(0, 99), *[st.floats(0, 1)] * 4), max_size=3).map(tuple)
photos = st.builds(
    Photo,
    path=texts,
    tree=texts,
    class_name=texts,
    label_path=texts,
    sha256=texts,
    label_sha256=texts,
    pixels_sha256=texts,
    width=sizes,
    height=sizes,
    boxes=boxes,
    dropped_labels=st.lists(texts, max_size=2).map(tuple),
    reason=st.none() | texts,
    split=texts,
)
polygons = st.lists(st.lists(sizes, max_size=6).map(tuple), max_size=3).map(tuple)
changes = st.builds(
    Change,
    kind=texts,
    x=sizes,
    y=sizes,
    width=sizes,
    height=sizes,
    to_x=st.none() | sizes,
    to_y=st.none() | sizes,
    noise_seed=st.none() | seeds,
    erased=polygons,
)
plans = st.builds(
    ChangePlan,
    changes=st.lists(changes, max_size=3).map(tuple),
    truthful=st.booleans(),
    jpeg_quality=st.none() | st.integers(1, 100),
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
tuples_of_numbers = st.lists(numbers, max_size=8).map(tuple)
patches = st.builds(Patch, texts, texts, numbers, numbers, numbers, numbers)
nuisances = st.builds(
    Nuisance,
    gains=st.tuples(numbers, numbers, numbers),
    offset=numbers,
    contrast=numbers,
    gamma=numbers,
    gradient=st.tuples(numbers, numbers),
    vignette=numbers,
    shadow=numbers,
    shadow_outline=tuples_of_numbers,
    blur=numbers,
    noise=numbers,
    shot_noise=numbers,
    noise_seed=seeds,
    jpeg_quality=st.none() | st.integers(1, 100),
    corners=tuples_of_numbers,
)
realistic_changes = st.builds(
    RealisticChange,
    kind=texts,
    shape=texts,
    left=numbers,
    top=numbers,
    width=numbers,
    height=numbers,
    to_left=numbers,
    to_top=numbers,
    feather=numbers,
    seed=seeds,
    outline=st.none() | patches,
    source=st.none() | patches,
)
realistic_plans = st.builds(
    RealisticPlan,
    view=st.builds(View, numbers, numbers, numbers, numbers, st.booleans()),
    changes=st.lists(realistic_changes, max_size=2).map(tuple),
    swapped=st.booleans(),
    min_visible=numbers,
    before_nuisance=st.none() | nuisances,
    after_nuisance=st.none() | nuisances,
)
PAIR = Pair(
    pair_id="A__방 1__01234567",
    split="train",
    class_name="A",
    before="source:images/A/방 1.jpg",
    after="workspace:change_masks/train/after/A__방 1__01234567.png",
    mask="workspace:change_masks/train/mask/A__방 1__01234567.png",
    photo="source:images/A/방 1.jpg",
    photo_sha256="01234567",
    width=640,
    height=480,
    boxes=(Box(1, 0.5, 0.5, 0.25, 0.125),),
    seed=2**63 - 1,
    changed=True,
    plan={
        "changes": [
            {
                "kind": "move",
                "x": 1,
                "y": 2,
                "width": 30,
                "height": 40,
                "to_x": 5,
                "to_y": 0,
                "noise_seed": 2**63 - 1,
                "erased": [[1, 2, 31, 2, 31, 42], []],
            }
        ],
        "truthful": True,
        "jpeg_quality": None,
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifest")


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(photos, max_size=4))
def test_photos_read_back_as_written(folder: Path, rows: list[Photo]) -> None:
    write_photos(folder / "photos.parquet", rows)
    assert read_photos(folder / "photos.parquet") == rows


@settings(max_examples=40, deadline=None)
@given(drawn=st.lists(plans, max_size=3))
def test_pairs_read_back_as_written_with_their_plans(folder: Path, drawn: list[ChangePlan]) -> None:
    pairs = [replace(PAIR, pair_id=str(number), plan=plan.to_row()) for number, plan in enumerate(drawn)]
    write_pairs(folder / "pairs.parquet", pairs)
    again = read_pairs(folder / "pairs.parquet")
    assert [replace(pair, plan=None) for pair in again] == [replace(pair, plan=None) for pair in pairs]
    assert [ChangePlan.from_row(pair.plan or {}) for pair in again] == drawn


@settings(max_examples=25, deadline=None)
@given(drawn=st.lists(realistic_plans, max_size=2))
def test_realistic_pairs_read_back_as_written_with_their_plans(
    folder: Path, drawn: list[RealisticPlan]
) -> None:
    pairs = [
        replace(
            PAIR, pair_id=str(number), plan=None, side=64, valid="workspace:v", realistic_plan=plan.to_row()
        )
        for number, plan in enumerate(drawn)
    ]
    write_pairs(folder / "realistic.parquet", pairs)
    again = read_pairs(folder / "realistic.parquet")
    without = [replace(pair, realistic_plan=None) for pair in pairs]
    assert [replace(pair, realistic_plan=None) for pair in again] == without
    assert [RealisticPlan.from_row(pair.realistic_plan or {}) for pair in again] == drawn


def test_a_pair_that_is_drawn_each_epoch_reads_back(tmp_path: Path) -> None:
    pair = replace(PAIR, after=None, mask=None, changed=None, plan=None, boxes=())
    write_pairs(tmp_path / "pairs.parquet", [pair])
    assert read_pairs(tmp_path / "pairs.parquet") == [pair]


def test_the_plan_is_nested_columns_that_other_tools_can_query(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.parquet", [PAIR])
    table = pq.read_table(tmp_path / "pairs.parquet")
    assert pa.types.is_struct(table.schema.field("plan").type)
    change = table.column("plan")[0].as_py()["changes"][0]
    assert (change["kind"], change["x"], change["noise_seed"]) == ("move", 1, 2**63 - 1)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pairs(tmp_path / name / "pairs.parquet", [replace(PAIR, pair_id=str(i)) for i in range(50)])
    first, second = ((tmp_path / name / "pairs.parquet").read_bytes() for name in ("a", "b"))
    assert first == second


def test_the_pairs_of_one_split_keep_their_order(tmp_path: Path) -> None:
    pairs = [
        replace(PAIR, pair_id=name, split=split)
        for name, split in zip("dcba", ["val", "test"] * 2, strict=True)
    ]
    write_pairs(tmp_path / "pairs.parquet", pairs)
    assert [pair.pair_id for pair in read_pairs(tmp_path / "pairs.parquet", "val")] == ["d", "b"]
    assert [pair.pair_id for pair in read_pairs(tmp_path / "pairs.parquet", "test")] == ["c", "a"]
    assert read_pairs(tmp_path / "pairs.parquet", "train") == []


def test_pairs_that_are_drawn_each_epoch_can_be_left_out(tmp_path: Path, groups_of_three: None) -> None:
    path = tmp_path / "pairs.parquet"
    pairs = [replace(pair, after=None) if pair.seed % 4 else pair for pair in numbered(20)]
    write_pairs(path, pairs)
    frozen = [pair for pair in pairs if pair.after]
    assert list(each_pair(path, frozen=True)) == frozen
    for split in SPLITS:
        of_split = [pair for pair in frozen if pair.split == split]
        assert list(each_pair(path, split, frozen=True)) == of_split


def test_a_folder_name_with_an_equals_sign_adds_no_column(tmp_path: Path) -> None:
    path = tmp_path / "run=3" / "pairs.parquet"
    write_pairs(path, [PAIR])
    assert read_pairs(path) == [PAIR]


def test_a_row_that_does_not_fit_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, [PAIR])
    with pytest.raises((pa.ArrowInvalid, OverflowError)):
        write_rows(path, [{"seed": 2**64}], PAIRS)
    assert read_pairs(path) == [PAIR]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello" * 100])
def test_an_unreadable_file_is_an_error_with_file_and_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pair_manifest" / "pairs.parquet"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"pairs\.parquet: not a readable.*materialize pair_manifest"):
        read_pairs(path)


def test_a_file_cut_short_is_an_error_with_file_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "split" / "split.parquet"
    write_photos(path, [])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ManifestError, match=r"split\.parquet.*materialize split again"):
        read_photos(path)


def test_other_columns_are_an_error_that_names_the_missing_ones(tmp_path: Path) -> None:
    path = tmp_path / "split" / "split.parquet"
    write_rows(path, [], PHOTOS.remove(PHOTOS.get_field_index("reason")))
    with pytest.raises(ManifestError, match=r"missing: \['reason'\]\); materialize split again"):
        read_photos(path)


def test_columns_of_another_type_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "split" / "split.parquet"
    changed = PHOTOS.set(PHOTOS.get_field_index("width"), pa.field("width", pa.float64()))
    write_rows(path, [], changed)
    with pytest.raises(ManifestError, match="columns of another version"):
        read_photos(path)


def test_a_manifest_says_which_settings_it_was_planned_with(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, [], "abc")
    assert plan_version_of(path) == "abc"
    assert read_pairs(path) == []
    write_pairs(path, [])
    assert plan_version_of(path) == ""
    path.write_bytes(b"no parquet")
    with pytest.raises(ManifestError, match="not a readable Parquet file"):
        plan_version_of(path)


two_date_pairs = st.builds(
    TwoDatePair,
    name=texts,
    split=texts,
    before=texts,
    after=texts,
    label=texts,
    before_sha256=texts,
    after_sha256=texts,
    label_sha256=texts,
    before_pixels_sha256=texts,
    after_pixels_sha256=texts,
    width=sizes,
    height=sizes,
    changed_share=st.floats(0, 1),
    reason=st.none() | texts,
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(two_date_pairs, max_size=4))
def test_two_date_pairs_read_back_as_written(folder: Path, rows: list[TwoDatePair]) -> None:
    write_two_date(folder / "raw_pairs" / "pairs.parquet", rows)
    assert read_two_date(folder / "raw_pairs" / "pairs.parquet") == rows


def test_two_date_pairs_of_another_version_name_the_remedy(tmp_path: Path) -> None:
    write_photos(tmp_path / "raw_pairs" / "pairs.parquet", [])
    with pytest.raises(ManifestError, match=r"columns of another version.*materialize raw_pairs again"):
        read_two_date(tmp_path / "raw_pairs" / "pairs.parquet")


hashes = st.none() | texts
crops = st.fixed_dictionaries({key: sizes for key in ("left", "top", "width", "height")})


@settings(max_examples=40, deadline=None)
@given(
    before=hashes,
    after=hashes,
    mask=hashes,
    crop=st.none() | crops,
    tiled=st.booleans(),
    changed=st.booleans(),
)
def test_crops_and_hashes_read_back_as_written(
    folder: Path,
    before: str | None,
    after: str | None,
    mask: str | None,
    crop: dict[str, int] | None,
    tiled: bool,
    changed: bool,
) -> None:
    pair = replace(
        PAIR,
        before_sha256=before,
        after_sha256=after,
        mask_sha256=mask,
        crop=crop,
        tiled=tiled,
        changed=changed,
        photo="",
        boxes=(),
        plan=None,
    )
    write_pairs(folder / "crops.parquet", [pair, PAIR])
    assert read_pairs(folder / "crops.parquet") == [pair, PAIR]


ONE_BOX = Box(1, 0.5, 0.5, 0.25, 0.25)


@pytest.mark.parametrize("kind", ["photos", "pairs"])
def test_a_value_that_is_missing_is_an_error_with_row_and_column(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "split" / f"{kind}.parquet"
    if kind == "pairs":
        write_pairs(path, [PAIR, PAIR])
    else:
        write_photos(path, [Photo("a.jpg", "", "a", "a.txt", *"abc", 64, 48, (ONE_BOX,), (), None)] * 2)
    schema, rows = pq.read_schema(path), pq.read_table(path).to_pylist()
    damaged = {
        "width": None,
        "boxes": None,
        "boxes of one": [None],
        "boxes of a hole": [{**ONE_BOX._asdict(), "cx": None}],
    }
    for name, value in damaged.items():
        column = name.split()[0]
        write_rows(path, [rows[0], {**rows[1], column: value}], schema)
        with pytest.raises(ManifestError, match=rf"row 1 has no {column}; delete it and materialize split"):
            (read_pairs if kind == "pairs" else read_photos)(path)


def test_text_that_is_not_utf8_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "split" / "split.parquet"
    write_photos(path, [Photo("a" * 9, "", "a", "a.txt", *"abc", 64, 48, (), (), None)])
    broken = pa.array([b"\xff\xfe"], pa.binary()).cast(pa.string(), safe=False)
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, table.schema.field(0), broken), path)
    with pytest.raises(ManifestError, match=r"not a readable Parquet file \(.*materialize split again"):
        read_photos(path)


def test_a_folder_that_looks_like_a_partition_adds_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "run=1" / "pairs.parquet"
    write_pairs(path, [PAIR])
    assert read_pairs(path) == [PAIR]


@pytest.mark.parametrize("content", [b"PAR1", b"not a table", None])
def test_the_plan_version_of_no_table_is_an_error_with_the_remedy(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "pair_manifest" / "pairs.parquet"
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(
        ManifestError, match=r"pairs\.parquet: .*delete it and materialize pair_manifest again"
    ):
        plan_version_of(path)


SPLITS = ("train", "val", "test")


@pytest.fixture
def groups_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROW_GROUP", 3)


def numbered(count: int, splits: Sequence[str] = SPLITS) -> list[Pair]:
    """Pairs in runs of equal length, one a split."""
    return [
        replace(PAIR, pair_id=f"p{number}", seed=number, split=splits[number * len(splits) // count])
        for number in range(count)
    ]


def test_a_small_table_is_written_as_pyarrow_writes_it_at_once(tmp_path: Path) -> None:
    pairs = numbered(9)
    write_pairs(tmp_path / "pairs.parquet", pairs, "abc")
    rows = [{**vars_of(pair), "boxes": [box._asdict() for box in pair.boxes]} for pair in pairs]
    schema = PAIRS.with_metadata({"cd_pipeline.plan_version": "abc"})
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "once.parquet", compression="zstd")
    assert (tmp_path / "pairs.parquet").read_bytes() == (tmp_path / "once.parquet").read_bytes()


def vars_of(pair: Pair) -> dict[str, object]:
    return {name: getattr(pair, name) for name in PAIRS.names}


@pytest.mark.usefixtures("groups_of_three")
@pytest.mark.parametrize("count", [0, 1, 3, 4, 20])
def test_rows_are_taken_a_group_at_a_time_and_are_all_there(tmp_path: Path, count: int) -> None:
    path, taken = tmp_path / "pairs.parquet", []

    def pairs() -> Iterator[Pair]:
        for pair in numbered(max(1, count))[:count]:
            taken.append(pair)
            yield pair

    write_pairs(path, pairs())
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert sizes == [3] * (count // 3) + [count % 3] * (count % 3 > 0)
    assert file.read().column("pair_id").to_pylist() == [pair.pair_id for pair in taken]
    assert read_pairs(path) == taken


def test_rows_are_read_a_group_at_a_time(tmp_path: Path, groups_of_three: None) -> None:
    path = tmp_path / "split" / "pairs.parquet"
    write_pairs(path, numbered(30))
    damage(path, pq.ParquetFile(path).metadata.row_group(5))
    first = list(islice(each_pair(path), 15))
    assert first == numbered(30)[:15]
    with pytest.raises(ManifestError, match="not a readable Parquet file"):
        read_pairs(path)


def damage(path: Path, group: pq.RowGroupMetaData) -> None:
    """Overwrite all that a group of rows holds but its splits."""
    content = bytearray(path.read_bytes())
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema != "split":
            start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
            content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)


@pytest.mark.parametrize("split", SPLITS)
def test_of_one_split_the_rows_of_the_others_are_not_read(
    tmp_path: Path, groups_of_three: None, split: str
) -> None:
    path, pairs = tmp_path / "split" / "pairs.parquet", numbered(27)
    write_pairs(path, pairs)
    for number in range(9):
        group = pq.ParquetFile(path).metadata.row_group(number)
        if number // 3 != SPLITS.index(split):
            damage(path, group)
    assert read_pairs(path, split) == [pair for pair in pairs if pair.split == split]


@settings(max_examples=12, deadline=None)
@given(splits=st.lists(st.sampled_from(SPLITS), min_size=1, max_size=12))
def test_the_rows_of_a_split_are_those_that_have_it(folder: Path, splits: list[str]) -> None:
    pairs = numbered(len(splits), splits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "ROW_GROUP", 3)
        write_pairs(folder / "some.parquet", pairs)
    for split in SPLITS:
        expected = [pair.pair_id for pair in pairs if pair.split == split]
        assert [pair.pair_id for pair in read_pairs(folder / "some.parquet", split)] == expected


@pytest.mark.usefixtures("groups_of_three")
@pytest.mark.parametrize("split", [None, "val"])
@pytest.mark.parametrize("column", ["split", "seed"])
def test_a_missing_value_is_named_by_its_row_of_the_whole_table(
    tmp_path: Path, column: str, split: str | None
) -> None:
    path = tmp_path / "split" / "pairs.parquet"
    write_pairs(path, numbered(12))
    rows = pq.read_table(path).to_pylist()
    write_rows(path, [{**row, **({column: None} if n == 7 else {})} for n, row in enumerate(rows)], PAIRS)
    with pytest.raises(ManifestError, match=f"row 7 has no {column};"):
        read_pairs(path, split)


def test_an_error_among_the_rows_leaves_the_old_file(tmp_path: Path, groups_of_three: None) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, [PAIR])

    def pairs() -> Iterator[Pair]:
        yield from numbered(7)
        raise ValueError("no plan")

    with pytest.raises(ValueError, match="no plan"):
        write_pairs(path, pairs())
    assert read_pairs(path) == [PAIR]
    assert list(tmp_path.iterdir()) == [path]
