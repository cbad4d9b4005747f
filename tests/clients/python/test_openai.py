"""OpenAI's Python client, unmodified: pictures, edits, streams, models, errors, retries."""

import base64
import io
import urllib.request

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

MODEL = "z-image-turbo"
# One step at the demo model's smallest useful size keeps a request below a second.
SMALL = {"model": MODEL, "prompt": "a red house, the sun", "size": "64x64"}
QUICK = {"num_inference_steps": 1}


@pytest.fixture(params=["/v1", "/openai/v1"])
def client(server, request) -> OpenAI:
    return OpenAI(base_url=server.url + request.param, api_key="any", max_retries=0)


@pytest.fixture
def photo() -> io.BytesIO:
    kept = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(kept, "png")
    kept.name = "photo.png"
    kept.seek(0)
    return kept


def opened(item) -> Image.Image:
    if item.b64_json:
        return Image.open(io.BytesIO(base64.b64decode(item.b64_json)))
    with urllib.request.urlopen(item.url) as answer:
        return Image.open(io.BytesIO(answer.read()))


def test_a_picture_is_at_its_address(client):
    answer = client.images.generate(**SMALL, n=2, user="me", extra_body=QUICK | {"seed": 5})
    assert [opened(item).size for item in answer.data] == [(64, 64), (64, 64)]
    assert all(item.b64_json is None for item in answer.data)
    assert (answer.size, answer.output_format) == ("64x64", "png")
    assert answer.usage.output_tokens == 2 * 16
    assert answer.metadata["seeds"] == [5, 6]
    assert answer._request_id.startswith("req_")


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_base64_in_every_format(client, form):
    answer = client.images.generate(
        **SMALL, response_format="b64_json", output_format=form, output_compression=50, extra_body=QUICK
    )
    assert opened(answer.data[0]).format == form.upper()


def test_formats_that_only_the_gateway_names(client):
    for form in ["gif", "avif"]:
        answer = client.images.generate(
            **SMALL, response_format="b64_json", extra_body=QUICK | {"output_format": form}
        )
        data = base64.b64decode(answer.data[0].b64_json)
        assert data[:3] == b"GIF" if form == "gif" else data[4:12] == b"ftypavif"


def test_the_same_seed_is_the_same_picture(client):
    pictures = [client.images.generate(**SMALL, extra_body=QUICK | {"seed": seed}) for seed in (1, 1, 2)]
    first, again, other = [opened(picture.data[0]).tobytes() for picture in pictures]
    assert first == again != other


def test_samplers_noise_levels_and_variations_are_the_engine_s_own(client, photo):
    def drawn(**more):
        answer = client.images.generate(**SMALL, extra_body={"seed": 1, "num_inference_steps": 2} | more)
        assert answer.metadata["dropped_parameters"] == []
        return opened(answer.data[0]).tobytes()

    plain = drawn()
    assert drawn(sampler="euler", variation_seed=9, variation_strength=0) == plain
    pictures = [plain, drawn(sampler="heun"), drawn(sigmas=[1, 0.3]), drawn(variation_seed=9, variation_strength=0.5)]
    assert len(set(pictures)) == len(pictures)
    edited = client.images.edit(model=MODEL, prompt="a", image=photo, extra_body={"sigmas": [1, 0.5], "sampler": "unipc"})
    assert edited.metadata["dropped_parameters"] == []
    with pytest.raises(openai.BadRequestError) as wrong:
        client.images.generate(**SMALL, extra_body={"sampler": "ddim"})
    assert wrong.value.param == "sampler"


def test_sizes_are_converted_and_told(client):
    answer = client.images.generate(
        model=MODEL, prompt="a house", size="100x70", extra_body=QUICK | {"style": "vivid"}
    )
    assert opened(answer.data[0]).size == (100, 70)
    assert [one["parameter"] for one in answer.metadata["dropped_parameters"]] == ["style"]


def test_an_edit_keeps_its_picture_s_size_and_comes_both_ways(client, photo):
    answer = client.images.edit(model=MODEL, prompt="a red house at night", image=photo, extra_body=QUICK)
    [item] = answer.data
    assert item.url and opened(item).size == (64, 48)


