"""The columns of a manifest that hold plans, nested as the plans are, so that other tools can query them."""

import pyarrow as pa

CHANGE = pa.struct(
    [
        ("kind", pa.string()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("to_x", pa.int32()),
        ("to_y", pa.int32()),
        ("noise_seed", pa.int64()),
        ("erased", pa.list_(pa.list_(pa.int32()))),
    ]
)

PLAN = pa.struct(
    [
        ("changes", pa.list_(CHANGE)),
        ("truthful", pa.bool_()),
        ("jpeg_quality", pa.int32()),
    ]
)

PATCH = pa.struct(
    [
        ("photo", pa.string()),
        ("sha256", pa.string()),
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("width", pa.float64()),
        ("height", pa.float64()),
    ]
)

REALISTIC_CHANGE = pa.struct(
    [
        ("kind", pa.string()),
        ("shape", pa.string()),
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("to_left", pa.float64()),
        ("to_top", pa.float64()),
        ("feather", pa.float64()),
        ("seed", pa.int64()),
        ("outline", PATCH),
        ("source", PATCH),
    ]
)

NUISANCE = pa.struct(
    [
        ("gains", pa.list_(pa.float64())),
        ("offset", pa.float64()),
        ("contrast", pa.float64()),
        ("gamma", pa.float64()),
        ("gradient", pa.list_(pa.float64())),
        ("vignette", pa.float64()),
        ("shadow", pa.float64()),
        ("shadow_outline", pa.list_(pa.float64())),
        ("blur", pa.float64()),
        ("noise", pa.float64()),
        ("shot_noise", pa.float64()),
        ("noise_seed", pa.int64()),
        ("jpeg_quality", pa.int32()),
        ("corners", pa.list_(pa.float64())),
    ]
)

VIEW = pa.struct(
    [
        ("left", pa.float64()),
        ("top", pa.float64()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("flipped", pa.bool_()),
    ]
)

REALISTIC_PLAN = pa.struct(
    [
        ("view", VIEW),
        ("changes", pa.list_(REALISTIC_CHANGE)),
        ("swapped", pa.bool_()),
        ("min_visible", pa.float64()),
        ("before_nuisance", NUISANCE),
        ("after_nuisance", NUISANCE),
    ]
)
