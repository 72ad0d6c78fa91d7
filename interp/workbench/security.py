"""Who may ask a workbench: only what holds its token, by its own name, from its own page.

The page is served to anybody who reaches the port and says nothing. Every other answer needs the token, as a header
that a form, an image or another page's script cannot send: so no cookie is needed, and there is none to be stolen.
"""

import hmac
from typing import Any, Final
from urllib.parse import urlsplit

API: Final = "/api/"
OPEN: Final = frozenset({"/api/v1/healthz"})
LARGEST: Final = 20 * 1024 * 1024
"""Bytes of a request's body at most."""
SHORT: Final = 1 << 16
"""Bytes of a refused request's body that are read before it is answered."""
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
NOTEBOOKS: Final = "http://localhost:* http://127.0.0.1:* https://localhost:* https://127.0.0.1:*"


class Guard:
    """An ASGI application around another one, which refuses what it should not see.

    Args:
        app: what answers.
        token: what every request of the interface must hold.
        hosts: the names that the server may be called by, with their ports.
    """

    def __init__(self, app: Any, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        if (refused := self.refusal(scope)) is not None:
            await _read_away(receive)
            await _answer(send, *refused)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_headers()]}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def refusal(self, scope: Any) -> tuple[int, str] | None:
        """The status and reason with which a request is refused; None for one that is let in."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        if headers.get("host", "") not in self.hosts:
            return 421, "this server is not called by that name"
        if (origin := headers.get("origin")) is not None and urlsplit(origin).netloc not in self.hosts:
            return 403, "requests come from the workbench's own page"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and path.startswith(API):
            return 403, "requests come from the workbench's own page"
        if not path.startswith(API) or path in OPEN:
            return None if method in ("GET", "HEAD") else (405, "the page is only read")
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return 401, "the token is missing or wrong: open the address that the terminal shows"
        if (
            method not in ("GET", "HEAD", "DELETE")
            and headers.get("content-type", "").split(";")[0] != "application/json"
        ):
            return 415, "send JSON"
        if not headers.get("content-length", "0").isdigit() or int(headers.get("content-length", "0")) > LARGEST:
            return 413, f"a request has {LARGEST} bytes at most"
        return None


def _headers() -> list[tuple[bytes, bytes]]:
    ancestors = f"'self' {NOTEBOOKS}"
    return [(name.encode(), value.replace("{ancestors}", ancestors).encode()) for name, value in HEADERS.items()]


async def _read_away(receive: Any) -> None:
    """Read a short body of a request that is refused, as a connection closed before that loses the answer."""
    read, more = 0, True
    while more and read < SHORT:
        message = await receive()
        read += len(message.get("body", b""))
        more = message.get("more_body", False)


async def _answer(send: Any, status: int, reason: str) -> None:
    body = f'{{"detail": "{reason}", "status": {status}}}'.encode()
    headers = [(b"content-type", b"application/problem+json"), *_headers()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
