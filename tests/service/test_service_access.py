"""Keys, scopes, rates, limits and hosts: who gets in, and how much."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from running import Running, rows, until

from icl_select.service.access import ANONYMOUS, Principal, RateLimiter, key_of
from icl_select.service.errors import BusyError
from icl_select.service.settings import Settings, is_loopback
from icl_select.service.store import keys as keys_store


def command(*arguments: str, folder: Path, expect: int = 0, environ: dict[str, str] | None = None) -> tuple[str, str]:
    """Output and remarks of one run of the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "icl_select", *arguments, "--data-dir", str(folder)],
        capture_output=True, text=True, env={**os.environ, **(environ or {})}, timeout=120,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done.stdout, done.stderr


def make_key(folder: Path, name: str, scope: str, *more: str) -> str:
    out, remark = command("keys", "create", name, "--scope", scope, *more, folder=folder)
    key = out.strip()
    assert key not in remark
    return key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("closed")


@pytest.fixture(scope="module")
def closed(folder: Path) -> Iterator[dict[str, Any]]:
    """A service with one key of each scope."""
    keys = {scope: make_key(folder, f"{scope}-person", scope) for scope in ("read", "label", "admin")}
    keys["slow"] = make_key(folder, "slow", "read", "--per-minute", "5")
    limits = {
        "ICS_SERVICE_LIMITS__BODY_BYTES": "20000",
        "ICS_SERVICE_LIMITS__UPLOAD_BYTES": "60000",
        "ICS_SERVICE_LIMITS__LABELS": "10",
        "ICS_SERVICE_LIMITS__ITEM_CHARS": "2000",
        "ICS_SERVICE_LIMITS__POOL_ITEMS": "50",
    }
    with Running(folder, environ=limits) as service:
        service.headers = {"Authorization": f"Bearer {keys['admin']}"}
        service.pool("t", rows(20, labelled=5))
        yield {"service": service, **keys}


def as_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_every_route_but_health_is_closed(closed: dict[str, Any]) -> None:
    service: Running = closed["service"]
    document = service.call("GET", "/openapi.json")
    paths = [(method, path) for path, methods in document["paths"].items() for method in methods]
    paths += [("get", path) for path in ("/", "/docs", "/openapi.json", "/metrics", "/nothing", "/web/app.js")]
    assert len(paths) > 35
    for method, path in paths:
        bare = path.replace("{pool}", "t").replace("{", "").replace("}", "").replace(":path", "")
        answer = service.client.request(method.upper(), f"{service.url}{bare}")
        assert answer.status_code == (200 if path == "/health" else 401), path
        if path != "/health":
            assert answer.headers["www-authenticate"].startswith("Basic ")  # a browser asks for the key


def test_a_key_that_is_not_valid_is_refused(closed: dict[str, Any]) -> None:
    service: Running = closed["service"]
    good = closed["read"]
    wrong = [f"{good[:-1]}{'A' if good[-1] != 'A' else 'B'}", good[:20], f"ics_{'0' * 12}_{'a' * 43}", "é"]
    for key in wrong:
        headers = {"Authorization": f"Bearer {key}".encode()}
        assert service.client.get(f"{service.url}/v1/pools", headers=headers).status_code == 401
    for header in (good, f"Token {good}", "Basic ???", "Basic", "Bearer"):
        answer = service.client.get(f"{service.url}/v1/pools", headers={"Authorization": header})
        assert answer.status_code == 401


def test_a_browser_sends_the_key_as_a_password(closed: dict[str, Any]) -> None:
    service: Running = closed["service"]
    login = base64.b64encode(f"anybody:{closed['read']}".encode()).decode()
    assert service.send("GET", "/v1/pools", headers={"Authorization": f"Basic {login}"}).status_code == 200
    # Another site's page may make the browser send it, but not change anything.
    headers = {"Authorization": f"Bearer {closed['admin']}", "Sec-Fetch-Site": "cross-site"}
    assert service.send("POST", "/v1/pools", {"name": "evil"}, headers=headers).status_code == 422
    assert service.send("GET", "/v1/pools/evil").status_code == 404