def test_an_edit_changes_only_what_the_mask_opens(client, photo):
    mask = Image.new("RGBA", (64, 48), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 48))
    kept = io.BytesIO()
    mask.save(kept, "png")
    halves = []
    for seed in (1, 2):
        photo.seek(0)
        answer = client.images.edit(
            model=MODEL,
            prompt="the sea",
            image=[photo],
            mask=("mask.png", kept.getvalue()),
            extra_body={"num_inference_steps": 4, "strength": 1.0, "seed": seed},
        )
        made = opened(answer.data[0]).convert("L")
        halves.append([made.crop((x, 0, x + 24, 48)).tobytes() for x in (0, 40)])
    changed, kept_half = [sum(abs(a - b) for a, b in zip(*pair)) for pair in zip(*halves)]
    assert kept_half < changed / 2, "what the mask covers does not depend on the seed"


def test_a_variation_needs_no_prompt(client, photo):
    # The client has marked the method as retired, and still sends it.
    with pytest.warns(DeprecationWarning):
        answer = client.images.create_variation(model=MODEL, image=photo, size="256x256", extra_body=QUICK)
    assert opened(answer.data[0]).size == (256, 256)


@pytest.mark.parametrize("partials", [0, 2])
def test_a_stream_shows_pictures_on_the_way(client, partials):
    events = list(
        client.images.generate(
            **SMALL, stream=True, partial_images=partials, extra_body={"num_inference_steps": 4}
        )
    )
    *first, last = events
    assert last.type == "image_generation.completed" and opened(last).size == (64, 64)
    assert [event.type for event in first] == ["image_generation.partial_image"] * len(first)
    assert [event.partial_image_index for event in first] == list(range(len(first)))
    assert len(first) <= partials
    for event in first:
        assert opened(event).format == event.output_format.upper()


def test_an_edit_is_streamed_too(client, photo):
    events = list(client.images.edit(model=MODEL, prompt="a", image=photo, stream=True, extra_body=QUICK))
    assert events[-1].type == "image_edit.completed"


async def test_the_async_client_draws_and_streams(server):
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        answer = await client.images.generate(**SMALL, extra_body=QUICK)
        assert answer.data[0].url
        stream = await client.images.generate(**SMALL, stream=True, extra_body=QUICK)
        assert [event.type async for event in stream][-1] == "image_generation.completed"


def test_models_are_listed_and_found(client):
    ids = [model.id for model in client.models.list()]
    assert MODEL in ids
    assert client.models.retrieve(f"local/{MODEL}").id == f"local/{MODEL}"
    told = client.models.retrieve(MODEL, extra_query={"schema": "true"})
    names = [parameter["name"] for parameter in told.model_extra["schema"]["parameters"]]
    assert names[:2] == ["model", "prompt"] and "strength" in names


def test_a_dry_run_draws_nothing(client):
    told = client.images.generate(**SMALL, extra_query={"dryRun": "true"})
    assert told.estimated is True and told.total_cost_micros == 0 and told.data is None


@pytest.mark.parametrize(
    "sent, kind, code, param",
    [
        ({"n": 99}, openai.BadRequestError, "INVALID_REQUEST", "n"),
        ({"size": "huge"}, openai.BadRequestError, "INVALID_REQUEST", "size"),
        ({"model": "z-imag-turbo"}, openai.NotFoundError, "MODEL_NOT_FOUND", "model"),
        ({"extra_body": {"strict": True, "style": "vivid"}}, openai.BadRequestError, "INVALID_REQUEST", "style"),
    ],
)
def test_errors_are_the_client_s_own(client, sent, kind, code, param):
    with pytest.raises(kind) as raised:
        client.images.generate(**(SMALL | sent))
    assert (raised.value.code, raised.value.param) == (code, param)
    assert raised.value.request_id.startswith("req_")


def test_a_picture_that_is_none_is_refused(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.edit(model=MODEL, prompt="a", image=("photo.png", b"no picture"))
    assert raised.value.param == "image"


def test_what_is_wrong_is_asked_once(server):
    seen = []
    counting = httpx.Client(event_hooks={"request": [seen.append]})
    client = OpenAI(base_url=f"{server.url}/v1", api_key="any", http_client=counting)
    with pytest.raises(openai.NotFoundError):
        client.images.generate(**(SMALL | {"model": "nobody"}))
    assert len(seen) == 1


def test_raw_answers_have_headers(client):
    raw = client.images.with_raw_response.generate(**SMALL, extra_body=QUICK)
    assert raw.headers["x-lumenfall-provider"] == "local"
    assert raw.headers["x-lumenfall-model"] == MODEL
    assert raw.headers["server-timing"].startswith("gw;dur=")
    assert raw.headers["x-request-id"] == raw.parse().id

