"""Pools: make, list, read, change, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy.engine import Connection

from icl_select.errors import ParameterError

from ..encoders import check_encoder
from ..engine import check_options
from ..schemas import EmbeddingOut, PoolIn, PoolOut, PoolPatch, PoolsPage
from ..store import embeddings, pools, replay
from ..store.pools import PoolRecord
from ._common import (
    Admin,
    App,
    Attempted,
    Limit,
    PoolPath,
    Reader,
    answer,
    answer_again,
    problems,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1/pools", tags=["pools"])


def _out(connection: Connection, pool: PoolRecord) -> PoolOut:
    config: dict[str, Any] = dict(pool.config)
    found = embeddings.current(connection, pool)
    vectors = None
    if found is not None:
        vectors = EmbeddingOut(
            id=found.id,
            encoder=found.encoder,
            encoder_fingerprint=found.encoder_fingerprint,
            n_items=found.n_items,
            dim=found.dim,
            truncated=found.truncated,
            centred=found.shift is not None,
            created_at=found.created_at,
        )
    return PoolOut(
        name=pool.name,
        created_at=pool.created_at,
        n_items=pool.n_items,
        n_labelled=pool.n_labelled,
        version=pool.version,
        labels_version=pool.labels_version,
        fingerprint=pool.fingerprint,
        embedding=vectors,
        **config,
    )


@router.post("", status_code=201, response_model=PoolOut, responses=problems(409))
def create_pool(body: PoolIn, app: App, attempt: Attempted, _: Admin) -> Response:
    """Make an empty pool. Items are added next; the name cannot be changed."""
    encoder = check_encoder(body.encoder, app.settings)
    if body.text is not None and not body.text.strip():
        raise ParameterError("text is blank. Name a field, or write a template of fields such as '{subject}: {body}'.")
    check_options(body.prompt, app.settings)
    config = body.model_dump(mode="json", exclude={"name"})
    config |= {"encoder": encoder, "prompt": body.prompt.model_dump(mode="json", exclude_none=True)}
    with app.database.write() as connection:
        if kept := replay.recall(connection, attempt):
            return answer_again(kept)
        pool = pools.create(connection, body.name, config)
        where = {"Location": f"/v1/pools/{pool.name}"}
        return answer(connection, attempt, _out(connection, pool), 201, where)


@router.get("", response_model=PoolsPage, responses=problems())
def list_pools(
    app: App,
    _: Reader,
    after: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
    limit: Limit = 100,
) -> PoolsPage:
    """Pools by name."""
    with app.database.read() as connection:
        found = pools.listing(connection, after, limit + 1)
        shown = [_out(connection, pool) for pool in found[:limit]]
    return PoolsPage(pools=shown, next=shown[-1].name if len(found) > limit else None)


@router.get("/{pool}", response_model=PoolOut, responses=problems(404))
def read_pool(pool: PoolPath, app: App, _: Reader) -> PoolOut:
    """A pool as it stands."""
    with app.database.read() as connection:
        return _out(connection, pools.find(connection, pool))


@router.patch("/{pool}", response_model=PoolOut, responses=problems(404))
def change_pool(pool: PoolPath, body: PoolPatch, app: App, _: Admin) -> PoolOut:
    """Change label words, how many labels are wanted, or the defaults of prompts. What is left out stays."""
    changes = body.model_dump(mode="json", exclude_unset=True, exclude={"prompt"})
    if body.prompt is not None:
        check_options(body.prompt, app.settings)
        changes["prompt"] = body.prompt.model_dump(mode="json", exclude_none=True)
    if changes.get("annotators", 1) is None:
        raise ParameterError("annotators is null. Pass a whole number of at least 1, or leave it out.")
    with app.database.write() as connection:
        return _out(connection, pools.configure(connection, pools.lock(connection, pool), changes))


@router.delete("/{pool}", status_code=204, response_class=Response, responses=problems(404))
def delete_pool(pool: PoolPath, app: App, _: Admin) -> Response:
    """Delete a pool with its items, labels, selections, prompts and files. There is no way back."""
    with app.database.write() as connection:
        gone = pools.delete(connection, pool)
    app.engine.forget(gone.uid)
    app.vectors.remove_pool(gone.uid)
    return Response(status_code=204)
