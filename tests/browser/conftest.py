"""A real browser, if one is installed: Debian's packages chromium and chromium-driver."""

import os
import shutil
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FLAGS = [
    "--headless=new",
    "--force-prefers-reduced-motion",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]


def require(module: str, package: str) -> ModuleType:
    """Import a package of the extra `dev`; without it the test is skipped, in continuous integration it fails."""
    try:
        return import_module(module)
    except ImportError:
        assert os.environ.get("PANDA_BROWSER") != "required", f"{package} is not installed"
        pytest.skip(f"{package} is not installed; it is in the extra `dev`")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """Chromium under WebDriver, with no name it could resolve: whatever asks the network fails and is logged."""
    webdriver = require("selenium.webdriver", "selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        # Continuous integration installs a browser: there a skipped test would hide that it is missing.
        assert os.environ.get("PANDA_BROWSER") != "required", "no chromium or no chromedriver"
        pytest.skip("no chromium or no chromedriver here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium has no sandbox for root.
    for flag in [*flags, "--host-resolver-rules=MAP * ~NOTFOUND"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Browser(session)
    finally:
        session.quit()


class Browser:
    """The few things that the tests do with a page."""

    def __init__(self, session) -> None:
        self.session = session

    def open(self, page: Path, width: int = 1200, height: int = 900, fragment: str = "") -> None:
        self.session.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.session.get("about:blank")  # a changed fragment alone would not load the page again
        self.session.get_log("browser")
        self.session.get(page.resolve().as_uri() + fragment)

    def run(self, script: str, *arguments: object) -> object:
        return self.session.execute_script(script, *arguments)

    def wait(self, script: str, seconds: float = 5.0) -> None:
        """Until `script` returns something true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.02)

    def scheme(self, name: str) -> None:
        """`light`, `dark`, or "" for the browser's own."""
        features = [{"name": "prefers-color-scheme", "value": name}] if name else []
        self.session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def all(self, selector: str) -> list:
        return [e for e in self.session.find_elements("css selector", selector) if e.is_displayed()]

    def one(self, selector: str):
        return self.session.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """What is visible, read in one step: a list that is being drawn again cannot come between."""
        script = "return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility()).map((e) => e.innerText.trim())"
        found = self.run(script, selector)
        assert isinstance(found, list)
        return found

    def problems(self) -> list[str]:
        """What the console logged, and every resource that the page asked for."""
        logged = [entry["message"] for entry in self.session.get_log("browser")]
        asked = self.run("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert isinstance(asked, list)
        return logged + asked
