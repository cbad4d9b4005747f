"""`run` and `run_async`: called and waited for."""

import base64
import io

import fal_client
import httpx
import pytest
from conftest import SMALL, TURBO
from PIL import Image


def picture(url: str) -> Image.Image:
    """What lies at `url`, a data URI or an address."""
    if url.startswith("data:"):
        return Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1])))
    answer = httpx.get(url)
    answer.raise_for_status()
    return Image.open(io.BytesIO(answer.content))


def test_a_result_has_what_the_endpoint_s_page_promises():
    result = fal_client.run(TURBO, SMALL | {"seed": 7, "num_images": 2})
    assert result["seed"] == 7
    assert result["prompt"] == SMALL["prompt"]
    assert result["has_nsfw_concepts"] == [False, False]
    assert result["timings"]["inference"] > 0
    for image in result["images"]:
        made = picture(image["url"])
        assert (made.format, made.size) == ("PNG", (64, 64))
        assert (image["width"], image["height"], image["content_type"]) == (64, 64, "image/png")
        answer = httpx.get(image["url"])
        assert int(answer.headers["content-length"]) == image["file_size"] == len(answer.content)
        assert image["url"].endswith(image["file_name"])
    first, second = [httpx.get(image["url"]).content for image in result["images"]]
    assert first != second


def test_a_seed_makes_the_same_picture_again():
    bytes_of = lambda seed: httpx.get(fal_client.run(TURBO, SMALL | {"seed": seed})["images"][0]["url"]).content
    assert bytes_of(11) == bytes_of(11) != bytes_of(12)


@pytest.mark.parametrize("output_format, known_as", [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_sync_mode_answers_with_the_picture_itself(output_format, known_as):
    result = fal_client.run(TURBO, SMALL | {"sync_mode": True, "output_format": output_format})
    url = result["images"][0]["url"]
    assert url.startswith(f"data:image/{output_format};base64,")
    assert picture(url).format == known_as


def test_a_path_is_joined_to_the_application():
    assert len(fal_client.run("fal-ai/z-image", SMALL, path="/turbo", hint="warm", start_timeout=60)["images"]) == 1


async def test_the_async_client_does_the_same():
    result = await fal_client.run_async(TURBO, SMALL | {"seed": 3})
    assert result["seed"] == 3
    assert picture(result["images"][0]["url"]).size == (64, 64)


@pytest.mark.parametrize(
    "endpoint, more",
    [
        ("fal-ai/z-image/turbo/lora", {"loras": []}),
        ("fal-ai/z-image/base", {"guidance_scale": 4, "negative_prompt": "clouds"}),
        ("fal-ai/z-image/base/lora", {"loras": []}),
    ],
)
def test_the_other_endpoints_answer(endpoint, more):
    assert picture(fal_client.run(endpoint, SMALL | more)["images"][0]["url"]).size == (64, 64)


@pytest.mark.parametrize("endpoint", ["fal-ai/z-image/turbo/image-to-image", "fal-ai/z-image/turbo/image-to-image/lora"])
def test_an_image_goes_in_as_a_data_uri_and_gives_its_size(endpoint):
    sent = fal_client.encode_image(Image.new("RGB", (80, 48), "orange"), "png")
    result = fal_client.run(endpoint, {"prompt": "the sea", "image_url": sent, "num_inference_steps": 2})
    assert picture(result["images"][0]["url"]).size == (80, 48)
