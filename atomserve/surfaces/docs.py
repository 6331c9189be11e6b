"""The page that shows the OpenAPI document, with every asset served from here."""

from __future__ import annotations

from html import escape
from importlib.metadata import distribution

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

BUNDLE = "offapi"
ASSETS = {
    "swagger-ui.js": ("swagger_bundle.js", "text/javascript"),
    "swagger-ui.css": ("swagger_style.css", "text/css"),
}
"""What the page loads, each with the file of the bundle that it is."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        # Icons in the style sheet; answers that are pictures or sounds.
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

# Addresses are relative, so that the page works under any prefix and behind any proxy.
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css?{version}">
</head>
<body>
<div id="page"><a href="openapi.json">openapi.json</a></div>
<script src="docs/swagger-ui.js?{version}"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# Without a validator's address the page would send the document to a public one.
START = """\
"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  validatorUrl: null,
  deepLinking: true,
  displayRequestDuration: true,
});
"""


def routes(prefix: str = "", *, title: str = "atomserve") -> list[Route]:
    """Serve ``/docs``, which reads the ``openapi.json`` beside it, and its assets."""
    bundle = distribution(BUNDLE)
    page = PAGE.format(title=escape(title), version=bundle.version)
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    fresh = {**headers, "Cache-Control": "no-cache"}
    kept = {**headers, "Cache-Control": "public, max-age=31536000, immutable"}

    async def docs(request: Request) -> Response:
        return HTMLResponse(page, headers=fresh)

    async def start(request: Request) -> Response:
        return Response(START, headers=fresh, media_type="text/javascript")

    def asset(name: str) -> Route:
        file, media_type = ASSETS[name]
        # Looked up by the distribution: importing the bundle would build pages of megabytes.
        path = str(bundle.locate_file(f"{BUNDLE}/{file}"))

        async def send(request: Request) -> Response:
            return FileResponse(path, headers=kept, media_type=media_type)

        return Route(f"{prefix}/docs/{name}", send)

    return [
        Route(f"{prefix}/docs", docs, name="docs"),
        Route(f"{prefix}/docs/start.js", start),
        *map(asset, ASSETS),
    ]
