"""The page: its files are served with a strict policy, and both languages say the same."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import ClientResponse, ClientSession, web
from aiohttp.test_utils import TestServer

from tracker.api.access import Access
from tracker.api.page import TYPES, add_page, page_files
from tracker.api.routes import ROUTES

FILES = {name: body.decode() for name, (body, _) in page_files().items()}
OURS = {name: text for name, text in FILES.items() if not name.startswith(("uplot", "swagger"))}


def get(path: str, token: str | None = None, **more: Any) -> tuple[int, str, dict[str, str]]:
    async def run() -> tuple[int, str, dict[str, str]]:
        app = web.Application()
        add_page(app, Access(token, None, 100.0))
        async with TestServer(app) as server, ClientSession() as session:
            answer: ClientResponse = await session.get(server.make_url(path), **more)
            return answer.status, await answer.text(), dict(answer.headers)

    work: Callable[[], Coroutine[Any, Any, tuple[int, str, dict[str, str]]]] = run
    return asyncio.run(work())


def words(language: str) -> set[str]:
    text = FILES["words.js"].split(f"  {language}: {{")[1].split("\n  },")[0]
    return set(re.findall(r"(?:^|[\s,{])(\w+): \"", text))


def test_the_page_comes_at_the_root_and_lets_nothing_in_from_elsewhere() -> None:
    status, text, headers = get("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Interest tracker" in text
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"page/([\w.]+)", FILES["index.html"]))
    named |= {name for text in OURS.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert named <= set(FILES)
    for name in named:
        status, text, headers = get(f"/page/{name}")
        assert status == 200
        assert text == FILES[name]
        assert headers["Content-Type"].split(";")[0] == TYPES["." + name.rsplit(".", 1)[1]]


def test_the_page_to_try_the_api_loads_nothing_from_elsewhere() -> None:
    status, text, headers = get("/page/try.html")
    assert status == 200
    names = re.findall(r'(?:href|src)="([\w.]+)"', text)
    assert {"swagger.js", "swagger.css", "try.js"} <= set(names) <= set(FILES)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self';" in policy
    assert not re.findall(r"url\(\s*[\"']?https?:", FILES["swagger.css"])
    assert "Apache License" in FILES["swagger.LICENSE.txt"]


def test_nothing_else_of_the_package_is_served() -> None:
    for path in ("/page/nothing.js", "/page/..%2Fpage.py", "/page/%2e%2e/page.py"):
        assert get(path)[0] == 404


def test_without_a_token_another_name_of_the_machine_is_refused_and_with_one_it_asks() -> None:
    headers = {"Host": "shop.example"}
    status, text, _ = get("/", headers=headers)
    assert status == 403
    assert "TRACKER_WEB_TOKEN" in text
    assert get("/", "a token that is long", headers=headers)[0] == 200


def test_nothing_is_asked_of_another_host() -> None:
    for name, text in OURS.items():
        foreign = [link for link in re.findall(r"https?://[\w.]+", text) if "w3.org" not in link]
        assert foreign == [], name


def test_both_languages_have_all_words_that_are_used() -> None:
    assert words("en") == words("zh")
    used = set(re.findall(r'data-word(?:-label)?="(\w+)"', FILES["index.html"]))
    used |= {name for text in OURS.values() for name in re.findall(r'\bword\("(\w+)"', text)}
    assert used <= words("en")


def test_every_route_that_the_page_asks_for_exists() -> None:
    asked = set()
    for text in OURS.values():
        for path in re.findall(r'(?:ask|follow)\(\s*[`"](/[^`"?]*)', text):
            asked.add(re.sub(r"\$\{enc\([^)]*\)\}|\$\{\w+\}$", "{}", path).rstrip("{}") or path)
    known = {re.sub(r"\{\w+\}", "{}", route.path).rstrip("{}") for route in ROUTES}
    assert asked
    assert asked <= known
