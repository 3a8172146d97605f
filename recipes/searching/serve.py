"""A page that searches an index, on this machine only unless told otherwise; the page has no program of its own.

/           the page; /?q=QUESTION&by=both&top=10 with passages
/search     the same as JSON
"""

import html
import ipaddress
import secrets
import socket
import socketserver
import string
import sys
import threading
import time
import urllib.parse
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.files import size_and_time
from weft.recipes.common.wording import counted
from weft.recipes.data.word_index import Form
from weft.recipes.searching.index import ABOUT, BY, Hit, SearchIndex
from weft.recipes.searching.show import also_in, as_json, marked, score_in_words
from weft.recipes.searching.stamps import same_content

LONGEST_QUESTION, MOST_HITS, USUAL_HITS = 2000, 100, 10
PAGE = string.Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


class SearchServer(ThreadingHTTPServer):
    """Answers for one index, which is opened again when it was built again."""

    daemon_threads = True

    def __init__(self, index: SearchIndex, host: str, port: int, faiss: bool | None = None) -> None:
        """Listen; raises RecipeError if the place is taken, or none of this machine."""
        self.index, self.host, self.faiss = index, host, faiss
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.one_at_a_time = threading.Lock()
        with refusing(f"{host}:{port} cannot be listened on", OSError, OverflowError, advice="give another --port."):
            super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Take the address, without asking the network for its name as the library's method does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def search(self, question: str, top: int, by: str) -> list[Hit]:
        """Search the index as it is now; raises RecipeError."""
        folder = self.index.folder
        with self.one_at_a_time:
            with refusing(f"index {folder} cannot be read", OSError):
                now = size_and_time(folder / ABOUT)
            if now != self.index.stamp:
                renewed, before = SearchIndex(folder), self.index
                renewed.device = before.device
                models = [index.about["model"] for index in (renewed, before)]
                if all(models) and same_content(*(model["files"] for model in models)):
                    renewed.embedder = before.embedder
                self.index = renewed
            return self.index.search([question], top, by, self.faiss)[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away before it had its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answers_to(self, name: str) -> bool:
        """Whether a request may call this server so: by a name that a page of others could bind to this address, it
        may not (DNS rebinding)."""
        name = name.strip("[]")
        if name in ("localhost", self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a place."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: SearchServer
    server_version, sys_version = "weft-search", ""
    timeout = 30

    def do_GET(self) -> None:
        if not self._named_rightly():
            self._send(HTTPStatus.FORBIDDEN, "this server is not called so: open it by its address", "text/plain")
            return
        path, _, fields = self.path.partition("?")
        try:
            asked = dict(urllib.parse.parse_qsl(fields, errors="strict", max_num_fields=10))
            question, top, by = self._understand(asked)
        except (ValueError, RecipeError) as error:
            self._send(HTTPStatus.BAD_REQUEST, str(error), "text/plain")
            return
        if path not in ("/", "/search"):
            self._send(HTTPStatus.NOT_FOUND, "there are / and /search", "text/plain")
            return
        began = time.monotonic()
        try:
            hits = self.server.search(question, top, by) if question else []
        except RecipeError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, str(error), "text/plain")
            return
        if path == "/search":
            self._send(HTTPStatus.OK, as_json(hits, question), "application/json")
            return
        nonce = secrets.token_urlsafe(12)
        page = page_of(self.server.index, question, by, hits, time.monotonic() - began, nonce)
        self._send(HTTPStatus.OK, page, "text/html", nonce)

    def _named_rightly(self) -> bool:
        named = self.headers.get_all("Host") or []
        if len(named) != 1:
            return False
        try:
            name = urllib.parse.urlsplit(f"//{named[0]}").hostname
        except ValueError:
            return False
        return name is not None and self.server.answers_to(name)

    def _understand(self, asked: dict[str, str]) -> tuple[str, int, str]:
        """Question, number of passages and how to search; raises ValueError or RecipeError."""
        question, index = asked.get("q", "").strip(), self.server.index
        by, wanted = asked.get("by") or index.by, asked.get("top", str(USUAL_HITS))
        if len(question) > LONGEST_QUESTION:
            raise RecipeError(f"the question has {len(question)} characters: {LONGEST_QUESTION} are read")
        if by not in ways_of(index):
            raise RecipeError(f"by is {by!r}: choose one of {', '.join(ways_of(index))}")
        if not (wanted.isascii() and wanted.isdecimal() and len(wanted) < 5 and 1 <= int(wanted) <= MOST_HITS):
            raise RecipeError(f"top is {wanted!r}: give a number from 1 to {MOST_HITS}")
        return question, int(wanted), by

    def _send(self, status: HTTPStatus, text: str, kind: str, nonce: str = "") -> None:
        body = text.encode(errors="replace")
        style = f" style-src 'nonce-{nonce}';" if nonce else ""
        policy = f"default-src 'none';{style} form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Print nothing: questions are nobody's business."""


def ways_of(index: SearchIndex) -> Sequence[str]:
    """How an index can be searched."""
    return BY if index.about["model"] is not None else ("words",)


def page_of(index: SearchIndex, question: str, by: str, hits: Sequence[Hit], seconds: float, nonce: str) -> str:
    """The page, with everything escaped that comes from texts and questions."""
    sources = counted(len(index.about["sources"]), "source")
    model = index.about["model"]
    told = f"{counted(len(hits), 'passage')} in {seconds:.2f} s" if hits else "Nothing was found: ask with other words."
    chosen = {way: " selected" if way == by else "" for way in ways_of(index)}
    options = "".join(f'<option value="{way}"{mark}>{way}</option>' for way, mark in chosen.items())
    return PAGE.substitute(
        title=html.escape(f"Search in {index.folder.name}"),
        about=html.escape(
            f"{counted(len(index), 'passage')} of {sources}; "
            + (f"model {Path(model['folder']).name}" if model else "by words alone")
        ),
        question=html.escape(question),
        choices=f'<select name="by" aria-label="search by">{options}</select>' if len(chosen) > 1 else "",
        told=f"<p>{html.escape(told)}</p>" if question else "",
        hits="\n".join(_item(hit, question, index.form) for hit in hits),
        nonce=nonce,
    )


def _item(hit: Hit, question: str, form: Form) -> str:
    text = "".join(
        f"<mark>{html.escape(piece)}</mark>" if found else html.escape(piece)
        for piece, found in marked(hit.text.removeprefix(f"{hit.place}\n"), question, form)
    )
    also = f'<div class="also">{html.escape(also_in(hit))}</div>' if hit.others else ""
    place = f"<b>{html.escape(hit.where)}</b><span>{html.escape(score_in_words(hit))}</span>"
    return f'<li><div class="place">{place}</div>{also}<pre>{text}</pre></li>'
