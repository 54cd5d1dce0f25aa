"""Browser tests of the page: every flow, width, language and theme, in Chromium, on a real worker.

    make browser
    make browser ARGS="--docs docs/images"
    python -m tests.browser --address http://127.0.0.1:6066 --user ada --shots build/page

It needs Chromium, and starts `tracker demo --serve` if no address is given. Each flow is a line;
the exit code is 1 if one fails. Pictures go to the folder of --shots. Those of the docs need a font
with Chinese, such as Debian's fonts-noto-cjk.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import click
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Page, expect, sync_playwright

WIDTHS = (360, 768, 1280, 2560)
HEIGHT = 900
VIEWS = ("user", "items", "worker")
FIRST_SCREEN_SECONDS = 1.0
DOCS_WIDTHS = {360: "narrow", 1280: "wide"}
DOCS_HEIGHT, DOCS_COLOURS = 1300, 48
STORY_SECONDS = 9
"""Seconds in which interests move before a user's picture is taken."""


class Check:
    """A browser on the page, what it complained of, and what was seen."""

    def __init__(
        self, browser: Browser, address: str, user: str, shots: Path, docs: Path | None
    ) -> None:
        self.browser = browser
        self.docs = docs
        self.address = address.split("#")[0].rstrip("/")
        self.user = user
        self.shots = shots
        self.failed = 0
        self.complaints: list[str] = []

    def page(self, width: int = 1280, scheme: str = "light", language: str = "en") -> Page:
        """Open a page that notes errors of the console and of scripts."""
        context = self.browser.new_context(
            viewport={"width": width, "height": HEIGHT},
            color_scheme="dark" if scheme == "dark" else "light",
            locale="zh-CN" if language == "zh" else "en-GB",
        )
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda line: self.complaints.append(line.text) if line.type == "error" else None,
        )
        return page

    def open(self, page: Page, view: str) -> None:
        """Open a view, and wait until it has content."""
        path = f"user/{self.user}" if view == "user" else view
        page.goto(f"{self.address}/#/{path}")
        ready = {
            "user": "ol.list > li h3",
            "items": "ol.list > li a",
            "worker": ".figures strong",
        }[view]
        page.wait_for_selector(ready, timeout=20_000)

    def run(self, name: str, flow: Callable[[], None]) -> None:
        """Run a flow, and print its line."""
        self.complaints.clear()
        begun = time.monotonic()
        try:
            flow()
            problem = "; ".join(self.complaints)
        except Exception as error:  # a flow that fails does not keep the others from being tried
            problem = str(error).split("\n")[0]
        self.failed += bool(problem)
        seconds = time.monotonic() - begun
        click.echo(f"{'FAILED' if problem else 'ok':7}{seconds:6.1f} s  {name}  {problem}")

    def looks(self, view: str, width: int, scheme: str, language: str) -> None:
        """Take a picture of a view; nothing may be wider than the screen, and axe finds nothing."""
        page = self.page(width, scheme, language)
        self.open(page, view)
        page.wait_for_timeout(500)
        name = f"{view}-{width}-{scheme}-{language}.png"
        page.screenshot(path=str(self.shots / name), full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{wide} pixels wider than the screen"
        found = Axe().run(page).response["violations"]
        assert not found, "; ".join(f"{one['id']}: {one['nodes'][0]['target']}" for one in found)
        if self.docs is not None and width in DOCS_WIDTHS:
            self.picture(page, f"{view}-{DOCS_WIDTHS[width]}-{scheme}-{language}.png", width)
        page.context.close()

    def picture(self, page: Page, name: str, width: int) -> None:
        """Keep the upper part of a view for the docs, in few colours."""
        assert self.docs is not None
        if name.startswith("items"):
            page.locator("ol.list > li a").first.click()
            page.wait_for_selector(".chart canvas")
            page.wait_for_timeout(500)
        if name.startswith("user"):
            page.wait_for_timeout(1000 * STORY_SECONDS)
        height = page.evaluate("document.documentElement.scrollHeight")
        clip = FloatRect(x=0, y=0, width=width, height=min(height, DOCS_HEIGHT))
        whole = page.screenshot(full_page=True, clip=clip)
        with Image.open(BytesIO(whole)) as image:
            few = image.convert("RGB").quantize(DOCS_COLOURS, dither=Image.Dither.NONE)
            few.save(self.docs / f"page-{name}", optimize=True)

    def click_moves_the_list(self) -> None:
        """A click on "Like" moves the list within a second, and "Take it back" undoes it."""
        page = self.page()
        self.open(page, "user")
        page.wait_for_timeout(1500)
        last = page.locator("ol.list > li").last
        item = last.get_attribute("data-item")
        begun = time.monotonic()
        last.get_by_role("button", name=f"Like: {item}").click()
        expect(page.locator("ol.list > li.moved").first).to_be_visible(timeout=10_000)
        click.echo(f"        the list moved {time.monotonic() - begun:.2f} s after the click")
        expect(page.locator("#message")).to_contain_text("Sent")
        page.screenshot(path=str(self.shots / "moved.png"))
        page.get_by_role("button", name="Take it back").click()
        expect(page.locator("#message")).to_contain_text("Taken back", timeout=10_000)
        page.context.close()

    def first_screen(self) -> None:
        """The first screen comes within a second."""
        page = self.page()
        begun = time.monotonic()
        page.goto(self.address)
        page.wait_for_selector("#user-id")
        seconds = time.monotonic() - begun
        page.context.close()
        assert seconds < FIRST_SCREEN_SECONDS, f"{seconds:.2f} s"

    def by_keyboard(self) -> None:
        """A user is chosen, and an event is sent, by the keyboard alone."""
        page = self.page()
        page.goto(self.address)
        page.wait_for_selector("#user-id")
        page.focus("#user-id")
        page.keyboard.type(self.user)
        page.keyboard.press("Enter")
        page.wait_for_selector("ol.list > li h3")
        page.locator("ol.list > li button").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#message")).to_contain_text("Sent", timeout=10_000)
        page.context.close()

    def what_if(self) -> None:
        """A slider shows another list beside the present one."""
        page = self.page()
        self.open(page, "user")
        page.locator("#slider-diversity").fill("1")
        section = page.locator("section", has=page.locator("#slider-diversity"))
        expect(section.locator("table, p").nth(1)).to_be_visible(timeout=10_000)
        page.context.close()

    def why(self) -> None:
        """An item says why it is there."""
        page = self.page()
        self.open(page, "user")
        first = page.locator("ol.list > li").first
        first.get_by_role("button", name="Why?").click()
        item = first.get_attribute("data-item")
        mine = page.locator(f'ol.list > li[data-item="{item}"]')  # the list may move meanwhile
        expect(mine.locator("ul li").first).to_be_visible(timeout=10_000)
        page.screenshot(path=str(self.shots / "why.png"))
        label = mine.get_by_role("button", name="Why?").get_attribute("aria-label")
        page.wait_for_timeout(1000 * STORY_SECONDS)  # the list of the story moves meanwhile
        if mine.count():
            expect(mine.locator("ul li").first).to_be_visible()
            focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
            assert focused == label, f"the focus went from {label!r} to {focused!r}"
        page.context.close()

    def search_and_map(self) -> None:
        """An item is searched, opened, and stands on the map."""
        page = self.page()
        self.open(page, "items")
        page.locator("ol.list > li a").first.click()
        expect(page.get_by_text("Chosen lately, by half-life")).to_be_visible(timeout=10_000)
        expect(page.locator("canvas.map")).to_be_visible(timeout=10_000)
        page.context.close()

    def language(self) -> None:
        """The language changes by a button, and stays."""
        page = self.page()
        self.open(page, "worker")
        page.get_by_role("button", name="中文").click()
        expect(page.get_by_role("heading", name="分区与工作进程")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="分区与工作进程")).to_be_visible(timeout=10_000)
        page.context.close()


