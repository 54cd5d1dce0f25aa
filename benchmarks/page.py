"""Seconds that somebody new waits for the page: `make demo ARGS=--serve`, then Chromium.

    python -m benchmarks.page --repeat 5 --result page

From the start of `make` to the address of the page; then, in a new browser each time: from the
address to the first screen, and to the first list of a user; and from a click on "Like" until an
item of the list is marked as moved. The first of the clicks is that of somebody who has just
started the demonstration. `.venv` and the compiled kernels are there already.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from benchmarks.results import ROOT, add_option, own_command, store

COMMAND = ("make", "demo", "ARGS=--serve")
FLAGS = ("--no-sandbox", "--disable-gpu")
REST_SECONDS = 4.0
"""Time between two clicks, so that the list of the one before has come to rest."""

CLICK = """([button]) => new Promise((resolve) => {
  const list = document.querySelector("ol.list");
  const begun = performance.now();
  new MutationObserver((_, watch) => {
    if (list.querySelector("li.moved")) { watch.disconnect(); resolve(performance.now() - begun); }
  }).observe(list, { childList: true, subtree: true, attributes: true });
  button.click();
})"""
"""Clicks a button, and resolves in milliseconds when an item of the list has moved."""

QUIET = """() => !document.querySelector("ol.list > li.moved")"""


@contextmanager
def demonstration() -> Iterator[str]:
    """Run the demonstration as a new user would, and return the address of its page."""
    with subprocess.Popen(
        COMMAND, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield next(line.split()[2] for line in process.stdout if line.startswith("The page: "))
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.stdout.read()


def visit(browser: Browser, address: str, user: str) -> dict[str, float]:
    """Open the page, look at a user, click on "Like" of the last item; return the seconds.

    Nobody else sends events of this user, so it is the click that moves the list.
    """
    page = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB").new_page()
    begun = time.monotonic()
    page.goto(address)
    page.wait_for_selector("#user-id")
    found = {"first_screen": time.monotonic() - begun}
    painted = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    found["first_paint"] = page.evaluate(painted) / 1000.0
    begun = time.monotonic()
    page.goto(f"{address.split('#')[0]}#/user/{user}")
    page.wait_for_selector("ol.list > li h3")
    found["first_list"] = time.monotonic() - begun
    page.wait_for_timeout(1000.0 * REST_SECONDS)
    page.wait_for_function(QUIET, timeout=60_000)
    last = page.locator("ol.list > li").last
    name = f"Like: {last.get_attribute('data-item')}"
    button = last.get_by_role("button", name=name, exact=True).element_handle()
    found["moved"] = page.evaluate(CLICK, [button]) / 1000.0
    page.context.close()
    return found


def main() -> None:
    """Measure, and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    add_option(parser)
    given = parser.parse_args()
    begun = time.monotonic()
    with demonstration() as address, sync_playwright() as playwright:
        ready = time.monotonic() - begun
        browser = playwright.chromium.launch(executable_path=given.chromium, args=[*FLAGS])
        visits = [visit(browser, address, f"reader-{n}") for n in range(given.repeat)]
        version = browser.version
        browser.close()
    figures: dict[str, Any] = {
        "address_seconds": ready,
        "first_visit": visits[0],
        "median": {name: statistics.median(visit[name] for visit in visits) for name in visits[0]},
        "most": {name: max(visit[name] for visit in visits) for name in visits[0]},
        "visits": len(visits),
        "chromium": version,
    }
    print(figures)
    store(given.result, figures, [own_command(), " ".join(COMMAND)])


if __name__ == "__main__":
    main()
