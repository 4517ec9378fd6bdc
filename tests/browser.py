"""A page of this project in a real browser: Debian's chromium and chromium-driver through selenium."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def headless_chromium() -> Iterator[Any]:
    """Start a browser that finds no network names, and end it; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; pip install selenium")
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("no browser; apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,900"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    yield driver
    driver.quit()


class OpenPage:
    """A page that the browser shows."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        driver.get(path.as_uri())

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def title(self) -> str:
        """The heading."""
        return self.find("#bar h1").text

    def errors(self) -> list[Any]:
        """Failures of the script, refused loads and the like; warnings about speed are left out."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
