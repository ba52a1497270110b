"""The key before LMCache's HTTP side and the engine's facts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cwm_jupyter.engine.auth import RequireEngineKey, RequireKey
from cwm_jupyter.engine.facts import PATH, FactsMiddleware, inexact_because

KEY = "the-key"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


async def ask(app: Any, path: str = "/metrics", header: str | None = None, **scope: Any) -> Any:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [] if header is None else [(b"authorization", header.encode())]
    whole = {"type": "http", "method": "GET", "path": path, "headers": headers, **scope}
    await app(whole, None, send)
    return sent[0]["status"], sent[1]["body"]


async def test_the_key_opens() -> None:
    app = RequireKey(application, KEY)
    assert await ask(app, header=f"Bearer {KEY}") == (200, b"inside")
    assert await ask(app, header=f"bearer {KEY}") == (200, b"inside")


@pytest.mark.parametrize("header", [None, "", KEY, f"Basic {KEY}", f"Bearer {KEY}x", "Bearer "])
async def test_nothing_else_does(header: str | None) -> None:
    status, body = await ask(RequireKey(application, KEY), header=header)
    assert status == 401
    assert json.loads(body) == {"error": "Unauthorized"}


async def test_starting_and_ending_need_no_key() -> None:
    seen = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await RequireKey(lifespan, KEY)({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


@pytest.mark.parametrize("path", ["/metrics", "/health", "/invocations", "/scale_elastic_ep"])
async def test_all_of_the_engine_is_behind_its_key(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    app = RequireEngineKey(application)
    for method in ("GET", "POST", "OPTIONS"):
        assert (await ask(app, path, method=method))[0] == 401
    assert await ask(app, path, header=f"Bearer {KEY}") == (200, b"inside")
    monkeypatch.delenv("VLLM_API_KEY")
    with pytest.raises(KeyError):
        RequireEngineKey(application)


async def test_the_facts_are_guarded_and_all_else_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    app = FactsMiddleware(application)
    assert await ask(app, "/health") == (200, b"inside")
    assert (await ask(app, PATH))[0] == 401
    assert (await ask(app, PATH, header=f"Bearer {KEY}", method="POST"))[0] == 405


async def test_without_a_key_the_facts_are_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    assert (await ask(FactsMiddleware(application), PATH, header="Bearer "))[0] == 401


class Text:
    layer_types = None
    use_sliding_window = True


class Model:
    is_hybrid = has_inner_state = is_attention_free = False

    def __init__(self, window: int | None = None, **text: Any) -> None:
        self.hf_text_config = Text()
        vars(self.hf_text_config).update(text)
        self._window = window

    def get_sliding_window(self) -> int | None:
        return self._window


class Config:
    def __init__(self, model: Model, lora_config: object = None) -> None:
        self.model_config, self.lora_config = model, lora_config


def hybrid() -> Model:
    model = Model()
    model.is_hybrid = True
    return model


@pytest.mark.parametrize(
    ("config", "because"),
    [
        (Config(Model()), None),
        (Config(Model(layer_types=["full_attention"] * 2)), None),
        (Config(Model(window=4096, use_sliding_window=False)), None),
        (Config(Model(window=4096)), "4096 tokens"),
        (Config(Model(layer_types=["full_attention", "sliding_attention"])), "all of the context"),
        (Config(hybrid()), "recurrent"),
        (Config(Model(), lora_config=object()), "LoRA"),
    ],
)
def test_what_cannot_be_kept_exactly_is_named(config: Config, because: str | None) -> None:
    why = inexact_because(config)
    assert why is None if because is None else because in (why or "")
