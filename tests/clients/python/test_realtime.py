"""`/realtime`: msgpack in, msgpack out, over one connection."""

import io

import fal_client
import pytest
from conftest import SMALL, TURBO
from fal_client.client import RealtimeError
from PIL import Image


def check(result, name):
    assert result["request_id"] == name
    image = result["images"][0]
    made = Image.open(io.BytesIO(image["content"]))
    assert (made.format, made.size) == ("JPEG", (64, 64))
    assert (image["width"], image["height"], image["content_type"]) == (64, 64, "image/jpeg")


@pytest.mark.parametrize("use_jwt", [True, False])
def test_inputs_are_answered_one_by_one(use_jwt):
    with fal_client.realtime(TURBO, use_jwt=use_jwt) as connection:
        for name in ("first", "second"):
            connection.send(SMALL | {"request_id": name})
            check(connection.recv(), name)


async def test_the_async_client_does_the_same():
    async with fal_client.realtime_async(TURBO, max_buffering=2) as connection:
        await connection.send(SMALL | {"request_id": "a"})
        check(await connection.recv(), "a")


def test_a_wrong_input_is_an_error_and_the_connection_goes_on():
    with fal_client.realtime(TURBO) as connection:
        connection.send(SMALL | {"num_images": 9})
        with pytest.raises(RealtimeError, match="num_images"):
            connection.recv()
        connection.send(SMALL | {"request_id": "after"})
        check(connection.recv(), "after")


def test_a_path_without_a_socket_is_refused():
    with pytest.raises(Exception, match="HTTP 4"):
        with fal_client.ws_connect(TURBO, path="/ws"):
            pass
