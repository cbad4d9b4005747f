"""Uploads: every way that the client has, and what is served afterwards."""

import hashlib
import os
import time

import fal_client
import httpx
import pytest
from conftest import TURBO
from fal_client import StorageSettings
from PIL import Image
from test_run import picture

# The client sends more than 100 MiB in parts.
LARGE_BYTES = (101 << 20) + 12345


def test_bytes_come_back_as_they_were():
    url = fal_client.upload(b"abc", "text/plain", "note.txt")
    answer = httpx.get(url)
    assert answer.content == b"abc"
    assert answer.headers["content-type"].startswith("text/plain")
    assert url.endswith("note.txt")
    ranged = httpx.get(url, headers={"Range": "bytes=1-"})
    assert (ranged.status_code, ranged.content) == (206, b"bc")
    again = httpx.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    head = httpx.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "3", b"")


async def test_the_async_client_uploads(tmp_path):
    assert httpx.get(await fal_client.upload_async(b"x" * 1000, "application/octet-stream")).content == b"x" * 1000
    (tmp_path / "data.bin").write_bytes(b"y" * 1000)
    assert httpx.get(await fal_client.upload_file_async(tmp_path / "data.bin")).content == b"y" * 1000
    url = await fal_client.upload_image_async(Image.new("RGB", (32, 32), "blue"), "png")
    assert picture(url).getpixel((5, 5)) == (0, 0, 255)


def test_a_file_keeps_its_name_and_type(tmp_path):
    path = tmp_path / "käse & brot.png"
    Image.new("RGB", (32, 16), "green").save(path)
    url = fal_client.upload_file(path)
    answer = httpx.get(url)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == path.read_bytes()


def test_an_uploaded_image_is_an_input():
    url = fal_client.upload_image(Image.new("RGB", (96, 64), "red"))
    arguments = {"prompt": "the sea", "image_url": url, "num_inference_steps": 2}
    result = fal_client.subscribe(f"{TURBO}/image-to-image", arguments)
    assert picture(result["images"][0]["url"]).size == (96, 64)


def test_the_older_storage_works_too():
    url = fal_client.upload(b"older", "text/plain", "older.txt", repository="fal")
    assert httpx.get(url).content == b"older"


@pytest.mark.parametrize("expires_in, status_later", [(1, 404), ("never", 200)])
def test_a_lifecycle_ends_a_file(expires_in, status_later):
    url = fal_client.upload(b"soon gone", "text/plain", "soon.txt", lifecycle=StorageSettings(expires_in=expires_in))
    assert httpx.get(url).status_code == 200
    time.sleep(1.2)
    assert httpx.get(url).status_code == status_later


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.write_bytes(os.urandom(1 << 20) * (LARGE_BYTES >> 20) + b"z" * (LARGE_BYTES & 0xFFFFF))
    return path


def digest(url: str) -> tuple[str, int]:
    hashed, size = hashlib.sha256(), 0
    with httpx.stream("GET", url) as answer:
        for chunk in answer.iter_bytes():
            hashed.update(chunk)
            size += len(chunk)
    return hashed.hexdigest(), size


def test_a_large_file_comes_in_parts(large):
    want = (hashlib.sha256(large.read_bytes()).hexdigest(), LARGE_BYTES)
    assert digest(fal_client.upload_file(large)) == want


async def test_and_by_the_async_client(large):
    data = large.read_bytes()
    url = await fal_client.upload_async(data, "application/octet-stream", "large.bin")
    assert digest(url) == (hashlib.sha256(data).hexdigest(), LARGE_BYTES)
