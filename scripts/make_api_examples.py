"""Write service/examples.json: one request and answer of every route, as they came from a running service.

    python scripts/make_api_examples.py

The OpenAPI document shows them, so run this again when an answer changes its shape; tests hold the file to the
document.
"""

from __future__ import annotations

import http.server
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx2

TARGET = Path(__file__).resolve().parents[1] / "service" / "examples.json"

TICKETS = [
    ("t1", "Invoice", "The total on my invoice is wrong"),
    ("t2", "Login", "I cannot log in since Monday"),
    ("t3", "Bill", "I was charged twice for one order"),
    ("t4", "Password", "The link to reset my password has expired"),
    ("t5", "Delivery", "My parcel has not arrived"),
    ("t6", "Late", "The delivery is a week late"),
]
WORDS = ["billing", "account", "delivery"]
POOL = {"name": "tickets", "encoder": "hash", "text": "{subject}: {body}", "label_words": WORDS}
CHAT = {"model": "tickets::my-model", "messages": [{"role": "user", "content": "My invoice is wrong"}]}


class Upstream(http.server.BaseHTTPRequestHandler):
    """A model that says one thing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        kind = "chat.completion" if "chat" in self.path else "text_completion"
        said: dict[str, Any] = {"message": {"role": "assistant", "content": "billing"}}
        choice = {"index": 0, "finish_reason": "stop", **(said if "chat" in self.path else {"text": "billing"})}
        self._answer({"id": "cmpl-1", "object": kind, "created": 1, "model": "my-model", "choices": [choice]})

    def do_GET(self) -> None:
        model = {"id": "my-model", "object": "model", "created": 1, "owned_by": "me"}
        self._answer({"object": "list", "data": [model]})

    def _answer(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Recorder:
    """Sends requests and keeps, for each operation, what was sent and what came back."""

    def __init__(self, url: str) -> None:
        self.client = httpx2.Client(base_url=url, timeout=60, trust_env=False)
        self.kept: dict[str, dict[str, Any]] = {}

    def send(self, operation: str, method: str, path: str, body: Any = None, **options: Any) -> Any:
        if isinstance(body, str):
            options["content"] = body.encode()
        elif body is not None:
            options["json"] = body
        answer = self.client.request(method, path, **options)
        if answer.status_code >= 300:
            sys.exit(f"{method} {path}: {answer.status_code} {answer.text}")
        media = answer.headers.get("content-type", "").partition(";")[0]
        said = answer.json() if media == "application/json" else answer.text if media != "image/png" else None
        entry: dict[str, Any] = {"status": str(answer.status_code), "path": _names(path)}
        if body is not None:
            entry["request"] = body
        if said not in (None, ""):
            entry |= {"media": media, "answer": said}
        self.kept[operation] = entry
        return said

    def wait(self, job: str) -> None:
        while self.client.get(f"/v1/jobs/{job}").json()["state"] not in ("done", "failed", "cancelled"):
            time.sleep(0.1)


def _names(path: str) -> dict[str, str]:
    """The parameters in a path, by the names that the routes give them."""
    parts = path.partition("?")[0].split("/")
    after = {"pools": "pool", "items": "item_id", "labels": "item_id", "history": "item_id", "jobs": "job_id"}
    after |= {"selections": "selection_id", "prompts": "prompt_id"}
    return {after[before]: part for before, part in itertools.pairwise(parts) if before in after}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as model:
        threading.Thread(target=model.serve_forever, daemon=True).start()
        command = [sys.executable, "-m", "icl_select", "serve", "--data-dir", folder, "--port", "0"]
        command += ["--log-format", "json", "--upstream", f"http://127.0.0.1:{model.server_port}/v1"]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as service:
            assert service.stderr is not None
            url = next(json.loads(line)["url"] for line in service.stderr if '"listening"' in line)
            threading.Thread(target=service.stderr.read, daemon=True).start()
            recorder = Recorder(url)
            while recorder.client.get("/ready").status_code != 200:
                time.sleep(0.1)
            record(recorder)
            service.terminate()
        model.shutdown()
    TARGET.write_text(json.dumps(recorder.kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def record(service: Recorder) -> None:
    """One walk through all routes, in the order in which somebody would take it."""
    pool = "/v1/pools/tickets"
    service.send("health", "GET", "/health")
    service.send("ready", "GET", "/ready")
    service.send("info", "GET", "/info")
    service.send("create_pool", "POST", "/v1/pools", POOL)
    rows = [{"id": name, "subject": subject, "body": body} for name, subject, body in TICKETS]
    service.send("post_items", "POST", f"{pool}/items", {"items": rows[:1]})
    taken = service.send("put_items", "PUT", f"{pool}/items", {"items": rows})
    service.wait(taken["job"])
    service.wait(service.send("create_embeddings", "POST", f"{pool}/embeddings")["id"])
    chosen = service.send("create_selection", "POST", f"{pool}/selections", {"method": "max_herding", "budget": 3})
    service.wait(chosen["job"])
    selection = f"{pool}/selections/{chosen['id']}"
    service.send("list_selections", "GET", f"{pool}/selections")
    service.send("read_selection", "GET", selection)
    service.send("export_selection", "GET", f"{selection}/export?format=csv")
    service.send("next_items", "POST", f"{selection}/next", {"annotator": "ann", "count": 2})
    service.send("release_leases", "DELETE", f"{pool}/leases?annotator=ann")
    first = [{"id": "t1", "label": "billing", "annotator": "ann"}, {"id": "t2", "label": "account", "annotator": "ann"}]
    service.send("put_labels", "PUT", f"{pool}/labels", {"labels": first})
    more = [{"id": "t3", "label": "billing", "annotator": "bob"}, {"id": "t4", "status": "unsure", "annotator": "bob"}]
    service.send("post_labels", "POST", f"{pool}/labels", {"labels": more})
    service.send("put_label", "PUT", f"{pool}/labels/t5", {"label": "delivery", "annotator": "ann"})
    service.send("import_labels", "POST", f"{pool}/labels/import?format=csv", "id,label,annotator\nt1,billing,bob\n")
    service.send("list_labels", "GET", f"{pool}/labels")
    service.send("export_labels", "GET", f"{pool}/labels/export?format=csv")
    service.send("label_history", "GET", f"{pool}/history/t1")
    service.send("read_agreement", "GET", f"{pool}/agreement")
    service.send("list_items", "GET", f"{pool}/items?limit=2")
    service.send("read_item", "GET", f"{pool}/items/t1")
    service.send("export_pool", "GET", f"{pool}/export")
    service.wait(service.send("create_density", "POST", f"{pool}/density", {"centre": False})["id"])
    service.send("read_density", "GET", f"{pool}/density")
    service.wait(service.send("create_evaluation", "POST", f"{pool}/evaluations", {"ks": [1, 3]})["id"])
    service.send("read_evaluation", "GET", f"{pool}/evaluation")
    job = service.send("list_jobs", "GET", "/v1/jobs?limit=1")["jobs"][0]["id"]
    service.send("read_job", "GET", f"/v1/jobs/{job}")
    service.send("cancel_job", "POST", f"/v1/jobs/{job}/cancel")
    service.send("job_events", "GET", f"/v1/jobs/{job}/events")
    made = service.send("make_prompts", "POST", "/v1/prompts", {"pool": "tickets", "query": "Wrong invoice", "k": 2})
    service.send("read_prompt", "GET", f"/v1/prompts/{made['id']}")
    service.send("chat", "POST", "/v1/chat/completions", CHAT)
    service.send("complete", "POST", "/v1/completions", {"model": "tickets::my-model", "prompt": "My invoice is wrong"})
    service.send("list_models", "GET", "/v1/models")
    service.send("change_pool", "PATCH", pool, {"annotators": 2, "prompt": {"k": 4}})
    service.send("read_pool", "GET", pool)
    service.send("list_pools", "GET", "/v1/pools")
    metrics = service.send("metrics", "GET", "/metrics")
    service.kept["metrics"]["answer"] = "\n".join(metrics.splitlines()[:4]) + "\n"
    density = service.kept["read_density"]["answer"]
    _shorten(density)
    service.send("delete_pool", "DELETE", pool)


def _shorten(value: Any) -> None:
    """Leave out most of the bins of a histogram: an example is to be read."""
    for key, inner in list(value.items()):
        if isinstance(inner, dict):
            _shorten(inner)
        elif isinstance(inner, list) and len(inner) > 50:
            value[key] = inner[:3]


if __name__ == "__main__":
    main()