def main() -> int:
    """Run all flows; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--address", help="of a worker's page; by default a demonstration is started"
    )
    parser.add_argument("--user", default="ada")
    parser.add_argument("--shots", type=Path, default=Path("build/page"))
    parser.add_argument("--docs", type=Path, help="folder for the pictures of the docs")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    given = parser.parse_args()
    if given.docs is not None and not has_chinese_font():
        parser.error("no font has Chinese, so pictures would show boxes; install fonts-noto-cjk")
    given.shots.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        address = given.address or stack.enter_context(demonstration())
        return run_all(address, given)


def has_chinese_font() -> bool:
    """Return whether fontconfig, which Chromium asks, knows a font with Chinese."""
    fonts = subprocess.run(["fc-list", ":lang=zh"], stdout=subprocess.PIPE, check=True)
    return bool(fonts.stdout.strip())


@contextmanager
def demonstration() -> Iterator[str]:
    """Run the demonstration, and return the address of its page once everything runs."""
    command = [sys.executable, "-m", "tracker", "demo", "--serve", "--paced-seconds", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line.split()[2] for line in process.stdout if line.startswith("The page: "))
        finally:
            process.send_signal(signal.SIGINT)


def run_all(address: str, given: argparse.Namespace) -> int:
    """Run all flows on a page; return the exit status."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=given.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        check = Check(browser, address, given.user, given.shots, given.docs)
        check.run("the first screen comes within a second", check.first_screen)
        check.run("a click moves the list, and is taken back", check.click_moves_the_list)
        check.run("all by the keyboard", check.by_keyboard)
        check.run("what if", check.what_if)
        check.run("why an item is there", check.why)
        check.run("search, an item, the map", check.search_and_map)
        check.run("the language changes", check.language)
        for view in VIEWS:
            for width in given.widths:
                for scheme in ("light", "dark"):
                    for language in ("en", "zh"):
                        name = f"{view}, {width} pixels, {scheme}, {language}"
                        check.run(name, partial(check.looks, view, width, scheme, language))
        browser.close()
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
