import shutil
import struct
import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from cd_pipeline.data.images import Image, PhotoError, write_png
from cd_pipeline.data.masked_images import MaskedInventory, split_masked_images
from cd_pipeline.data.palette import VOC_PALETTE, colour_indices, encode_palette_png, write_palette_png
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.voc import class_indices, decode_indices, find_trees, read_indices, scan_voc

NAMES = ["2007_000032", "a", "b", "c", "d"]


def indices_of(seed: int, height: int = 20) -> Image:
    """Classes 0..6 in blocks, with a border of void."""
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.integers(0, 7, (height, 6), np.uint8), 4, axis=1)
    mask[:, :1] = 255
    return mask


def draw(tree: Path, name: str, seed: int, height: int = 20) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, 24, 3), np.uint8)
    (tree / "JPEGImages").mkdir(parents=True, exist_ok=True)
    Picture.fromarray(pixels).save(tree / "JPEGImages" / f"{name}.jpg")
    write_palette_png(mask_of(tree, name), indices_of(seed, height), VOC_PALETTE)


def mask_of(tree: Path, name: str) -> Path:
    return tree / "SegmentationClass" / f"{name}.png"


def list_names(tree: Path, **lists: str) -> None:
    folder = tree / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    for split, content in lists.items():
        (folder / f"{split}.txt").write_text(content, encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree without lists."""
    root = tmp_path / "tree"
    for seed, name in enumerate(NAMES):
        draw(root, name, seed)
    return root


def png(picture: Picture.Image) -> bytes:
    stream = BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def with_palette(indices: Image, palette: Image) -> bytes:
    """Encode as palette PNG by Pillow alone, the palette as long as given."""
    picture = Picture.fromarray(indices).convert("L")
    picture.putpalette(palette.tobytes())
    return png(picture)


def faults(inventory: MaskedInventory) -> dict[str, str]:
    return {"/".join((r.dataset, r.split, r.name)): str(r.reason) for r in inventory.quarantined}


def splits(inventory: MaskedInventory) -> dict[str, str]:
    return {row.name: row.split for row in inventory.usable}


def test_a_tree_without_lists_has_no_splits_yet(tree: Path) -> None:
    inventory = scan_voc(tree, classes=7)
    assert inventory.quarantined == []
    assert splits(inventory) == dict.fromkeys(NAMES, "")
    for row in inventory.images:
        assert (row.image, row.mask) == (f"JPEGImages/{row.name}.jpg", f"SegmentationClass/{row.name}.png")
        expected = Counter(np.asarray(Picture.open(tree / row.mask)).ravel().tolist())
        assert row.void_pixels == expected.pop(255) == 20
        assert dict(row.class_pixels) == expected
        assert row.positive_share == pytest.approx(1 - (expected[0] + 20) / 480)


def test_a_tree_is_divided_by_its_lists(tree: Path) -> None:
    list_names(tree, train="a\nb\n", val="c\n", test="\ufeff 2007_000032.jpg \r\n\nd\n", trainval="a\nb\nc\n")
    inventory = scan_voc(tree)
    assert inventory.quarantined == []
    assert splits(inventory) == {"2007_000032": "test", "a": "train", "b": "train", "c": "val", "d": "test"}


def test_lists_hide_nothing(tree: Path) -> None:
    list_names(tree, train="a\na\ngone\n", val="b\n", test="a\nc\n")
    mask_of(tree, "d").unlink()
    inventory = scan_voc(tree)
    assert splits(inventory) == {"a": "test", "b": "val", "c": "test"}
    assert faults(inventory) == {
        "//2007_000032": "in no list of ImageSets/Segmentation/",
        "//d": "not in SegmentationClass",
        "/train/a": "same picture as test/a",
        "/train/gone": "listed, but there is no such file in JPEGImages, SegmentationClass",
    }


def test_the_published_lists_without_test_give_it_by_hash(tmp_path: Path) -> None:
    names = [f"{number:02d}" for number in range(30)]
    for seed, name in enumerate(names):
        draw(tmp_path, name, seed)
    list_names(tmp_path, train="\n".join(names[:18]), val="\n".join(names[18:]))
    rows = split_masked_images(scan_voc(tmp_path).images, SplitSettings(exact=True))
    assert Counter(row.split for row in rows)["test"] == 5
    assert all(row.split in ("test", "train" if row.name < "18" else "val") for row in rows)


def test_a_list_in_another_encoding_is_an_error_that_names_it(tree: Path) -> None:
    list_names(tree, train="")
    (tree / "ImageSets" / "Segmentation" / "val.txt").write_bytes("방\n".encode("cp949"))
    with pytest.raises(ValueError, match=r"Segmentation/val\.txt: not UTF-8; save it as UTF-8"):
        scan_voc(tree)


@pytest.mark.parametrize("place", ["VOC2012", "VOCdevkit/VOC2012", "data/VOCdevkit/VOC2012"])
def test_a_tree_is_found_inside_the_root(tree: Path, tmp_path: Path, place: str) -> None:
    root = tmp_path / "root"
    (root / place).parent.mkdir(parents=True)
    tree.rename(root / place)
    inventory = scan_voc(root)
    assert find_trees(root) == [place]
    assert {row.dataset for row in inventory.usable} == {place}
    assert all((root / row.image).is_file() and (root / row.mask).is_file() for row in inventory.usable)


def test_several_trees_are_data_sets_of_their_own_lists(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit"
    shutil.copytree(tree, root / "VOC2007")
    draw(root / "VOC2012", "a", 50)
    list_names(root / "VOC2012", train="a\n")
    (root / "VOC2011" / "SegmentationClass").mkdir(parents=True)
    shutil.copy(mask_of(tree, "a"), mask_of(root / "VOC2011", "a"))
    inventory = scan_voc(root)
    found = Counter((row.dataset, row.split) for row in inventory.usable)
    assert found == {("VOC2007", ""): 5, ("VOC2012", "train"): 1}
    assert faults(inventory) == {"VOC2011//a": "not in JPEGImages"}


def rgb(indices: Image) -> bytes:
    return png(Picture.fromarray(VOC_PALETTE[indices]))


def test_every_faulty_file_is_listed_with_its_reason_and_nothing_vanishes(tree: Path) -> None:
    faulty = [
        "beyond",
        "deep",
        "foreign",
        "junk",
        "lossy",
        "photo",
        "rgb",
        "rgb_other",
        "size",
        "torn",
        "wide",
    ]
    for number, name in enumerate(faulty):
        draw(tree, name, 60 + number)
    beyond = indices_of(1)
    beyond[3:5, 4:9] = 17
    write_palette_png(mask_of(tree, "beyond"), beyond, VOC_PALETTE)
    Picture.fromarray(np.full((20, 24), 300, np.uint16)).save(mask_of(tree, "deep"))
    mask_of(tree, "foreign").write_bytes(with_palette(indices_of(2), VOC_PALETTE[::-1].copy()))
    mask_of(tree, "junk").write_bytes(b"junk")
    mask_of(tree, "lossy").rename(mask_of(tree, "lossy").with_suffix(".jpg"))
    (tree / "JPEGImages" / "photo.jpg").write_bytes(b"junk")
    mask_of(tree, "rgb").write_bytes(rgb(indices_of(3)))
    write_png(mask_of(tree, "rgb_other"), np.full((20, 24, 3), (1, 2, 3), np.uint8))
    write_palette_png(mask_of(tree, "size"), indices_of(4, 21), VOC_PALETTE)
    mask_of(tree, "torn").write_bytes(mask_of(tree, "torn").read_bytes()[:-60])
    write_palette_png(mask_of(tree, "wide"), indices_of(5)[:, :20], VOC_PALETTE)
    inventory = scan_voc(tree, classes=7, threads=3)
    assert splits(inventory) == dict.fromkeys(NAMES, "")
    found = {name.strip("/"): reason for name, reason in faults(inventory).items()}
    torn = found.pop("torn")
    assert torn.startswith("SegmentationClass/torn.png: cannot be decoded as PNG (")
    assert torn.endswith("bytes): cut short or another format")
    assert found == {
        "SegmentationClass/lossy.jpg": "a mask must not be compressed with loss; save it as PNG",
        "beyond": "SegmentationClass/beyond.png: index 17 at 10 px; 7 classes have indices 0..6 and void, "
        "255. Set the number of classes, or mend the mask",
        "deep": "SegmentationClass/deep.png: index 300; expected 0..255",
        "foreign": "SegmentationClass/foreign.png: wrong palette: index 0 has colour (224, 224, 192), "
        "expected (0, 0, 0); if its indices are the classes, allow any palette",
        "junk": "SegmentationClass/junk.png: cannot be decoded as PNG (4 bytes): cut short or another format",
        "lossy": "not in SegmentationClass",
        "photo": "JPEGImages/photo.jpg: cannot be decoded as an image (4 bytes): cut short or another format",
        "rgb": "SegmentationClass/rgb.png: a picture in the palette's colours that has lost the indices; "
        "turn it into a palette PNG with colour_indices and write_palette_png of cd_pipeline.data.palette",
        "rgb_other": "SegmentationClass/rgb_other.png: a picture in colour (colour (1, 2, 3) at x 0, y 0 "
        "is not in the palette); save the class indices as palette PNG, or as grey of one channel",
        "size": "SegmentationClass/size.png: image and mask must be of one size, found 24x20 and 24x21",
        "wide": "SegmentationClass/wide.png: image and mask must be of one size, found 24x20 and 20x20",
    }


def test_a_mask_that_lost_its_indices_is_mended_as_its_reason_says(tree: Path) -> None:
    path = mask_of(tree, "a")
    before = read_indices(path)
    path.write_bytes(rgb(before))
    assert list(faults(scan_voc(tree))) == ["//a"]
    colours = np.asarray(Picture.open(path).convert("RGB"))
    write_palette_png(path, colour_indices(colours, VOC_PALETTE), VOC_PALETTE)
    assert faults(scan_voc(tree)) == {}
    np.testing.assert_array_equal(read_indices(path), before)


def test_binary_masks_of_0_and_255_are_not_taken_for_void(tree: Path) -> None:
    for name in NAMES:
        write_png(mask_of(tree, name), 255 * (indices_of(1) > 3).astype(np.uint8))
    with pytest.raises(
        ValueError, match=r"nothing but index 0 and void \(255\).*belong into images/ and masks/"
    ):
        scan_voc(tree)
    assert scan_voc(tree, void=None).usable[0].classes == (0, 255)


def test_a_palette_of_its_own_can_be_allowed(tree: Path) -> None:
    own = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    for seed, name in enumerate(NAMES):
        mask_of(tree, name).write_bytes(with_palette(indices_of(seed), own))
    for palette in (own, None):
        assert scan_voc(tree, palette=palette).quarantined == []
    with pytest.raises(
        ValueError, match=r"none of 5 images can be used; 2007_000032: .*wrong palette: index"
    ):
        scan_voc(tree)


def raw_png(values: Image, bits: int, palette: Image | None = None) -> bytes:
    """Write a PNG by the specification: values of `bits` bits, packed from the highest bit down."""
    spread = np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :]
    rows = b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in spread)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 0 if palette is None else 3, 0, 0, 0)
    colours = b"" if palette is None else chunk(b"PLTE", palette.tobytes())
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + colours
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_a_palette_may_lack_the_colour_of_void_but_not_that_of_a_class() -> None:
    indices = indices_of(0)
    short = raw_png(indices, 8, VOC_PALETTE[:7])
    np.testing.assert_array_equal(decode_indices(short), indices)
    shorter = raw_png(indices, 8, VOC_PALETTE[:3])
    with pytest.raises(PhotoError, match="index 3 is not in the file's own palette of 3 colours"):
        decode_indices(shorter)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([1, 2, 4, 8]),
    in_palette=st.booleans(),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 19)),
    seed=st.integers(0, 1000),
)
def test_indices_of_any_depth_are_read_as_stored(
    bits: int, in_palette: bool, shape: tuple[int, int], seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << bits, shape).astype(np.uint8)
    found = decode_indices(raw_png(values, bits, VOC_PALETTE[: 1 << bits] if in_palette else None))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


def test_grey_indices_of_16_bits_are_read_as_stored() -> None:
    np.testing.assert_array_equal(
        decode_indices(png(Picture.fromarray(indices_of(1).astype(np.uint16)))), indices_of(1)
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_mask_in_colour_is_refused_even_when_it_is_grey(mode: str) -> None:
    grey = Picture.fromarray(np.full((20, 24), 3, np.uint8)).convert(mode)
    with pytest.raises(PhotoError, match=r"a picture in colour \(colour \(3, 3, 3\) at x 0, y 0 is not in"):
        decode_indices(png(grey))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_never_anything_else(data: st.DataObject) -> None:
    content = bytearray(encode_palette_png(indices_of(0), VOC_PALETTE))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        assert decode_indices(bytes(content[:cut])).dtype == np.uint8
    except PhotoError as error:
        assert str(error)


def test_a_mask_is_read_with_its_path_in_every_error(tree: Path) -> None:
    path = mask_of(tree, "a")
    np.testing.assert_array_equal(read_indices(path), indices_of(1))
    with pytest.raises(PhotoError, match=r"a\.png: the file has changed"):
        read_indices(path, "0" * 64)
    path.write_bytes(b"")
    with pytest.raises(PhotoError, match=r"a\.png: empty file"):
        read_indices(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png: the mask is not there"):
        read_indices(path)


def test_void_becomes_the_last_class_or_counts_nowhere() -> None:
    mask = np.array([[0, 1, 255], [20, 255, 7]], np.uint8)
    indices, valid = class_indices(mask, 21, void_as_class=True)
    assert indices.tolist() == [[0, 1, 21], [20, 21, 7]]
    assert valid.all()
    indices, valid = class_indices(mask, 21)
    assert indices.tolist() == [[0, 1, 0], [20, 0, 7]]
    assert valid.tolist() == [[True, True, False], [True, False, True]]
    assert (indices.dtype, valid.dtype) == (np.uint8, np.bool_)


@given(
    st.integers(1, 255), st.one_of(st.none(), st.integers(0, 255)), st.booleans(), st.integers(0, 2**32 - 1)
)
def test_indices_are_always_below_the_number_of_outputs(
    classes: int, void: int | None, as_class: bool, seed: int
) -> None:
    mask = np.random.default_rng(seed).integers(0, classes, (5, 6)).astype(np.uint8)
    if void is not None:
        mask[2] = void
    indices, valid = class_indices(mask, classes, void, void_as_class=as_class)
    assert indices.max() < classes + as_class
    is_void = np.zeros_like(valid) if void is None else mask == void
    np.testing.assert_array_equal(valid, np.ones_like(valid) if as_class else ~is_void)
    np.testing.assert_array_equal(indices[~is_void], mask[~is_void])
    assert set(indices[is_void].tolist()) <= {classes if as_class else 0}


@pytest.mark.parametrize(
    ("void", "message"),
    [
        (255, r"index 7 at 1 px; 7 classes have indices 0\.\.6 and void, 255\. Set"),
        (None, r"indices 0\.\.6\. Set"),
    ],
)
def test_an_index_that_is_no_class_is_an_error(void: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_indices(np.array([[0, 7]], np.uint8), 7, void)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("", r"tree: no such folder; set the recipe's source folder to your VOC tree"),
        (
            "SegmentationClass",
            r"tree: found JPEGImages; expected JPEGImages/ and SegmentationClass/, in it or",
        ),
    ],
)
def test_a_missing_folder_is_an_error_with_what_is_there(tree: Path, missing: str, message: str) -> None:
    shutil.rmtree(tree / missing)
    with pytest.raises(FileNotFoundError, match=message):
        scan_voc(tree)


def test_the_result_does_not_depend_on_the_number_of_threads(tree: Path) -> None:
    mask_of(tree, "b").write_bytes(b"junk")
    first = scan_voc(tree)
    assert all(scan_voc(tree, threads=threads) == first for threads in (2, 5))


def test_the_version_depends_on_content_and_lists_alone(tree: Path, tmp_path: Path) -> None:
    first = scan_voc(tree).version
    elsewhere = Path(shutil.copytree(tree, tmp_path / "elsewhere"))
    (elsewhere / "Annotations").mkdir()
    assert scan_voc(elsewhere).version == first
    list_names(elsewhere, train="a\nb\nc\nd\n2007_000032\n")
    assert scan_voc(elsewhere).version != first


@pytest.mark.parametrize(
    ("name", "count", "classes", "present", "with_void"),
    [("bridge", 30, 7, set(range(7)), 0), ("voc", 8, 21, {0, 1, 2, 5, 6, 7, 9, 15, 18}, 2)],
)
def test_the_real_masks_are_read_as_pillow_reads_them(
    real_data: Path, name: str, count: int, classes: int, present: set[int], with_void: int
) -> None:
    root = real_data / name
    inventory = scan_voc(root, classes=classes, threads=2)
    assert (len(inventory.usable), inventory.quarantined) == (count, [])
    assert {index for row in inventory.usable for index in row.classes} == present
    assert sum(row.void_pixels > 0 for row in inventory.usable) == with_void
    for row in inventory.usable:
        with Picture.open(root / row.mask) as picture:
            expected = np.asarray(picture)
        np.testing.assert_array_equal(read_indices(root / row.mask, row.mask_sha256), expected)
        assert row.void_pixels == (expected == 255).sum()
        assert (row.height, row.width) == expected.shape


def test_a_mask_whose_header_claims_too_many_pixels_is_refused() -> None:
    content = bytearray(encode_palette_png(indices_of(1), VOC_PALETTE))
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(PhotoError, match="30000x30000 px, as its header says; at most 536870912 px are read"):
        decode_indices(bytes(content))
