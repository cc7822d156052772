"""The page: what is served, how it is guarded, and that it needs nothing from anywhere else."""

from __future__ import annotations

import base64
import http.client
import re
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest
from made_keys import make_keys
from running import Running

MEDIA = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
FILES = {
    entry.name: entry.read_text(encoding="utf-8")
    for entry in files("icl_select.service.web").iterdir()
    if entry.name.rpartition(".")[2] in MEDIA
}
MODULES = {name: text for name, text in FILES.items() if name.endswith(".js")}
IMPORT = re.compile(r'\bfrom\s+"\./([^"]+)"|\bimport\s*\(?\s*"\./([^"]+)"')


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("page"), "--encoders", "hash", "--workers", "0") as running:
        yield running


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("closed-page")
    made = make_keys(folder, "read", "label", "admin")
    with Running(folder, "--encoders", "hash", "--workers", "0") as running:
        yield running, made


class Elements(HTMLParser):
    """Every element of a document with its attributes, and the text inside of scripts and styles."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.inside.append(data)


def raw(service: Running, target: str) -> tuple[int, str]:
    """Status and body for a request target that no client cleans up."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        connection.putrequest("GET", target, skip_host=False)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class TestServing:
    def test_the_document_is_at_the_root(self, service: Running) -> None:
        answer = service.send("GET", "/")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == MEDIA["html"]
        assert answer.text == FILES["index.html"]

    @pytest.mark.parametrize("name", sorted(FILES))
    def test_every_file_comes_as_what_it_is(self, service: Running, name: str) -> None:
        answer = service.send("GET", f"/web/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == MEDIA[name.rpartition(".")[2]]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.text == FILES[name]

    @pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/style.css"])
    def test_headers_let_nothing_in_from_elsewhere(self, service: Running, path: str) -> None:
        headers = service.send("GET", path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        for name in ("base-uri", "form-action", "frame-ancestors", "object-src"):
            assert policy[name] == "'none'", name
        assert policy["require-trusted-types-for"] == "'script'"
        assert policy["trusted-types"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"

    @pytest.mark.parametrize("path", ["/", "/web/app.js"])
    def test_what_a_browser_has_is_not_sent_again(self, service: Running, path: str) -> None:
        first = service.send("GET", path)
        assert first.headers["cache-control"] == "private, no-cache"
        for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
            again = service.send("GET", path, headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == first.headers["etag"]
            assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
        assert service.send("GET", path, headers={"If-None-Match": '"other"'}).status_code == 200

    def test_files_have_etags_of_their_own(self, service: Running) -> None:
        tags = {service.send("GET", f"/web/{name}").headers["etag"] for name in FILES}
        assert len(tags) == len(FILES)

    def test_head_is_answered_without_a_body(self, service: Running) -> None:
        answer = service.send("HEAD", "/")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["etag"] == service.send("GET", "/").headers["etag"]

    @pytest.mark.parametrize(
        "target",
        [
            "/web/../routes/pages.py",
            "/web/..%2froutes%2fpages.py",
            "/web/%2e%2e/routes/pages.py",
            "/web/%2e%2e%2fsettings.py",
            "/web/..\\settings.py",
            "/web//etc/passwd",
            "/web/%2fetc%2fpasswd",
            "/web/app.js%00.html",
            "/web/__init__.py",
            "/web/__pycache__",
            "/web/APP.JS",
            "/web/",
            "/web",
            "/web/other.js",
        ],
    )
    def test_nothing_else_is_served(self, service: Running, target: str) -> None:
        status, body = raw(service, target)
        # A path that ends outside of /web is no file of ours; the framework may send /web/ to /web.
        assert status in (307, 404)
        assert "import" not in body
        assert "root:" not in body

    def test_the_page_is_no_part_of_the_interface(self, service: Running) -> None:
        paths = service.call("GET", "/openapi.json")["paths"]
        assert not [path for path in paths if path == "/" or path.startswith("/web")]


class TestClosed:
    @pytest.mark.parametrize("path", ["/", "/web/session", *(f"/web/{name}" for name in sorted(FILES))])
    def test_strangers_see_nothing(self, keys: tuple[Running, dict[str, str]], path: str) -> None:
        service, _ = keys
        answer = service.send("GET", path)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        # One challenge alone: a browser that reads the first of several would not ask for the key.
        assert answer.headers["www-authenticate"] == 'Basic realm="icl-select", charset="UTF-8"'

    @pytest.mark.parametrize("scope", ["read", "label", "admin"])
    def test_the_key_as_a_password_opens_it(self, keys: tuple[Running, dict[str, str]], scope: str) -> None:
        service, known = keys
        word = base64.b64encode(f"anybody:{known[scope]}".encode()).decode()
        headers = {"Authorization": f"Basic {word}"}
        assert service.send("GET", "/", headers=headers).status_code == 200
        assert service.send("GET", "/web/app.js", headers=headers).status_code == 200
        session = service.send("GET", "/web/session", headers=headers)
        assert session.json() == {"name": f"{scope}-key", "scope": scope, "closed": True}
        assert session.headers["cache-control"] == "no-store"

    def test_a_wrong_password_does_not(self, keys: tuple[Running, dict[str, str]]) -> None:
        service, known = keys
        word = base64.b64encode(f"anybody:{known['read'][:-1]}".encode()).decode()
        assert service.send("GET", "/", headers={"Authorization": f"Basic {word}"}).status_code == 401

    def test_without_keys_everybody_on_this_machine_may_do_everything(self, service: Running) -> None:
        assert service.call("GET", "/web/session") == {"name": "anonymous", "scope": "admin", "closed": False}


class TestFiles:
    def test_no_file_asks_anything_of_anybody_else(self) -> None:
        for name, text in FILES.items():
            # The name of the vector format is a name, no address that anything fetches.
            shown = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
            assert not re.findall(r"""\b(?:https?|wss?|ftp):|["'`(]//""", shown), name
            assert "@import" not in shown, name
            assert not re.findall(r"url\((?!#)", shown), name

    def test_the_document_has_no_script_or_style_of_its_own(self) -> None:
        elements = Elements(FILES["index.html"])
        assert elements.inside == []
        for tag, attributes in elements.found:
            assert tag not in ("style", "iframe", "object", "embed", "base"), tag
            assert "style" not in attributes
            assert not [name for name in attributes if name.startswith("on")]
            if tag == "script":
                assert attributes == {"type": "module", "src": "web/app.js"}

    def test_the_document_asks_for_files_that_are_there(self) -> None:
        for _, attributes in Elements(FILES["index.html"]).found:
            address = attributes.get("src") or attributes.get("href") or "#"
            if not address.startswith("#") and address != "openapi.json":
                assert address.removeprefix("web/") in FILES, address

    @pytest.mark.parametrize(
        "word",
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc",
         "DOMParser", "createContextualFragment", "setTimeout(\"", ".style."],
    )  # fmt: skip
    def test_no_module_makes_markup_or_code_out_of_text(self, word: str) -> None:
        assert [name for name, text in MODULES.items() if word in text] == []

    def test_modules_import_what_is_there_and_none_is_left_over(self) -> None:
        imports = {name: {a or b for a, b in IMPORT.findall(text)} for name, text in MODULES.items()}
        for name, wanted in imports.items():
            assert wanted <= MODULES.keys(), name
        reached, left = set(), ["app.js"]
        while left:
            name = left.pop()
            if name not in reached:
                reached.add(name)
                left += imports[name]
        assert reached == MODULES.keys()

    def test_they_are_in_the_package(self) -> None:
        root = Path(__file__).resolve().parents[2]
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        patterns = project["tool"]["setuptools"]["package-data"]["icl_select.service.web"]
        assert set(patterns) == {f"*.{suffix}" for suffix in MEDIA}

    def test_it_works_below_a_path(self) -> None:
        # Behind a proxy that serves it at /labels/, relative addresses stay below it.
        for _, attributes in Elements(FILES["index.html"]).found:
            address = attributes.get("src") or attributes.get("href") or "#"
            assert urljoin("http://host/labels/", address).startswith("http://host/labels/"), address
        for name, text in MODULES.items():
            assert not re.findall(r"""(?:fetch|get|post|put|patch|remove|upload)\(\s*[`"']/""", text), name


def test_a_page_elsewhere_cannot_use_the_log_in(service: Running) -> None:
    """The browser sends its log-in with every request to us; what another page sends changes nothing."""
    for site in ("cross-site", "same-site"):
        answer: httpx2.Response = service.send(
            "POST", "/v1/pools", {"name": "stolen"}, headers={"Sec-Fetch-Site": site}
        )
        assert answer.status_code == 422
    assert service.call("GET", "/v1/pools")["pools"] == []
    made = service.send("POST", "/v1/pools", {"name": "ours"}, headers={"Sec-Fetch-Site": "same-origin"})
    assert made.status_code == 201
