"""A real headless browser that opens a file and reports everything it was not supposed to do."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebGL without a graphics card
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = "TUGOFWAR_SCREENSHOTS"


@contextmanager
def chromium():
    """A browser; the test is skipped where there is none, and says why."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, width=1360, height=900, scheme="light", motion="no-preference"):
    """A page of a file, and the list of its faults: errors, and requests for anything but the file."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion=motion
    )
    page = context.new_page()
    faults = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    # data: and blob: are in the page itself
    inside = ("data:", "blob:")
    url = path.as_uri()
    page.on("request", lambda request: None if request.url.startswith((url, *inside)) else faults.append(request.url))
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    yield page, faults
    context.close()


def keep(page, name, tmp_path, element=None):
    """A screenshot in the folder that the environment names."""
    folder = Path(os.environ.get(SCREENSHOTS) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    (element or page).screenshot(path=folder / f"{name}.png")
