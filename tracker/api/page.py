"""The page at /: files of the package, served as they are, with a policy that allows no others."""

from importlib.resources import files

from aiohttp import web

from tracker.api.access import Access
from tracker.api.problems import ProblemError

TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


TRY_HEADERS = HEADERS | {
    "Content-Security-Policy": HEADERS["Content-Security-Policy"]
    .replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    .replace("img-src 'self'", "img-src 'self' data:"),
}
"""Of the page to try the API: Swagger UI writes styles, and has its pictures in them."""


def page_files() -> dict[str, tuple[bytes, str]]:
    """Return the files by name, with their types."""
    folder = files("tracker.api") / "static"
    return {
        entry.name: (entry.read_bytes(), TYPES["." + entry.name.rsplit(".", 1)[-1]])
        for entry in folder.iterdir()
    }


def add_page(app: web.Application, access: Access) -> None:
    """Serve the page at / and its files below /page.

    The page itself holds nothing of anybody; with a token it asks for it. Without one, only this
    machine gets it, as it is with the API.
    """
    loaded = page_files()

    async def answer(request: web.Request) -> web.Response:
        if not access.has_token:
            try:
                access.check(request.remote, request.host, {}, "read")
            except ProblemError as problem:
                return web.Response(status=problem.status, text=str(problem))
        name = request.match_info.get("name", "index.html")
        if name not in loaded:
            raise web.HTTPNotFound
        body, content_type = loaded[name]
        headers = TRY_HEADERS if name == "try.html" else HEADERS
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    app.router.add_get("/", answer)
    app.router.add_get("/page/{name}", answer)
