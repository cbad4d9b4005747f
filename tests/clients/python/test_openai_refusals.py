"""What OpenAI's Python client, unmodified, does with a server that refuses: which class it raises, whether it asks again, and when."""

import base64
import http.server
import io
import json
import subprocess
import threading
import time

import httpx
import openai
import pytest
from openai import OpenAI
from PIL import Image
from services import places
from serving import BINARY, clean_environment

ASKED = {"model": "remote", "prompt": "a red house", "size": "64x64", "response_format": "b64_json"}


def picture() -> str:
    kept = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(kept, "png")
    return base64.b64encode(kept.getvalue()).decode()


class Provider:
    """A server of OpenAI's form whose answers are those of `script`, one after the other, and pictures after that."""

    def __init__(self):
        self.script: list[tuple[int, dict[str, str], dict]] = []
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                outer.asked += 1
                drawn = (200, {}, {"created": 1, "data": [{"b64_json": picture()}]})
                status, headers, body = outer.script.pop(0) if outer.script else drawn
                text = json.dumps(body).encode()
                self.send_response(status)
                for name, value in (headers | {"content-type": "application/json"}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def provider():
    one = Provider()
    yield one
    one.server.shutdown()


def configured(tmp_path, provider) -> str:
    file = tmp_path / "gateway.toml"
    file.write_text(
        f"""
[gateway.providers.theirs]
protocol = "openai"
url = "{provider.url}"
key = "theirs"
private = true

[gateway.models.remote]
deployments = [{{ provider = "theirs", price = {{ unit = "image", dollars = 0.01 }} }}]
"""
    )
    return str(file)


@pytest.fixture
def remote(own_server, provider, tmp_path):
    """A server before that provider."""
    return own_server("--config", configured(tmp_path, provider), "--no-worker")


def asking(server, key="any", retries=2):
    """A client, and when it sent each of its requests."""
    sent = []
    counting = httpx.Client(event_hooks={"request": [lambda _: sent.append(time.monotonic())]})
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=retries, http_client=counting), sent


def test_a_pause_that_is_asked_for_is_made(remote, provider):
    client, sent = asking(remote)
    provider.script = [(429, {"retry-after": "2"}, {"error": {"message": "slow down"}})]
    answer = client.images.generate(**ASKED)
    assert answer.data[0].b64_json == picture()
    assert len(sent) == 2 and 1.9 < sent[1] - sent[0] < 6, sent


def test_too_much_is_the_client_s_rate_limit_error(remote, provider):
    client, sent = asking(remote, retries=0)
    provider.script = [(429, {"retry-after": "7"}, {"error": {"message": "slow down"}})]
    with pytest.raises(openai.RateLimitError) as raised:
        client.images.generate(**ASKED)
    assert raised.value.code == "RATE_LIMITED" and len(sent) == 1
    assert 1 <= float(raised.value.response.headers["retry-after"]) <= 7


def test_a_failure_that_may_pass_is_asked_about_again(remote, provider):
    client, sent = asking(remote)
    broken = (500, {}, {"error": {"message": "out of order"}})
    # Each request tries the provider twice; the third of the client's is answered.
    provider.script = [broken] * 4
    assert client.images.generate(**ASKED).data[0].b64_json == picture()
    assert (len(sent), provider.asked) == (3, 5)


def test_what_may_have_been_paid_is_asked_for_once(remote, provider):
    client, sent = asking(remote)
    provider.script = [(200, {}, {"created": 1, "data": []})]
    with pytest.raises(openai.InternalServerError) as raised:
        client.images.generate(**ASKED)
    assert raised.value.status_code == 502 and raised.value.code == "ALL_PROVIDERS_EXHAUSTED"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert raised.value.response.headers["x-lumenfall-provider"] == "theirs"
    assert (len(sent), provider.asked) == (1, 1)


def test_a_provider_s_refusal_is_told_and_not_repeated(remote, provider):
    client, sent = asking(remote)
    said = {"error": {"message": "Your request was rejected", "code": "moderation_blocked"}}
    provider.script = [(400, {}, said)]
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(**ASKED)
    assert raised.value.code == "CONTENT_POLICY_VIOLATION" and len(sent) == 1


def test_a_parameter_that_a_provider_refuses_is_named(remote, provider):
    client, sent = asking(remote)
    provider.script = [(422, {}, {"error": {"message": "Too odd", "param": "prompt"}})]
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.images.generate(**ASKED)
    assert (raised.value.code, raised.value.param, len(sent)) == ("UPSTREAM_ERROR", "prompt", 1)


def test_a_provider_can_be_forced_and_is_found(remote):
    client, _ = asking(remote)
    assert client.models.retrieve("theirs/remote").id == "theirs/remote"
    raw = client.images.with_raw_response.generate(**(ASKED | {"model": "theirs/remote"}))
    assert raw.headers["x-lumenfall-provider"] == "theirs"


def test_a_stream_that_fails_raises_too(remote, provider):
    client, _ = asking(remote, retries=0)
    provider.script = [(200, {}, {"created": 1, "data": []})]
    with pytest.raises(openai.APIError):
        list(client.images.generate(**(ASKED | {"response_format": openai.NOT_GIVEN}), stream=True))


def create(data, place, *limits) -> str:
    """A key of the server whose data are there, as `zoetrope keys create` makes it; `place` names its database, where it is another."""
    command = [BINARY, "keys", "create", *limits, "--data-dir", str(data)]
    environment = clean_environment() | place
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def test_a_budget_that_is_spent_and_a_key_that_is_none(own_server, provider, tmp_path):
    # A server that wants keys wants one before it starts.
    data, place = tmp_path / "server-0" / "data", places()
    poor = create(data, place, "--budget", "0.015", "--budget-period", "month")
    server = own_server("--config", configured(tmp_path, provider), "--no-worker", "--require-keys", environment=place)
    client, sent = asking(server, poor)
    raw = client.images.with_raw_response.generate(**ASKED)
    assert (raw.headers["x-gateway-cost"], raw.parse().data[0].b64_json) == ("0.010000", picture())
    # 402 has no class of its own.
    with pytest.raises(openai.APIStatusError) as raised:
        client.images.generate(**ASKED)
    assert (raised.value.status_code, raised.value.code) == (402, "INSUFFICIENT_BALANCE")
    assert "$0.01 required, $0.005 available" in raised.value.message
    assert (len(sent), provider.asked) == (2, 1)
    client, sent = asking(server, "0123456789abcdef:nothing")
    with pytest.raises(openai.AuthenticationError):
        client.images.generate(**ASKED)
    limited, sent = asking(server, create(data, place, "--requests-per-minute", "1"), retries=0)
    limited.images.generate(**ASKED)
    with pytest.raises(openai.RateLimitError) as raised:
        limited.images.generate(**ASKED)
    assert 30 < float(raised.value.response.headers["retry-after"]) <= 61
    forbidden, _ = asking(server, create(data, place, "--allow-models", "z-image"))
    with pytest.raises(openai.PermissionDeniedError):
        forbidden.images.generate(**ASKED)
