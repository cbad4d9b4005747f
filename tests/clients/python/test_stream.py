"""`/stream`: a picture after each step, then the result."""

import fal_client
import pytest
from conftest import SMALL, TURBO
from test_run import picture

STEPS = {"num_inference_steps": 3}


def check(events):
    *previews, result = events
    assert [(event["step"], event["of"]) for event in previews] == [(1, 3), (2, 3)]
    for event in previews:
        assert picture(event["images"][0]["url"]).format == "JPEG"
    assert picture(result["images"][0]["url"]).size == (64, 64)
    assert result["prompt"] == SMALL["prompt"]


def test_previews_come_before_the_result():
    check(list(fal_client.stream(TURBO, SMALL | STEPS)))


async def test_the_async_client_streams():
    check([event async for event in fal_client.stream_async(TURBO, SMALL | STEPS)])


def test_a_path_of_its_own():
    check(list(fal_client.stream("fal-ai/z-image", SMALL | STEPS, path="/turbo/stream")))


def test_wrong_fields_end_the_stream_at_once():
    # The client knows events only; that there are none is all it can say.
    with pytest.raises(Exception, match="text/event-stream"):
        list(fal_client.stream(TURBO, {}))
