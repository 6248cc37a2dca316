"""Which changes of a published plan leave no trace, so that they need not be made.

Boxes overlap and whole regions are dropped again: of the area that plans of room photos inpaint, which takes most
of the time, a third is overwritten before anything reads it.
"""

import numpy as np
import numpy.typing as npt

from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.plan import Change, ChangePlan, fill_polygons
from cd_pipeline.synthesis.published_kinds import inclusive, inpaint_window, move_target


def traceless(plan: ChangePlan, width: int, height: int) -> list[bool]:
    """Tell for each change of a plan whether the after picture is the same without it.

    A change is traceless when all that it writes is overwritten or dropped later, and not read before. Some
    traceless ones may be missed, such as a change to the pixels' own values.

    Args:
        plan: of a photo.
        width: of the photo, px.
        height: of the photo, px.
    """
    found = [False] * len(plan.changes)
    if len(plan.changes) < 2 and not any(change.erased for change in plan.changes):
        return found
    live = np.ones((height, width), np.bool_)  # pixels whose value at this moment still matters
    for number in reversed(range(len(plan.changes))):
        change = plan.changes[number]
        if change.erased and plan.truthful:
            live[fill_polygons((height, width), change.erased) > 0] = False
        found[number] = not any(live[rect.slices].any() for rect in _written(change, width, height))
        if not found[number]:
            _go_back(live, change)
    return found


def _written(change: Change, width: int, height: int) -> list[Rect]:
    if change.kind in ("black", "inpaint"):
        return [inclusive(change, width, height)]
    return [change.rect] if change.kind != "move" else [change.rect, move_target(change)]


def _go_back(live: npt.NDArray[np.bool_], change: Change) -> None:
    # from the pixels that matter after the change to those that matter before it
    height, width = live.shape
    if change.kind == "move":
        live[change.rect.slices] = False  # blacked out last
        pasted = live[move_target(change).slices].any()
        live[move_target(change).slices] = False
        if pasted:
            live[change.rect.slices] = True
    elif change.kind == "inpaint":
        live[inpaint_window(change, width, height).slices] = True
        live[inclusive(change, width, height).slices] = False
    elif change.kind == "black":
        live[inclusive(change, width, height).slices] = False
    else:  # noise does not depend on what was there; blur and pixel do
        live[change.rect.slices] = change.kind != "rect"