def test_each_scope_allows_what_it_says(closed: dict[str, Any]) -> None:
    service: Running = closed["service"]
    label = {"labels": [{"id": "item-9", "label": "a"}]}
    asked = [
        ("read", "GET", "/v1/pools/t", None),
        ("read", "POST", "/v1/prompts", {"pool": "t", "query": "word1"}),
        ("label", "PUT", "/v1/pools/t/labels", label),
        ("admin", "POST", "/v1/pools", {"name": "new"}),
        ("admin", "POST", "/v1/pools/t/selections", {"budget": 2}),
        ("admin", "DELETE", "/v1/pools/new", None),
    ]
    for needed, method, path, body in asked:
        for scope in ("read", "label", "admin"):
            status = service.send(method, path, body, headers=as_key(closed[scope])).status_code
            allowed = keys_store.SCOPES.index(scope) >= keys_store.SCOPES.index(needed)
            assert (status == 403) != allowed, (scope, method, path, status)


def test_labels_bear_the_name_of_the_key(closed: dict[str, Any]) -> None:
    service: Running = closed["service"]
    service.call("PUT", "/v1/pools/t/labels/item-8", {"label": "z"}, headers=as_key(closed["label"]))
    assert [word["annotator"] for word in service.call("GET", "/v1/pools/t/history/item-8")] == ["label-person"]


def test_a_key_has_its_own_rate(closed: dict[str, Any]) -> None:
    service: Running = closed["service"]
    answers = [service.send("GET", "/v1/pools", headers=as_key(closed["slow"])) for _ in range(7)]
    assert [answer.status_code for answer in answers[:5]] == [200] * 5
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert service.send("GET", "/v1/pools", headers=as_key(closed["read"])).status_code == 200


def test_what_is_above_a_limit_is_refused_and_the_limit_named(closed: dict[str, Any]) -> None:
    service: Running = closed["service"]
    answer = service.send("POST", "/v1/prompts", {"pool": "t", "query": "x" * 30_000})
    assert (answer.status_code, "20,000 bytes" in answer.json()["detail"]) == (413, True)
    many = {"labels": [{"id": f"item-{number}", "label": "a"} for number in range(11)]}
    answer = service.send("PUT", "/v1/pools/t/labels", many)
    assert (answer.status_code, "10 of one request" in answer.json()["detail"]) == (413, True)
    answer = service.send("POST", "/v1/prompts", {"pool": "t", "query": "x" * 3_000})
    assert (answer.status_code, "2,000" in answer.json()["detail"]) == (422, True)
    lines = {"Content-Type": "application/x-ndjson"}
    large = json.dumps({"text": "x" * 5_000}).encode()
    assert service.send("PUT", "/v1/pools/t/items", large, headers=lines).status_code == 413
    huge = b'{"text": "' + b"x" * 70_000 + b'"}'
    assert service.send("PUT", "/v1/pools/t/items", huge, headers=lines).status_code == 413
    more = b"".join(json.dumps(row).encode() + b"\n" for row in rows(40, start=500))
    answer = service.send("PUT", "/v1/pools/t/items", more, headers=lines)
    assert (answer.status_code, "50 items" in answer.json()["detail"]) == (409, True)
    assert service.call("GET", "/v1/pools/t")["n_items"] == 20


def test_a_body_without_a_length_is_stopped_at_the_limit(closed: dict[str, Any]) -> None:
    """A chunked upload that would go on for ever ends at the limit, and leaves no file behind."""
    service: Running = closed["service"]
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 10_000
            yield b" " * 10_000

    headers = {"Content-Type": "application/x-ndjson", **service.headers}
    # The answer may be lost when the connection is closed while the client still sends.
    with contextlib.suppress(httpx2.TransportError):
        answer = service.client.put(f"{service.url}/v1/pools/t/items", content=chunks(), headers=headers)
        assert answer.status_code == 413
    assert sent < 50_000_000
    until(lambda: not list((service.folder / "uploads").glob("*")), "the end of the upload")


def test_keys_are_kept_as_hashes_and_never_logged(closed: dict[str, Any]) -> None:
    service: Running = closed["service"]
    files = [path for path in service.folder.rglob("*") if path.is_file()]
    assert any(path.name == "service.sqlite" for path in files)
    for scope in ("read", "label", "admin", "slow"):
        secret = closed[scope].split("_", 2)[2].encode()
        assert not any(secret in path.read_bytes() for path in files)
        assert not any(secret.decode() in line for line in service.log)
        answer = service.send("GET", f"/v1/pools/{closed[scope][:60]}")
        assert secret.decode() not in "".join(line for line in service.log if '"status": 401' in line)
        assert answer.status_code in (404, 422)


