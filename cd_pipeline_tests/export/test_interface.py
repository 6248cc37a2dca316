"""The facts of a model survive the journey through text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.data.task import Task
from cd_pipeline.export.interface import ModelInterface

names = st.text(
    st.characters(codec="utf-8", exclude_characters=",", exclude_categories=["C", "Z"]), min_size=1
)


@st.composite
def interfaces(draw: st.DrawFn) -> ModelInterface:
    classes = draw(st.integers(1, 5))
    probability = st.floats(0, 1, exclude_min=True)
    return ModelInterface(
        task=Task(pictures=1 if classes > 1 else draw(st.integers(1, 2)), classes=classes),
        size=draw(st.integers(16, 4096)),
        fit=draw(st.sampled_from(["resize", "tile"])),
        overlap=draw(st.integers(0, 64)),
        threshold=draw(probability) if classes == 1 else None,
        class_names=tuple(draw(st.lists(names, min_size=classes, max_size=classes))) if classes > 1 else (),
        smooth=draw(st.booleans()),
        opening=draw(st.integers(0, 9)),
        min_area=draw(st.integers(0, 99)),
        clahe=draw(st.none() | st.floats(0.1, 40)),
        recipe=draw(st.sampled_from(["rooms", "walls_2"])),
        checkpoint_version="ab12",
        data_version="cd34",
    )


@given(interfaces())
def test_what_is_written_is_read_back(interface: ModelInterface) -> None:
    metadata = interface.to_metadata()
    assert all(isinstance(text, str) and text for text in (*metadata, *metadata.values()))
    further = {**metadata, "test_f1": "0.81", "com.github.apple.coremltools.version": "9.0"}
    assert ModelInterface.from_metadata(further, "here") == interface


GOOD = ModelInterface(Task(), 256, threshold=0.5).to_metadata()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {},
            "a.onnx: the metadata lack pictures, classes, input_size, input_fit: not a model of this pipeline",
        ),
        (
            {**GOOD, "input_size": "wide"},
            "a.onnx: metadata entry input_size: found 'wide', expected a number",
        ),
        ({**GOOD, "threshold": "0,5"}, "a.onnx: metadata entry threshold: found '0,5', expected a number"),
        (
            {**GOOD, "input_fit": "crop"},
            "a.onnx: metadata entry input_fit: found 'crop', expected resize or tile",
        ),
        ({**GOOD, "pictures": "3"}, "a.onnx: metadata entries pictures and classes: found 3 and 1, expected"),
        ({**GOOD, "input_size": "0"}, "a.onnx: metadata entry input_size: found 0, expected at least 1"),
        (
            {**GOOD, "classes": "2", "class_names": "sky", "pictures": "1"},
            "a.onnx: metadata entry class_names: found 1 names, expected 2",
        ),
        ({k: v for k, v in GOOD.items() if k != "threshold"}, "a.onnx: metadata entry threshold: found none"),
    ],
)
def test_what_cannot_be_read_is_named(metadata: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelInterface.from_metadata(metadata, "a.onnx")
