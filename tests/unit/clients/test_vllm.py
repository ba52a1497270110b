"""The engine's client, against a scripted transport."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
from collections.abc import AsyncIterator

import httpx2
import pytest
import stamina
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cwm_jupyter.clients import Completion, Delta, EngineFigures, ServedModel, VLLMClient
from cwm_jupyter.core.models import Message
from cwm_jupyter.errors import (
    ConfigError,
    ContextFullError,
    VLLMConnectionError,
    VLLMRequestError,
    VLLMResponseError,
    VLLMTimeoutError,
)

URL = "http://engine.test:8000"
COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
HI = [Message(role="user", content="Hi")]


@pytest.fixture
async def client(wire) -> AsyncIterator[VLLMClient]:
    async with VLLMClient(URL, model="smollm2", retries=2, transport=wire.transport) as client:
        yield client


def error_answer(status: int, message: str) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": message, "code": status}})


# --- the client itself ----------------------------------------------------------------------------


@pytest.mark.covers("UC-001")
@pytest.mark.parametrize("how", ["async with", "aclose"])
async def test_opens_and_closes(wire, how):
    wire.on("GET", "/version", {"version": "0.32.0"})
    closed = []

    class Transport(httpx2.MockTransport):
        async def aclose(self) -> None:
            closed.append(self)

    if how == "async with":
        async with VLLMClient(URL, transport=Transport(wire)) as client:
            assert await client.version() == "0.32.0"
            assert not closed
    else:
        client = VLLMClient(URL, transport=Transport(wire))
        assert await client.version() == "0.32.0"
        await client.aclose()
    assert len(closed) == 1
    with pytest.raises(RuntimeError, match="closed"):
        await client.version()


@pytest.mark.covers("UC-002")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "engine:8000",
        "127.0.0.1",
        "ftp://engine",
        "http://",
        "http://engine:99999",
        "http://engine:port",
        "http://engine/?key=1",
        "http://engine/#part",
        "http://en gine",
        "http://user:hunter2@engine",
    ],
)
def test_malformed_url_is_refused_before_any_request(wire, url):
    with pytest.raises(ConfigError, match=r"vllm\.url") as caught:
        VLLMClient(url, transport=wire.transport)
    assert "hunter2" not in str(caught.value)
    assert wire.requests == []


async def test_url_may_have_a_path_and_a_slash(wire):
    wire.on("GET", "/engines/one/version", {"version": "1"})
    async with VLLMClient("https://host.test/engines/one/", transport=wire.transport) as client:
        assert await client.version() == "1"
    assert str(wire.requests[0].url) == "https://host.test/engines/one/version"


async def test_api_key_is_a_bearer_token_and_in_no_repr(wire):
    wire.on("GET", "/version", error_answer(401, "bad key k3y given"))
    async with VLLMClient(URL, api_key="k3y", transport=wire.transport) as client:
        with pytest.raises(VLLMRequestError, match=r"vllm\.api_key") as caught:
            await client.version()
    assert wire.requests[0].headers["authorization"] == "Bearer k3y"
    assert "k3y" not in f"{client!r} {caught.value} {caught.value.to_dict()}"


# --- the server -----------------------------------------------------------------------------------


@pytest.mark.covers("UC-003")
async def test_health_up(wire, client):
    wire.on("GET", "/health", httpx2.Response(200))
    assert await client.health() is True


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_health_of_a_server_in_trouble(wire, client, status):
    wire.on("GET", "/health", httpx2.Response(status))
    assert await client.health() is False
    assert len(wire.requests) == 1, "a look at the health is not retried"


@pytest.mark.covers("UC-013")
async def test_lists_models(wire, client):
    listed = [
        {"id": "smollm2", "object": "model", "root": "weights", "max_model_len": 8192},
        {"id": "adapter", "object": "model", "root": None, "max_model_len": None},
    ]
    wire.on("GET", "/v1/models", {"object": "list", "data": listed})
    assert await client.models() == [
        ServedModel(id="smollm2", root="weights", max_model_len=8192),
        ServedModel(id="adapter"),
    ]


@pytest.mark.covers("UC-014")
async def test_says_whether_a_model_is_served(wire, client):
    wire.on("GET", "/v1/models", {"data": [{"id": "smollm2"}]})
    assert await client.serves("smollm2") is True
    assert await client.serves("smollm") is False


async def test_without_a_model_asks_for_the_first_served_once(wire, completion, salt):
    wire.on("GET", "/v1/models", {"data": [{"id": "first"}, {"id": "second"}]})
    wire.on("POST", COMPLETIONS, completion)
    async with VLLMClient(URL, transport=wire.transport) as client:
        for _ in range(2):
            await client.complete([1], cache_salt=salt, max_tokens=1)
    assert [r.url.path for r in wire.requests] == ["/v1/models", COMPLETIONS, COMPLETIONS]
    assert [body["model"] for body in wire.bodies] == ["first", "first"]


async def test_a_server_without_models_is_said(wire):
    wire.on("GET", "/v1/models", {"data": []})
    async with VLLMClient(URL, transport=wire.transport) as client:
        with pytest.raises(VLLMResponseError, match="serves no model"):
            await client.model()


async def test_facts_of_our_engine_and_of_another(wire, client):
    wire.on("GET", "/cwm/facts", {"layout": {"block_size": 128}}, httpx2.Response(404))
    assert await client.facts() == {"layout": {"block_size": 128}}
    assert await client.facts() is None


async def test_facts_that_are_refused_are_not_taken_for_absent(wire, client):
    wire.on("GET", "/cwm/facts", error_answer(401, "Unauthorized"))
    with pytest.raises(VLLMRequestError):
        await client.facts()


@pytest.mark.covers("UC-015")
async def test_figures_of_the_server(wire, client, vllm_metrics):
    without = "\n".join(s for s in vllm_metrics.splitlines() if "kv_cache_usage" not in s)
    wire.on("GET", "/metrics", httpx2.Response(200, text=without + "\n"))
    figures = await client.metrics()
    assert figures.prefix_query_tokens == 17547
    assert figures.prefix_hit_tokens == 7936
    assert figures.external_hit_tokens == 0
    assert figures.kv_cache_usage_ratio is None


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_figures_that_the_server_does_not_give(wire, client, status):
    wire.on("GET", "/metrics", httpx2.Response(status))
    assert await client.metrics() == EngineFigures()


# --- tokens ---------------------------------------------------------------------------------------


async def test_tokenize_and_detokenize(wire, client):
    wire.on("POST", "/tokenize", {"count": 2, "max_model_len": 8192, "tokens": [1, 2]})
    wire.on("POST", "/detokenize", {"prompt": "Hi"})
    assert await client.tokenize(HI, add_generation_prompt=False) == [1, 2]
    assert await client.tokenize_text("Hi") == [1, 2]
    assert await client.detokenize((1, 2)) == "Hi"
    assert wire.bodies == [
        {
            "model": "smollm2",
            "messages": [{"role": "user", "content": "Hi"}],
            "add_generation_prompt": False,
        },
        {"model": "smollm2", "prompt": "Hi", "add_special_tokens": False},
        {"model": "smollm2", "tokens": [1, 2]},
    ]


# --- generation -----------------------------------------------------------------------------------


@pytest.mark.covers("UC-005", "UC-016")
async def test_completes_token_ids(wire, client, completion, salt):
    wire.on("POST", COMPLETIONS, completion)
    made = await client.complete(
        (1, 9690), cache_salt=salt, max_tokens=2, top_logprobs=2, seed=7, ignore_eos=True
    )
    assert made == Completion(
        token_ids=[359, 354],
        text=" are an",
        prompt_tokens=4,
        cached_tokens=3,
        finish_reason="length",
        logprobs=[-0.71, -0.55],
        top=[{359: -0.71, 2316: -0.96}, {354: -0.55, 253: -1.55}],
    )
    sent = wire.bodies[0]
    assert sent["prompt"] == [1, 9690]
    assert (sent["max_tokens"], sent["temperature"], sent["seed"]) == (2, 0.0, 7)
    assert (sent["logprobs"], sent["ignore_eos"]) == (2, True)
    assert sent["return_token_ids"]
    assert sent["return_tokens_as_token_ids"]


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}])
async def test_untold_cached_tokens_are_none(wire, client, completion, salt, details):
    completion["usage"]["prompt_tokens_details"] = details
    wire.on("POST", COMPLETIONS, completion)
    assert (await client.complete([1], cache_salt=salt, max_tokens=1)).cached_tokens is None


@pytest.mark.covers("UC-006")
async def test_salt_goes_with_every_generation(
    wire, client, completion, chat_answer, pieces, sse, drain, salt
):
    stream = httpx2.Response(
        200, content=sse(*pieces), headers={"content-type": "text/event-stream"}
    )
    wire.on("POST", COMPLETIONS, completion, stream).on("POST", CHAT, chat_answer)
    await client.complete([1], cache_salt=salt, max_tokens=1)
    await drain(client.stream([1], cache_salt=salt, max_tokens=1))
    await client.chat(HI, cache_salt=salt, max_tokens=1)
    assert [body["cache_salt"] for body in wire.bodies] == [salt] * 3
    for generate in (VLLMClient.complete, VLLMClient.stream, VLLMClient.chat):
        parameter = inspect.signature(generate).parameters["cache_salt"]
        assert parameter.default is inspect.Parameter.empty, "there is no way to forget it"


@pytest.mark.covers("UC-012", "UC-017")
async def test_chats(wire, client, chat_answer, salt):
    wire.on("POST", CHAT, chat_answer)
    made = await client.chat(HI, cache_salt=salt, max_tokens=3, temperature=0.5)
    assert made == Completion(
        token_ids=[19556, 17, 1073],
        text="Hello! How",
        prompt_tokens=31,
        cached_tokens=0,
        finish_reason="length",
    )
    sent = wire.bodies[0]
    assert sent["messages"] == [{"role": "user", "content": "Hi"}], "rendered by the server"
    assert sent["temperature"] == 0.5


COMPLETION_FIELDS = [
    ("choices",),
    ("usage",),
    ("usage", "prompt_tokens"),
    ("choices", 0),
    ("choices", 0, "text"),
    ("choices", 0, "token_ids"),
    ("choices", 0, "finish_reason"),
    ("choices", 0, "logprobs"),
    ("choices", 0, "logprobs", "token_logprobs"),
    ("choices", 0, "logprobs", "top_logprobs"),
]
CHAT_FIELDS = [
    ("choices",),
    ("usage",),
    ("usage", "prompt_tokens"),
    ("choices", 0),
    ("choices", 0, "message"),
    ("choices", 0, "message", "content"),
    ("choices", 0, "token_ids"),
    ("choices", 0, "finish_reason"),
]


def without(document, path):
    document = copy.deepcopy(document)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return document


@pytest.mark.covers("UC-016")
@pytest.mark.parametrize("path", COMPLETION_FIELDS)
async def test_completion_without_a_field(wire, client, completion, salt, path):
    wire.on("POST", COMPLETIONS, without(completion, path))
    with pytest.raises(VLLMResponseError) as caught:
        await client.complete([1], cache_salt=salt, max_tokens=1)
    assert str(path[-1] or "choices") in caught.value.message
    assert f"POST {COMPLETIONS}" in caught.value.message


@pytest.mark.covers("UC-017")
@pytest.mark.parametrize("path", CHAT_FIELDS)
async def test_chat_without_a_field(wire, client, chat_answer, salt, path):
    wire.on("POST", CHAT, without(chat_answer, path))
    with pytest.raises(VLLMResponseError) as caught:
        await client.chat(HI, cache_salt=salt, max_tokens=1)
    assert str(path[-1] or "choices") in caught.value.message


async def test_tokens_by_name_are_refused(wire, client, completion, salt):
    completion["choices"][0]["logprobs"]["top_logprobs"][1] = {" an": -0.55}
    wire.on("POST", COMPLETIONS, completion)
    with pytest.raises(VLLMResponseError, match="top_logprobs"):
        await client.complete([1], cache_salt=salt, max_tokens=1)


async def test_an_answer_that_is_no_json(wire, client):
    wire.on("GET", "/version", httpx2.Response(200, text="<html>hello</html>"))
    with pytest.raises(VLLMResponseError, match="GET /version"):
        await client.version()


# --- refusals and retries -------------------------------------------------------------------------


@pytest.mark.covers("UC-009")
async def test_a_bad_request_is_not_retried_and_says_why(wire, client, salt):
    wire.on("POST", COMPLETIONS, error_answer(400, "temperature must be non-negative"))
    with pytest.raises(VLLMRequestError, match="temperature must be non-negative") as caught:
        await client.complete([1], cache_salt=salt, max_tokens=1, temperature=-1)
    assert caught.value.context["status"] == 400
    assert len(wire.requests) == 1


@pytest.mark.parametrize("status", [302, 404, 422, 500])
async def test_other_refusals_are_not_retried(wire, client, status):
    wire.on("GET", "/version", httpx2.Response(status, text="no"))
    with pytest.raises(VLLMRequestError, match=rf"refused \({status}\): no"):
        await client.version()
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8192 tokens. However, your prompt contains 8200",
        "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
    ],
)
async def test_a_prompt_that_is_too_long(wire, client, salt, said):
    wire.on("POST", COMPLETIONS, error_answer(400, said))
    with pytest.raises(ContextFullError, match="context is full"):
        await client.complete([1], cache_salt=salt, max_tokens=1)


async def test_asking_for_no_token_is_not_a_full_context(wire, client, salt):
    wire.on("POST", COMPLETIONS, error_answer(400, "max_tokens must be at least 1, got 0."))
    with pytest.raises(VLLMRequestError):
        await client.complete([1], cache_salt=salt, max_tokens=0)


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "cache_salt {} is bad"}},
        {"error": "cache_salt {} is bad"},
        {"detail": "cache_salt is bad: {}"},
        {"detail": [{"loc": ["body", "x"], "msg": "{}", "input": {"cache_salt": "{}"}}]},
        ["{}"],
    ],
)
async def test_a_salt_that_the_server_repeats_is_hidden(wire, client, salt, document):
    text = json.dumps(document).replace("{}", salt)
    wire.on("POST", COMPLETIONS, httpx2.Response(400, content=text.encode()))
    with pytest.raises(VLLMRequestError) as caught:
        await client.complete([1], cache_salt=salt, max_tokens=1)
    assert salt not in f"{caught.value} {caught.value.to_dict()} {caught.value.to_log_dict()}"
    assert "[redacted]" in caught.value.message


BREAKS = [
    httpx2.Response(503, json={"detail": "starting"}),
    httpx2.ConnectError("refused"),
    httpx2.ReadError("reset"),
    httpx2.RemoteProtocolError("disconnected"),
]


@pytest.mark.covers("UC-008")
@pytest.mark.parametrize("trouble", BREAKS)
async def test_passing_trouble_is_retried(wire, client, trouble):
    wire.on("GET", "/version", trouble, trouble, {"version": "0.32.0"})
    assert await client.version() == "0.32.0"
    assert len(wire.requests) == 3


@pytest.mark.covers("UC-008")
@pytest.mark.parametrize("trouble", BREAKS)
async def test_lasting_trouble_is_raised_after_the_retries(wire, client, trouble):
    wire.on("GET", "/version", trouble)
    with pytest.raises(VLLMConnectionError, match=URL):
        await client.version()
    assert len(wire.requests) == 3


@pytest.mark.covers("UC-008")
async def test_waits_between_attempts_grow(wire, client, monkeypatch):
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr("stamina._core._smart_sleep", sleep)
    wire.on("GET", "/version", httpx2.Response(503))
    with stamina.set_testing(False), pytest.raises(VLLMConnectionError):
        await client.version()
    first, second = slept
    assert 0.1 <= first <= 0.2 <= second <= 0.3


async def test_timeouts_are_not_retried(wire, client):
    wire.on("GET", "/version", httpx2.ReadTimeout("slow"))
    with pytest.raises(VLLMTimeoutError, match="600 s"):
        await client.version()
    assert len(wire.requests) == 1


async def test_a_connection_that_does_not_come_about_names_its_own_limit(wire):
    wire.on("GET", "/version", httpx2.ConnectTimeout("slow"))
    async with VLLMClient(URL, connect_timeout_s=1.5, transport=wire.transport) as client:
        with pytest.raises(VLLMTimeoutError, match=r"within 1\.5 s"):
            await client.version()


# --- streams --------------------------------------------------------------------------------------


def stream_answer(content) -> httpx2.Response:
    return httpx2.Response(200, content=content, headers={"content-type": "text/event-stream"})


async def test_streams_pieces_and_counts_at_the_end(wire, client, pieces, sse, drain, salt):
    wire.on("POST", COMPLETIONS, stream_answer(sse(*pieces)))
    got = await drain(client.stream([1], cache_salt=salt, max_tokens=9, top_logprobs=1))
    assert got == [
        Delta(token_ids=[359], text=" café", logprobs=[-0.5], top=[{359: -0.5}]),
        Delta(token_ids=[354], text="", logprobs=[-0.5], top=[{354: -0.5}]),
        Delta(
            token_ids=[2],
            text="",
            finish_reason="stop",
            prompt_tokens=4,
            cached_tokens=0,
            logprobs=[-0.5],
            top=[{2: -0.5}],
        ),
    ]
    assert wire.bodies[0]["stream"] is True
    assert wire.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_stream_without_usage_has_no_counts(wire, client, pieces, sse, drain, salt):
    wire.on("POST", COMPLETIONS, stream_answer(sse(*pieces[:-1])))
    *_, last = await drain(client.stream([1], cache_salt=salt, max_tokens=9))
    assert (last.finish_reason, last.prompt_tokens, last.cached_tokens) == ("stop", None, None)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 900), max_size=12))
async def test_pieces_do_not_depend_on_how_the_bytes_arrive(
    new_wire, pieces, sse, drain, salt, cuts
):
    whole = sse(*pieces)
    ends = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]

    async def parts():
        for start, end in itertools.pairwise(ends):
            yield whole[start:end]

    wire = new_wire().on("POST", COMPLETIONS, stream_answer(parts()))
    async with VLLMClient(URL, model="m", transport=wire.transport) as client:
        got = await drain(client.stream([1], cache_salt=salt, max_tokens=9))
    assert [d.token_ids for d in got] == [[359], [354], [2]]
    assert "".join(d.text for d in got) == " café"
    assert got[-1].cached_tokens == 0


async def test_closing_a_stream_closes_the_response_at_once(wire, client, pieces, sse, salt):
    closed = []

    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield sse(piece, done=False)

        async def aclose(self) -> None:
            closed.append(self)

    answer = httpx2.Response(200, stream=Body(), headers={"content-type": "text/event-stream"})
    wire.on("POST", COMPLETIONS, answer)
    stream = client.stream([1], cache_salt=salt, max_tokens=9)
    await anext(stream)
    assert not closed
    await stream.aclose()
    assert len(closed) == 1


async def test_a_stream_that_ends_early_is_an_error(wire, client, pieces, sse, drain, salt):
    wire.on("POST", COMPLETIONS, stream_answer(sse(*pieces[:2], done=False)))
    got: list[Delta] = []
    with pytest.raises(VLLMConnectionError, match="broke off"):
        await drain(client.stream([1], cache_salt=salt, max_tokens=9), got)
    assert len(got) == 2, "what came before is not withheld"
    assert len(wire.requests) == 1, "nothing is retried once pieces were given"


async def test_a_stream_is_retried_before_it_starts(wire, client, pieces, sse, drain, salt):
    wire.on("POST", COMPLETIONS, httpx2.Response(503), stream_answer(sse(*pieces)))
    got = await drain(client.stream([1], cache_salt=salt, max_tokens=9))
    assert len(got) == 3
    assert len(wire.requests) == 2


async def test_an_error_within_a_stream(wire, client, pieces, sse, drain, salt):
    error = {"error": {"message": f"engine died, {salt}", "type": "x", "code": 500}}
    wire.on("POST", COMPLETIONS, stream_answer(sse(pieces[0], error)))
    with pytest.raises(VLLMRequestError, match=r"engine died, \[redacted\]"):
        await drain(client.stream([1], cache_salt=salt, max_tokens=9))


async def test_a_refused_stream_says_why(wire, client, salt):
    said = "This model's maximum context length is 8192 tokens."
    wire.on("POST", COMPLETIONS, error_answer(400, said))
    with pytest.raises(ContextFullError, match="8192"):
        await anext(client.stream([1], cache_salt=salt, max_tokens=9))


async def test_a_stream_that_is_none(wire, client, completion, salt):
    wire.on("POST", COMPLETIONS, completion)
    with pytest.raises(VLLMResponseError, match="did not answer with a stream"):
        await anext(client.stream([1], cache_salt=salt, max_tokens=9))


async def test_a_piece_without_token_ids(wire, client, pieces, sse, drain, salt):
    del pieces[1]["choices"][0]["token_ids"]
    wire.on("POST", COMPLETIONS, stream_answer(sse(*pieces)))
    with pytest.raises(VLLMResponseError, match="token_ids"):
        await drain(client.stream([1], cache_salt=salt, max_tokens=9))
