"""The queue: submit, status, result, cancel, subscribe, and what each answers when things go another way."""

import time
import uuid

import fal_client
import httpx
import pytest
from conftest import LONG, SMALL, TURBO

LORA = "fal-ai/z-image/turbo/lora"


@pytest.fixture
def busy():
    """The worker draws something long, so that whatever comes next waits."""
    handle = fal_client.submit(TURBO, LONG)
    wait_until(lambda: isinstance(handle.status(), fal_client.InProgress))
    yield handle
    if not isinstance(handle.status(), fal_client.Completed):
        handle.cancel()
    wait_until(lambda: isinstance(handle.status(), fal_client.Completed))


def wait_until(holds, seconds_max=60):
    deadline = time.monotonic() + seconds_max
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_a_request_is_followed_by_events_to_its_end():
    handle = fal_client.submit(TURBO, SMALL | {"num_inference_steps": 3})
    assert uuid.UUID(handle.request_id).version == 7
    events = list(handle.iter_events(with_logs=True, interval=0.02))
    assert all(isinstance(event, (fal_client.Queued, fal_client.InProgress)) for event in events[:-1])
    last = events[-1]
    assert isinstance(last, fal_client.Completed)
    assert (last.error, last.error_type) == (None, None)
    assert last.metrics["inference_time"] > 0
    messages = [line["message"] for line in last.logs]
    assert [m for m in messages if m.startswith("Step")] == ["Step 1/3", "Step 2/3", "Step 3/3"]
    assert {"message", "level", "source", "timestamp"} <= set(last.logs[0])
    assert len(handle.get()["images"]) == 1
    assert handle.status().logs is None


def test_what_waits_knows_its_place(busy):
    first, second = [fal_client.submit(TURBO, SMALL) for _ in range(2)]
    low = fal_client.submit(TURBO, SMALL, priority="low")
    places = [handle.status().position for handle in (first, second, low)]
    assert places == [0, 1, 2]
    answer = httpx.get(first.response_url, headers={"Authorization": "Key any:key"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Request is still in progress")
    for handle in (first, second, low):
        handle.cancel()


def test_subscribe_tells_the_id_and_every_change():
    ids, updates = [], []
    result = fal_client.subscribe(
        TURBO, SMALL, with_logs=True, interval=0.02, on_enqueue=ids.append, on_queue_update=updates.append
    )
    assert len(result["images"]) == 1
    assert isinstance(updates[-1], fal_client.Completed)
    assert "Step 1/1" in [line["message"] for line in updates[-1].logs]
    assert fal_client.result(TURBO, ids[0]) == result


async def test_the_async_client_subscribes_and_follows():
    updates = []
    result = await fal_client.subscribe_async(TURBO, SMALL, with_logs=True, on_queue_update=updates.append)
    assert len(result["images"]) == 1
    assert "Step 1/1" in [line["message"] for line in updates[-1].logs]
    handle = await fal_client.submit_async(LORA, SMALL)
    events = [event async for event in handle.iter_events(interval=0.02)]
    assert isinstance(events[-1], fal_client.Completed)
    assert await fal_client.result_async(LORA, handle.request_id) == await handle.get()


def test_a_request_is_found_by_its_id_alone():
    handle = fal_client.submit(LORA, SMALL)
    assert "/fal-ai/z-image/requests/" in handle.status_url
    result = fal_client.result(LORA, handle.request_id)
    assert isinstance(fal_client.status(LORA, handle.request_id.upper(), with_logs=True), fal_client.Completed)
    assert result == handle.get()


def test_what_waits_is_removed_by_cancelling(busy):
    handle = fal_client.submit(TURBO, SMALL)
    fal_client.cancel(TURBO, handle.request_id)
    with pytest.raises(fal_client.FalClientHTTPError) as raised:
        handle.get()
    assert (raised.value.status_code, raised.value.error_type) == (499, "client_cancelled")


def test_what_runs_stops_within_a_step(busy):
    begun = time.monotonic()
    busy.cancel()
    with pytest.raises(fal_client.FalClientHTTPError) as raised:
        busy.get()
    assert raised.value.status_code == 499
    # The whole takes minutes. The worker is free again as soon as the block that it computes is done.
    fal_client.run(TURBO, SMALL)
    assert time.monotonic() - begun < 45


def test_too_late_and_unknown_are_told_apart():
    handle = fal_client.submit(TURBO, SMALL)
    handle.get()
    for cancel, status, said in [
        (handle.cancel, 400, "ALREADY_COMPLETED"),
        (lambda: fal_client.cancel(TURBO, str(uuid.uuid4())), 404, "NOT_FOUND"),
    ]:
        with pytest.raises(fal_client.FalClientHTTPError) as raised:
            cancel()
        assert raised.value.status_code == status
        assert raised.value.response.json()["status"] == said
    with pytest.raises(fal_client.FalClientHTTPError) as raised:
        fal_client.status(TURBO, str(uuid.uuid4()))
    assert raised.value.status_code == 404


def test_what_does_not_start_in_time_ends_and_is_not_retried(busy):
    begun = time.monotonic()
    with pytest.raises(fal_client.FalClientHTTPError) as raised:
        fal_client.subscribe(TURBO, SMALL, start_timeout=1.5)
    error = raised.value
    assert (error.status_code, error.error_type) == (504, "request_timeout")
    assert error.response_headers["x-fal-request-timeout-type"] == "user"
    assert 1.4 < time.monotonic() - begun < 10


def test_a_client_s_own_timeout_cancels_the_request(busy):
    ids = []
    with pytest.raises(fal_client.FalClientTimeoutError) as raised:
        fal_client.subscribe(TURBO, SMALL, client_timeout=2, start_timeout=30, on_enqueue=ids.append)
    assert raised.value.request_id == ids[0]
    wait_until(lambda: isinstance(fal_client.status(TURBO, ids[0]), fal_client.Completed))
    assert fal_client.status(TURBO, ids[0]).error_type == "client_cancelled"


async def test_the_async_client_s_timeout_does_too(busy):
    with pytest.raises(fal_client.FalClientTimeoutError) as raised:
        await fal_client.subscribe_async(TURBO, SMALL, client_timeout=2, start_timeout=30)
    wait_until(lambda: isinstance(fal_client.status(TURBO, raised.value.request_id), fal_client.Completed))


def test_a_server_that_dies_is_met_again_by_a_client_that_retries(own_server):
    server = own_server(tls=False)
    queue = f"{server.url}/queue/{TURBO}"
    key = {"Authorization": "Key any:key"}
    answer = httpx.post(queue, json=SMALL, headers=key).json()
    server.kill()
    client = httpx.Client(headers=key, timeout=60)
    handle = fal_client.SyncRequestHandle(
        answer["request_id"], answer["response_url"], answer["status_url"], answer["cancel_url"], client=client
    )
    server.start()
    assert len(handle.get()["images"]) == 1
