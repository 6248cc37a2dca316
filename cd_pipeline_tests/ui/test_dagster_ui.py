"""`dagster dev` in a browser: the lineage, a run started by a click, a check that fails, a schedule switched on."""

import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cd_pipeline_tests.assets.test_two_date_pipeline import draw_tiles
from cd_pipeline_tests.browser import chromium_path, open_browser
from cd_pipeline_tests.servers import free_port, served

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 180_000
"""Milliseconds that anything on a page may take on a busy machine."""


@dataclass(frozen=True)
class Server:
    """A running `dagster dev`, and the folder of pairs that its recipe levir reads."""

    address: str
    pairs: Path
    log: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    chromium_path()
    folder = tmp_path_factory.mktemp("ui")
    home, pairs = folder / "home", draw_tiles(folder / "pairs")
    home.mkdir()
    settings = (ROOT / "dagster.yaml").read_text().replace("base_dir: .dagster", f"base_dir: {home}/.dagster")
    (home / "dagster.yaml").write_text(settings)
    port = free_port()
    cleaned = {k: v for k, v in os.environ.items() if not k.startswith(("CD_PIPELINE_", "DAGSTER_"))}
    own = {
        "DAGSTER_HOME": str(home),
        "CD_PIPELINE_DATA": str(folder / "data"),
        "CD_PIPELINE_LEVIR": str(pairs),
    }
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", "workspace.yaml", "-p", str(port)]
    address = f"http://127.0.0.1:{port}"
    with served(command, ROOT, {**cleaned, **own}, f"{address}/server_info", folder / "log"):
        yield Server(address, pairs, folder / "log")


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator["Page"]:
    with open_browser() as browser:
        opened = browser.new_context(viewport={"width": 1500, "height": 1000}).new_page()
        opened.set_default_timeout(PATIENCE)
        yield opened


def runs(page: "Page", server: Server) -> tuple[int, bool]:
    """How many runs the page of runs lists, and whether all of them are over."""
    page.goto(f"{server.address}/runs")
    page.get_by_text("In progress").first.wait_for()
    page.wait_for_timeout(1500)
    text = page.locator("body").inner_text()
    pending = re.search(r"^(Starting|Started|Queued|Not started)$", text, re.MULTILINE)
    return len(re.findall(r"^[0-9a-f]{8}$", text, re.MULTILINE)), pending is None


def materialize(page: "Page", server: Server, asset: str) -> None:
    """Press the button on an asset's page, and wait until its run is over."""
    before, _ = runs(page, server)
    page.goto(f"{server.address}/assets/{asset}")
    page.get_by_text("Materialize", exact=True).first.click()
    page.wait_for_timeout(2000)
    deadline = time.monotonic() + PATIENCE / 1000
    while runs(page, server) != (before + 1, True):
        assert time.monotonic() < deadline, page.locator("body").inner_text()


def test_the_server_is_for_this_machine_alone(server: Server) -> None:
    assert "on http://127.0.0.1:" in server.log.read_text()
    others = [address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    port = int(server.address.rsplit(":", 1)[1])
    for address in {other for other in others if not other.startswith("127.")}:
        with pytest.raises(OSError):
            socket.create_connection((address, port), timeout=2).close()


def test_the_lineage_shows_every_recipe_and_the_way_to_the_package(page: "Page", server: Server) -> None:
    page.goto(f"{server.address}/asset-groups/")
    for recipe in ("rooms", "levir", "cracks", "voc"):
        page.get_by_text(recipe, exact=True).first.wait_for()
    page.goto(f"{server.address}/locations/cd_pipeline/asset-groups/rooms")
    for asset in ("raw_photos", "split", "change_masks", "checkpoint", "threshold", "mlpackage", "report"):
        page.get_by_text(asset, exact=True).first.wait_for()


def test_a_run_started_by_a_click_succeeds_and_shows_its_figures(page: "Page", server: Server) -> None:
    materialize(page, server, "levir/raw_pairs")
    page.goto(f"{server.address}/assets/levir/raw_pairs")
    page.get_by_text("sample_data").first.wait_for()
    text = page.locator("body").inner_text()
    assert str(server.pairs) in text
    assert "Never materialized" not in text


def test_a_check_that_fails_is_seen_on_the_asset_s_page(page: "Page", server: Server) -> None:
    for label in server.pairs.glob("*/label/*.png"):
        picture = server.pairs / "blank.png"
        blank(picture, label)
        shutil.copy(picture, label)
    (server.pairs / "blank.png").unlink()
    materialize(page, server, "levir/raw_pairs")
    materialize(page, server, "levir/pair_manifest")
    page.goto(f"{server.address}/assets/levir/pair_manifest?view=checks")
    page.get_by_text("positive_share_is_plausible").first.wait_for()
    page.get_by_text("Failed", exact=True).first.wait_for()


def blank(path: Path, like: Path) -> None:
    from PIL import Image

    with Image.open(like) as picture:
        Image.new("L", picture.size, 0).save(path)


def test_the_schedule_is_off_and_can_be_switched_on(page: "Page", server: Server) -> None:
    page.goto(f"{server.address}/locations/cd_pipeline/schedules/levir_retraining")
    switch = page.locator("input[type=checkbox]").first
    switch.wait_for(state="attached")
    assert not switch.is_checked()
    switch.press("Space")
    page.wait_for_timeout(3000)
    page.reload()
    switch.wait_for(state="attached")
    assert switch.is_checked()
