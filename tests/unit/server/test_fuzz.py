"""Whatever is asked of whichever route: it is answered or refused, and nothing breaks."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from cwm_jupyter.server.operation import Operation
from cwm_jupyter.server.table import TABLE

_VALUES: tuple[Any, ...] = (
    None, True, "", " ", "one", "one@1", "no", "é", "..", "../../etc/passwd", "a/b", "\x00",
    "\ud800", "x" * 5000, "7d", "-1", "1e999", "' or 1=1 --", "<script>", "{name}", "%2e%2e", 0, -1,
    2**63, 1e308, [], ["one", 3], {}, {"a": {"b": []}}, "created", "-bytes", "intact",
)  # fmt: skip
#: they would start or stop something real, or never end
_LEFT_OUT = ("stack/start", "stack/stop", "events")
_ROWS = [row for row in TABLE if row.path not in _LEFT_OUT]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return quote(text.encode("utf-8", "surrogatepass"), safe="") or "%20"


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair, as JSON can have it
        return b'{"name": "\\ud800"}'


def _some(rng: random.Random, kind: type[msgspec.Struct]) -> dict[str, Any]:
    names = [field.encode_name for field in msgspec.structs.fields(kind)] + ["unknown"]
    return {name: rng.choice(_VALUES) for name in names if rng.random() < 0.4}


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: f"{row.method} {row.path}")
async def test_no_request_breaks_anything(
    row: Operation, http_server_client: Any, jp_auth_header: Any, kept: Any
) -> None:
    await kept.frozen("one")
    rng = random.Random(f"{row.method} {row.path}")
    for _ in range(25):
        path = row.path
        for name in row.parameters:
            path = path.replace(f"{{{name}}}", _text(rng.choice(_VALUES)))
        query = "&".join(f"{name}={_text(one)}" for name, one in _some(rng, row.query).items())
        body = None
        if row.method in ("POST", "PATCH"):
            body = _encoded(
                rng.choice(_VALUES)
                if rng.random() < 0.2
                else _some(rng, row.body)
                if row.body
                else {}
            )
        answer = await http_server_client.fetch(
            f"/a%40b/cwm/api/v1/{path}?{query}",
            method=row.method,
            headers={**jp_auth_header, "Content-Type": "application/json"},
            body=body,
            raise_error=False,
        )
        assert answer.code < 500 or answer.code == 503, (path, query, body, answer.body)
        if answer.code >= 400:
            assert msgspec.json.decode(answer.body)["code"], (path, query, body)
