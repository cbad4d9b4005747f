"""Errors in fal's shapes: what the client raises, with types, places and headers."""

import base64
import io
import json
import threading
import time

import fal_client
import httpx
import pytest
from conftest import LONG, SMALL, TURBO
from PIL import Image
from serving import Server


def raised_by(call) -> fal_client.FalClientHTTPError:
    with pytest.raises(fal_client.FalClientHTTPError) as raised:
        call()
    return raised.value


@pytest.mark.parametrize(
    "sent, place, kind",
    [
        ({}, ["body", "prompt"], "missing"),
        ({"prompt": 5}, ["body", "prompt"], "string_type"),
        ({"prompt": "a", "num_inference_steps": 0}, ["body", "num_inference_steps"], "greater_than_equal"),
        ({"prompt": "a", "num_inference_steps": 1000}, ["body", "num_inference_steps"], "less_than_equal"),
        ({"prompt": "a", "num_images": 5}, ["body", "num_images"], "less_than_equal"),
        ({"prompt": "a", "output_format": "bmp"}, ["body", "output_format"], "literal_error"),
        ({"prompt": "a", "image_size": "huge"}, ["body", "image_size"], "literal_error"),
        ({"prompt": "a", "image_size": {"width": 4000, "height": 4000}}, ["body", "image_size"], "image_too_large"),
    ],
)
def test_a_wrong_field_is_named_with_its_type(sent, place, kind):
    error = raised_by(lambda: fal_client.run(TURBO, sent))
    assert error.status_code == 422
    [problem] = error.message
    assert (problem["loc"], problem["type"]) == (place, kind)
    assert problem["url"] == f"https://docs.fal.ai/errors/#{kind}" and problem["msg"]
    assert error.response_headers["x-fal-request-id"]
    assert error.response_headers["x-fal-billable-units"] == "0"


def test_all_wrong_fields_are_told_at_once():
    error = raised_by(lambda: fal_client.submit(TURBO, {"num_images": "many", "seed": 1.5}))
    assert {tuple(problem["loc"]) for problem in error.message} == {
        ("body", "prompt"),
        ("body", "num_images"),
        ("body", "seed"),
    }


def picture(form: str, side: int) -> str:
    """A black square as a data URI."""
    kept = io.BytesIO()
    Image.new("1" if form == "png" else "RGB", (side, side)).save(kept, form)
    return f"data:image/{form};base64,{base64.b64encode(kept.getvalue()).decode()}"


SVG = "data:image/svg+xml;base64," + base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()


@pytest.mark.parametrize(
    "image_url, kind, more",
    [
        (picture("png", 9000), "image_too_large", {"max_width": 8192, "max_height": 8192}),
        (SVG, "unsupported_image_format", None),
    ],
    ids=["too-many-pixels", "svg"],
)
def test_an_image_that_is_whole_but_not_taken_is_told_from_a_broken_one(image_url, kind, more):
    error = raised_by(lambda: fal_client.run(f"{TURBO}/image-to-image", {"prompt": "a", "image_url": image_url}))
    assert (error.status_code, error.message[0]["type"]) == (422, kind)
    if more:
        assert error.message[0]["ctx"] == more
    else:
        assert "image/png" in error.message[0]["ctx"]["supported_formats"]


@pytest.mark.parametrize(
    "image_url, kind",
    [
        ("data:image/png;base64,AAAA", "image_load_error"),
        ("ftp://example.com/cat.png", "file_download_error"),
        ("http://127.0.0.1:9/nothing.png", "file_download_error"),
    ],
)
def test_an_input_that_cannot_be_used_is_the_result_s_error(image_url, kind):
    sent = {"prompt": "a", "image_url": image_url}
    handle = fal_client.submit(f"{TURBO}/image-to-image", sent)
    error = raised_by(handle.get)
    assert (error.status_code, error.message[0]["type"]) == (422, kind)
    assert error.message[0]["loc"] == ["body", "image_url"]
    status = handle.status()
    assert (status.error_type, bool(status.error)) == (kind, True)


def test_an_application_that_is_not_there():
    error = raised_by(lambda: fal_client.run("fal-ai/flux/dev", SMALL))
    assert error.status_code == 404 and "fal-ai/flux/dev" in error.message


def test_a_body_that_is_no_json(server):
    answer = httpx.post(f"{server.url}/{TURBO}", content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "json_invalid")


def test_more_than_may_run_at_once_is_429_and_the_client_tries_again(own_server, monkeypatch):
    server = own_server("--concurrency-max", "1", tls=False)
    key = {"Authorization": "Key any:key"}
    busy = httpx.post(f"{server.url}/queue/{TURBO}", json=LONG, headers=key).json()
    # What only waits keeps no direct call out.
    deadline = time.monotonic() + 60
    while httpx.get(busy["status_url"], headers=key).json()["status"] == "IN_QUEUE":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = httpx.post(f"{server.url}/run/{TURBO}", json=SMALL, headers=key)
    assert (answer.status_code, answer.json()["error_type"]) == (429, "concurrent_requests_limit")
    assert int(answer.headers["retry-after"]) > 0

    monkeypatch.setattr(fal_client.client, "RUN_URL_FORMAT", f"{server.url}/run/")
    threading.Timer(1, lambda: httpx.put(busy["cancel_url"], headers=key)).start()
    assert len(fal_client.SyncClient(key="any:key").run(TURBO, SMALL)["images"]) == 1


def test_where_keys_are_needed_only_a_key_will_do(tmp_path):
    server = Server(tmp_path, "--require-keys", tls=False)
    created = server.run("keys", "create", "--alias", "test", "--json", "--data-dir", server.data)
    key = json.loads(created.stdout)["key"]
    server.start()
    try:
        run = lambda **headers: httpx.post(f"{server.url}/run/{TURBO}", json=SMALL, headers=headers, timeout=60)
        nameless = run()
        assert nameless.status_code == 401 and "fal-ai/z-image" in nameless.json()["detail"]
        assert run(Authorization="Key some:thing").status_code == 401
        assert run(Authorization=f"Key {key}").status_code == 200
        server.run("keys", "revoke", key.split(":")[0], "--data-dir", server.data)
        time.sleep(3)
        assert run(Authorization=f"Key {key}").status_code == 401
    finally:
        server.kill()
