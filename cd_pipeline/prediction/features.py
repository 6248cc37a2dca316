"""Registration by key points: SIFT, matched both photos over, and a robust homography."""

import cv2
import numpy as np
import numpy.typing as npt

KEY_POINTS = 4000
"""At most, of each photo."""
NEAREST_RATIO = 0.75
"""A match counts where the second-best is this much farther away (Lowe)."""
MIN_MATCHES = 10
"""That agree on the homography."""
_REPROJECTION, _CONFIDENCE, _TRIALS = 2.0, 0.9999, 5000


def align_features(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], start: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the homography of the first picture's pixels to the second one's.

    Args:
        first: HW uint8.
        second: HW uint8.
        start: not needed; key points are found anywhere.

    Raises:
        ValueError: too few key points match.
    """
    del start
    points = _matched(first, second)
    if len(points) < MIN_MATCHES:
        raise ValueError(f"{len(points)} key points match, at least {MIN_MATCHES} are needed")
    matrix, agreeing = cv2.findHomography(
        points[:, 0],
        points[:, 1],
        cv2.USAC_MAGSAC,
        _REPROJECTION,
        confidence=_CONFIDENCE,
        maxIters=_TRIALS,
    )
    count = 0 if matrix is None else int(np.count_nonzero(agreeing))
    if count < MIN_MATCHES:
        raise ValueError(
            f"{count} of {len(points)} matched key points agree, at least {MIN_MATCHES} are needed"
        )
    return np.asarray(matrix, np.float64)


def _matched(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    # N x 2 pictures x (x, y)
    detector = cv2.SIFT.create(KEY_POINTS)
    found = [detector.detectAndCompute(picture, None) for picture in (first, second)]
    (from_points, from_values), (to_points, to_values) = found
    if from_values is None or to_values is None:
        return np.empty((0, 2, 2), np.float32)
    nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(from_values, to_values, k=2)
    matches = [
        pair[0] for pair in nearest if len(pair) == 2 and pair[0].distance < NEAREST_RATIO * pair[1].distance
    ]
    points = [(from_points[match.queryIdx].pt, to_points[match.trainIdx].pt) for match in matches]
    return np.asarray(points, np.float32).reshape(-1, 2, 2)
