"""Webhooks, verified as fal's page describes: ED25519 over four lines, with the keys of the JWKS."""

import base64
import hashlib
import http.server
import json
import queue
import threading
import time

import fal_client
import httpx
import pytest
from conftest import SMALL, TURBO
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

DRIFT_SECONDS_MAX = 300


class Receiver:
    """A server of the test's own that remembers what it was sent, and answers with `statuses` in turn, then 200."""

    def __init__(self, *statuses: int):
        self.received: queue.Queue = queue.Queue()
        waiting = list(statuses)
        received = self.received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                received.put((self.path, self.headers, body))
                self.send_response(waiting.pop(0) if waiting else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?who=me"

    def next(self, seconds_max=60):
        return self.received.get(timeout=seconds_max)


@pytest.fixture
def receiver():
    made = []

    def start(*statuses):
        made.append(Receiver(*statuses))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def verified(headers, body: bytes, jwks: dict) -> bool:
    """fal's own recipe."""
    request, user, timestamp, signature = (
        headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp", "Signature")
    )
    if abs(time.time() - int(timestamp)) > DRIFT_SECONDS_MAX:
        return False
    message = "\n".join([request, user, timestamp, hashlib.sha256(body).hexdigest()]).encode()
    for key in jwks["keys"]:
        x = base64.urlsafe_b64decode(key["x"] + "=" * (-len(key["x"]) % 4))
        try:
            VerifyKey(x).verify(message, bytes.fromhex(signature))
            return True
        except BadSignatureError:
            continue
    return False


@pytest.fixture
def jwks(server):
    # By fal's own name, as a receiver would: the environment leads it here.
    found = httpx.get("https://rest.fal.ai/.well-known/jwks.json").json()
    assert {key["kty"] for key in found["keys"]} == {"OKP"}
    return found


def test_a_result_is_delivered_signed(receiver, jwks):
    hook = receiver()
    handle = fal_client.submit(TURBO, SMALL, webhook_url=hook.url)
    path, headers, body = hook.next()
    assert path == "/hook?who=me"
    assert verified(headers, body, jwks)
    assert not verified(headers, body.replace(b"OK", b"KO"), jwks)
    sent = json.loads(body)
    assert (sent["request_id"], sent["gateway_request_id"]) == (handle.request_id, handle.request_id)
    assert sent["status"] == "OK"
    assert sent["payload"] == handle.get()


def test_an_error_is_delivered_too(receiver, jwks):
    hook = receiver()
    sent = {"prompt": "a", "image_url": "data:image/png;base64,AAAA"}
    handle = fal_client.submit(f"{TURBO}/image-to-image", sent, webhook_url=hook.url)
    _, headers, body = hook.next()
    assert verified(headers, body, jwks)
    told = json.loads(body)
    assert (told["request_id"], told["status"], told["error"]) == (handle.request_id, "ERROR", "Invalid status code: 422")
    assert told["payload"]["detail"][0]["type"] == "image_load_error"


def test_what_is_not_taken_is_sent_again(receiver):
    hook = receiver(503)
    fal_client.submit(TURBO, SMALL, webhook_url=hook.url)
    first, second = hook.next(), hook.next()
    assert first[2] == second[2]


def test_an_address_that_cannot_be_called_is_refused_at_once():
    with pytest.raises(fal_client.FalClientHTTPError) as raised:
        fal_client.submit(TURBO, SMALL, webhook_url="ftp://example.com/hook")
    assert raised.value.status_code == 400 and "fal_webhook" in raised.value.message
