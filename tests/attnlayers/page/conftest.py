"""A headless Chromium that opens a page and writes down what it asks of the network."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnlayers.page import Page


class Browser:
    """A page in a browser, driven by what a user does."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def open(self, page: Page) -> None:
        path = self.folder / "page.html"
        page.save(path)
        self.driver.get_log("performance"), self.errors()  # of the page before
        self.driver.get(path.as_uri())
        assert self.errors() == []

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in entries if one["method"] == "Network.requestWillBeSent"]

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)  # type: ignore[no-any-return]

    def token(self, side: str, place: int) -> Any:
        return self.find(f"#{side} li:nth-child({place + 1}) button")

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def hover(self, element: Any, dx: float = 0, dy: float = 0) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver, duration=0).move_to_element_with_offset(element, int(dx), int(dy)).perform()

    def press(self, *keys: str) -> None:
        """Keys on what has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def choose(self, select: str, name: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find(f"#{select}")).select_by_visible_text(name)

    def table(self) -> dict[int, float]:
        """Place -> weight, of the table."""
        rows = """return [...document.querySelectorAll('#rows tr')].map(
            row => [row.dataset.place, row.lastChild.dataset.weight])"""
        return {int(place): float(weight) for place, weight in self.run(rows)}

    def shares(self) -> np.ndarray:
        """The heat map: opacity of each cell, from 0 to 1."""
        script = """const c = document.getElementById('canvas');
            return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"""
        rows, columns, values = self.run(script)
        return np.array(values).reshape(rows, columns, 4)[..., 3] / 255


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[dev]'")
    found = shutil.which("chromedriver")
    if found is None or (shutil.which("chromium") or shutil.which("google-chrome")) is None:
        reason = "no Chromium with its driver: apt-get install chromium chromium-driver"
        pytest.fail(reason) if os.environ.get("NEED_BROWSER") else pytest.skip(reason)
    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.add_argument("--window-size=1200,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(found)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


@pytest.fixture
def browser(driver: Any, tmp_path: Path) -> Browser:
    return Browser(driver, tmp_path)


def probabilities(*shape: int, seed: int = 0) -> np.ndarray:
    """Rows that sum to 1, no two weights alike."""
    scores = np.random.default_rng(seed).standard_normal(shape) * 2
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def softmaxed() -> Any:
    return probabilities
