"""Errors in fal's shapes: what the client raises, with types, places and headers."""

import threading
import time

import fal_client
import httpx
import pytest
from conftest import SMALL, TURBO


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
        ({"prompt": "a", "image_size": {"width": 9000, "height": 9000}}, ["body", "image_size"], "image_too_large"),
        ({"prompt": "a", "enable_prompt_expansion": True}, ["body", "enable_prompt_expansion"], "feature_not_supported"),
    ],
)
def test_a_wrong_field_is_named_with_its_type(sent, place, kind):
    error = raised_by(lambda: fal_client.run(TURBO, sent))
    assert error.status_code == 422
    [problem] = error.message
    assert (problem["loc"], problem["type"]) == (place, kind)
    assert problem["url"].endswith(f"#{kind}") and problem["msg"]
    assert error.response_headers["x-fal-request-id"]
    assert error.response_headers["x-fal-billable-units"] == "0"


def test_all_wrong_fields_are_told_at_once():
    error = raised_by(lambda: fal_client.submit(TURBO, {"num_images": "many", "seed": 1.5}))
    assert {tuple(problem["loc"]) for problem in error.message} == {
        ("body", "prompt"),
        ("body", "num_images"),
        ("body", "seed"),
    }


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


def test_more_than_a_key_may_run_at_once_is_429_and_the_client_tries_again(own_server):
    server = own_server("--concurrency-max", "1", tls=False)
    url = f"{server.url}/{TURBO}"
    key = {"Authorization": "Key any:key"}
    first = threading.Thread(target=lambda: httpx.post(url, json=SMALL | {"num_inference_steps": 4}, headers=key, timeout=60))
    first.start()
    deadline = time.monotonic() + 30
    refused = None
    while refused is None and first.is_alive() and time.monotonic() < deadline:
        answer = httpx.post(url, json={**SMALL, "num_inference_steps": 4}, headers=key, timeout=60)
        if answer.status_code == 429:
            refused = answer
    first.join()
    assert refused is not None, "nothing was refused"
    assert refused.headers["retry-after"] and refused.json()["error_type"] == "concurrent_requests_limit"


def test_without_a_key_where_keys_are_needed(own_server):
    server = own_server("--require-keys", tls=False)
    answer = httpx.post(f"{server.url}/{TURBO}", json=SMALL)
    assert answer.status_code == 401 and TURBO.rsplit("/", 1)[0] in answer.json()["detail"]
    answer = httpx.post(f"{server.url}/{TURBO}", json=SMALL, headers={"Authorization": "Key some:thing"})
    assert answer.status_code == 401
