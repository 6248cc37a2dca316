import pytest

from cd_pipeline.data.classes import VOC_CLASSES, class_names


def test_there_are_21_class_names_in_the_order_of_voc() -> None:
    assert len(VOC_CLASSES) == len(set(VOC_CLASSES)) == 21
    assert [VOC_CLASSES[i] for i in (0, 5, 15, 20)] == ["background", "bottle", "person", "tvmonitor"]
    assert class_names(21) == VOC_CLASSES
    assert class_names(21, void_as_class=True) == (*VOC_CLASSES, "void")


def test_other_class_lists_have_their_own_names_or_numbers() -> None:
    assert class_names(3) == ("class_0", "class_1", "class_2")
    assert class_names(2, ["none", "crack"], void_as_class=True) == ("none", "crack", "void")


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a"], "2 classes need as many names, found 1: a"), (["a", "a"], "found twice: a")],
)
def test_names_that_do_not_fit_the_classes_are_an_error(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_names(2, names)
