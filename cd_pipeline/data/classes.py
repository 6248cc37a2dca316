"""Names of classes; light, so that loading the definitions stays fast."""

from collections.abc import Sequence

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""In the order of their indices."""
VOID = 255
"""The index of borders and of what nobody labelled."""
VOID_NAME = "void"


def class_names(
    classes: int, names: Sequence[str] | None = None, *, void_as_class: bool = False
) -> tuple[str, ...]:
    """Name every class of a network's output.

    Args:
        classes: how many, void not counted.
        names: of the classes in the order of their indices; None: VOC's for 21 classes, otherwise numbers.
        void_as_class: void is one class more, the last.

    Raises:
        ValueError: as many names as classes are needed, each once and without a comma.
    """
    if names is None:
        numbered = tuple(f"class_{index}" for index in range(classes))
        names = VOC_CLASSES if classes == len(VOC_CLASSES) else numbered
    if len(names) != classes:
        raise ValueError(f"{classes} classes need as many names, found {len(names)}: {', '.join(names)}")
    result = (*names, VOID_NAME) if void_as_class else tuple(names)
    if joined := [name for name in result if "," in name]:
        raise ValueError(f"class names are listed with commas and can hold none, found: {joined[0]!r}")
    if twice := sorted({name for name in result if result.count(name) > 1}):
        raise ValueError(f"every class needs a name of its own, found twice: {', '.join(twice)}")
    return result
