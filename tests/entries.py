"""Sessions and windows for tests: valid entries, of which a test names only what matters to it."""

from __future__ import annotations

from typing import Any

from cwm_jupyter.core.models import Proof, Session, Window

TIME = "2026-01-02T03:04:05.000000Z"


def make_session(id_: str = "s1", name: str | None = None, **fields: Any) -> Session:
    values: dict[str, Any] = {
        "state": "active",
        "model": "SmolLM2",
        "lineage_id": "lineage",
        "created_at": TIME,
        "updated_at": TIME,
    }
    return Session(id=id_, name=name or f"session {id_}", **{**values, **fields})


def make_window(id_: str = "w1", name: str | None = None, **fields: Any) -> Window:
    values: dict[str, Any] = {
        "state": "intact",
        "session_id": "s1",
        "lineage_id": "lineage",
        "model": "SmolLM2",
        "created_at": TIME,
        "used_at": None,
        "tokens": 300,
        "turns": 2,
        "chunks": 2,
        "chunk_tokens": 128,
        "size_bytes": 5_898_240,
        "proof": Proof(level="verified", chunks=2, size_bytes=5_898_240, checked_at=TIME),
        "manifest_digest": "ab" * 32,
    }
    return Window(id=id_, name=name or f"window {id_}", **{**values, **fields})