def test_a_revoked_key_stops_working_while_the_service_runs(closed: dict[str, Any], folder: Path) -> None:
    service: Running = closed["service"]
    key = make_key(folder, "leaver", "read")
    until(lambda: service.send("GET", "/v1/pools", headers=as_key(key)).status_code == 200, "a new key")
    listed = json.loads(command("keys", "list", "--json", folder=folder)[0])["keys"]
    key_id = next(entry["id"] for entry in listed if entry["name"] == "leaver")
    assert key_id == key.split("_")[1]
    command("keys", "revoke", key_id, folder=folder)
    until(lambda: service.send("GET", "/v1/pools", headers=as_key(key)).status_code == 401, "the end of the key")
    command("keys", "revoke", "0" * 12, folder=folder, expect=1)


def test_the_service_stays_closed_when_all_keys_are_revoked(tmp_path: Path) -> None:
    key = make_key(tmp_path, "only", "admin")
    command("keys", "revoke", key.split("_")[1], folder=tmp_path)
    with Running(tmp_path) as service:
        assert service.send("GET", "/v1/pools").status_code == 401
        assert service.send("GET", "/v1/pools", headers=as_key(key)).status_code == 401
        assert service.send("GET", "/health").status_code == 200


def test_without_keys_only_this_machine_is_served(tmp_path: Path) -> None:
    _, refusal = command("serve", "--host", "0.0.0.0", "--port", "0", folder=tmp_path, expect=1)
    assert "no API key" in refusal
    assert "--allow-anonymous" in refusal
    with Running(tmp_path) as service:
        for host in ("localhost", "127.0.0.1:80", "[::1]:8765", service.url.removeprefix("http://")):
            assert service.send("GET", "/v1/pools", headers={"Host": host}).status_code == 200
        # A page elsewhere whose name was made to point here.
        answer = service.send("GET", "/v1/pools", headers={"Host": "evil.example"})
        assert (answer.status_code, "not this machine" in answer.json()["detail"]) == (422, True)


def test_beyond_loopback_with_a_key_or_when_told_so(tmp_path: Path) -> None:
    with Running(tmp_path / "open", "--host", "0.0.0.0", "--allow-anonymous") as service:
        assert service.send("GET", "/v1/pools").status_code == 200
    make_key(tmp_path / "closed", "me", "admin")
    with Running(tmp_path / "closed", "--host", "0.0.0.0") as service:
        assert service.send("GET", "/v1/pools").status_code == 401


def test_the_key_in_a_header_is_found() -> None:
    assert key_of("Bearer  x ") == "x"
    assert key_of("bearer x") == "x"
    assert key_of(f"Basic {base64.b64encode(b'a:b:c').decode()}") == "b:c"
    assert key_of("Digest x") is None
    assert key_of("Basic é") is None


def test_a_rate_fills_up_again() -> None:
    limiter = RateLimiter(60)
    me = Principal("k", "me", "read")
    for _ in range(60):
        limiter.check(me, "", 0.0)
    with pytest.raises(BusyError, match="60 requests a minute") as refused:
        limiter.check(me, "", 0.0)
    assert refused.value.headers["Retry-After"] == "2"
    limiter.check(me, "", 1.0)
    with pytest.raises(BusyError):
        limiter.check(me, "", 1.5)
    # Strangers are told apart by where they come from.
    for _ in range(60):
        limiter.check(ANONYMOUS, "10.0.0.1", 0.0)
    limiter.check(ANONYMOUS, "10.0.0.2", 0.0)
    RateLimiter(None).check(me, "", 0.0)


@pytest.mark.parametrize(
    ("host", "inside"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False),
     ("192.168.0.2", False), ("localhost.example", False), ("", False)],
)  # fmt: skip
def test_loopback_is_recognised(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


def test_settings_come_from_flags_then_environment_then_file() -> None:
    environ = {"ICS_SERVICE_PORT": "1", "ICS_SERVICE_LIMITS__BATCH": "7", "ICS_SERVICE_ENCODERS": "hash, minilm"}
    file = {"port": 2, "host": "::1", "limits": {"batch": 3, "k": 4}}
    found = Settings.load({"port": None, "workers": 3}, environ, file)
    assert (found.port, found.host, found.workers, found.limits.batch, found.limits.k) == (1, "::1", 3, 7, 4)
    assert found.encoders == ("hash", "minilm")
    assert Settings.load({"port": 5}, environ, file).port == 5


def test_a_setting_that_cannot_be_is_named_without_its_value() -> None:
    from icl_select.errors import ConfigError

    with pytest.raises(ConfigError, match="limits__batch") as refused:
        Settings.load({}, {"ICS_SERVICE_LIMITS__BATCH": "secret"})
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="prot"):
        Settings.load({}, {"ICS_SERVICE_PROT": "1"})
    with pytest.raises(ConfigError, match="PostgreSQL"):
        Settings.load({"database": "mysql://x"}, {})
