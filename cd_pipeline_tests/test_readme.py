"""What the README shows of the package is what the package has."""

import re
from pathlib import Path

import yaml
from torch import nn

from cd_pipeline.export.network import ExportedNetwork
from cd_pipeline.recipe import Recipe

ROOT = Path(__file__).parents[1]


def rooms() -> Recipe:
    file = yaml.safe_load((ROOT / "cd_pipeline" / "defs" / "rooms" / "defs.yaml").read_text())
    return Recipe(name="rooms", **file["attributes"])


def test_the_swift_code_uses_the_names_and_sizes_that_the_package_has() -> None:
    (code,) = re.findall(r"```swift\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    recipe = rooms()
    threshold = 0.5 if recipe.export.mask else None
    outputs = ExportedNetwork(nn.Identity(), recipe.task, threshold).output_names
    assert set(re.findall(r"found\.(\w+)", code)) == set(outputs)
    (arguments,) = re.findall(r"model\.prediction\((.*?)\)", code)
    assert tuple(re.findall(r"(\w+):", arguments)) == recipe.task.picture_names
    # Xcode names the class after the package
    assert re.findall(r"try (\w+)\(configuration", code) == [recipe.package.removesuffix(".mlpackage")]
    size = recipe.input.size
    assert f"{size}x{size} px" in code
    assert f"(1, {recipe.task.classes}, {size}, {size})" in code
