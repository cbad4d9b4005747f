"""Training: a zip is uploaded, watched while it is learned from, and what comes of it is a LoRA like any other."""

import io
import json
import zipfile

import fal_client
import httpx
import pytest
from conftest import SMALL, TURBO
from PIL import Image, ImageDraw
from test_queue import wait_until

TRAINER = "fal-ai/z-image-trainer"
# The fewest that fal takes.
STEPS = 100


def pictures(path, captions=True):
    """Eight pictures of a red disc over a line, as a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(8):
            image = Image.new("RGB", (192, 192), "white")
            draw = ImageDraw.Draw(image)
            draw.line((0, 130, 192, 130), fill="black", width=5)
            draw.ellipse((40 + 8 * number, 50, 100 + 8 * number, 110), fill="red")
            data = io.BytesIO()
            image.save(data, "PNG")
            archive.writestr(f"{number:03}.png", data.getvalue())
            if captions:
                archive.writestr(f"{number:03}.txt", "the sun, the sea, ink")
    return path


def test_a_training_is_followed_and_its_file_is_a_lora(tmp_path):
    lines = []
    arguments = {"image_data_url": fal_client.upload_file(pictures(tmp_path / "pictures.zip")), "steps": STEPS}

    def listen(update):
        if isinstance(update, (fal_client.InProgress, fal_client.Completed)):
            lines[:] = [line["message"] for line in update.logs]

    result = fal_client.subscribe(TRAINER, arguments, with_logs=True, on_queue_update=listen)
    steps = [line for line in lines if line.startswith("Step ")]
    assert len(steps) == STEPS
    assert steps[0].startswith(f"Step 1/{STEPS}: loss ")
    samples = [line.rsplit(" ", 1)[1] for line in lines if line.startswith("Sample after ")]
    assert [Image.open(io.BytesIO(httpx.get(url).content)).size for url in samples] == [(192, 192)] * 5

    lora, config = result["diffusers_lora_file"], result["config_file"]
    assert (lora["file_name"], config["file_name"]) == ("pytorch_lora_weights.safetensors", "config.json")
    data = httpx.get(lora["url"]).content
    assert len(data) == lora["file_size"]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert all(name.startswith("transformer.") for name in header if name != "__metadata__")
    assert httpx.get(config["url"]).json()["settings"]["steps"] == STEPS

    with_lora = SMALL | {"seed": 3, "loras": [{"path": lora["url"], "scale": 1}]}
    drawn = [fal_client.run(endpoint, sent)["images"][0]["url"] for endpoint, sent in [
        (f"{TURBO}/lora", with_lora),
        (f"{TURBO}/lora", SMALL | {"seed": 3}),
    ]]
    assert httpx.get(drawn[0]).content != httpx.get(drawn[1]).content


def test_a_training_stops_within_a_step_when_it_is_cancelled(tmp_path):
    url = fal_client.upload_file(pictures(tmp_path / "pictures.zip"))
    handle = fal_client.submit("fal-ai/z-image-turbo-trainer-v2", {"image_data_url": url, "steps": 10_000})

    def learns():
        status = handle.status(with_logs=True)
        assert not isinstance(status, fal_client.Completed), status
        logs = getattr(status, "logs", None) or []
        return any(line["message"].startswith("Step 2/10000") for line in logs)

    wait_until(learns)
    handle.cancel()
    with pytest.raises(fal_client.FalClientHTTPError) as raised:
        handle.get()
    assert (raised.value.status_code, raised.value.error_type) == (499, "client_cancelled")
    # The worker is free again.
    assert len(fal_client.run(TURBO, SMALL)["images"]) == 1


@pytest.mark.parametrize(
    "name, data, kind, message",
    [
        ("a.zip", None, "value_error", "000.png: has no caption"),
        ("a.zip", b"no zip", "invalid_archive", "zip"),
    ],
)
def test_what_is_wrong_with_the_pictures_is_told_of_their_field(tmp_path, name, data, kind, message):
    path = tmp_path / name
    if data is None:
        pictures(path, captions=False)
    else:
        path.write_bytes(data)
    with pytest.raises(fal_client.FalClientHTTPError) as raised:
        fal_client.subscribe(TRAINER, {"image_data_url": fal_client.upload_file(path)})
    assert raised.value.status_code == 422
    (problem,) = raised.value.response.json()["detail"]
    assert (problem["loc"], problem["type"]) == (["body", "image_data_url"], kind)
    assert message in problem["msg"]
