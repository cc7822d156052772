"""The page: one document with its modules, styles and icon, all out of the package."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ..errors import NotFoundError
from ._common import App, Reader

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_INDEX = "index.html"
_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    # Texts and labels are anybody's: no string ever becomes markup or script, whatever a module does.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The files of one version belong together and their names do not tell versions apart: always ask, by ETag.
    "Cache-Control": "private, no-cache",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media: str
    etag: str


@functools.cache
def _files() -> Mapping[str, _File]:
    """Every file of the page by name. What is not in here is not served, whatever the path says."""
    found = {}
    for entry in files("icl_select.service.web").iterdir():
        media = _MEDIA.get(PurePath(entry.name).suffix)
        if media is not None:
            content = entry.read_bytes()
            found[entry.name] = _File(content, media, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def _serve(request: Request, name: str) -> Response:
    file = _files().get(name)
    if file is None:
        raise NotFoundError(f"the page has no file {name!r}. It begins at /.")
    headers = {**_HEADERS, "ETag": file.etag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media)


class SessionOut(BaseModel):
    """Who looks at the page: it offers what they may do."""

    name: str
    scope: Literal["read", "label", "admin"]
    closed: bool


@router.api_route("/", methods=["GET", "HEAD"])
def index(request: Request, _: Reader) -> Response:
    """The document."""
    return _serve(request, _INDEX)


@router.get("/web/session")
def session(response: Response, app: App, who: Reader) -> SessionOut:
    """Name and scope of the key that opened the page."""
    response.headers["Cache-Control"] = "no-store"
    return SessionOut.model_validate({"name": who.name, "scope": who.scope, "closed": app.access.closed})


@router.api_route("/web/{name}", methods=["GET", "HEAD"])
def file(request: Request, name: str, _: Reader) -> Response:
    """A file that the document asks for."""
    return _serve(request, name)
