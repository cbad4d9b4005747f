"""Every endpoint's OpenAPI document, driven by schemathesis: whatever it thinks of, no answer is a failure of the server."""

import pathlib
import subprocess
import sys

import pytest
from services import places
from serving import Server

ENDPOINTS = [
    "fal-ai/z-image/turbo",
    "fal-ai/z-image/turbo/lora",
    "fal-ai/z-image/turbo/image-to-image",
    "fal-ai/z-image/turbo/image-to-image/lora",
    "fal-ai/z-image/turbo/inpaint",
    "fal-ai/z-image/turbo/inpaint/lora",
    "fal-ai/z-image/turbo/controlnet",
    "fal-ai/z-image/turbo/controlnet/lora",
    "fal-ai/z-image/turbo/tiling",
    "fal-ai/z-image/turbo/tiling/lora",
    "fal-ai/z-image/base",
    "fal-ai/z-image/base/lora",
    "fal-ai/z-image-trainer",
    "fal-ai/z-image-turbo-trainer",
    "fal-ai/z-image-turbo-trainer-v2",
    "fal-ai/z-image-base-trainer",
]
# Each is tried with the document's own examples, with the edges of every field, and with so many inputs by chance.
EXAMPLES_MAX = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    # Nobody draws or trains: what is looked at is how requests are taken and answered.
    folder = tmp_path_factory.mktemp("openapi")
    server = Server(folder, "--no-worker", tls=False, environment=places()).start()
    yield server
    assert server.stop() == 0


# fal's document of each endpoint, and the one of OpenAI's routes and the gateway's.
DOCUMENTS = [f"/api/openapi/queue/openapi.json?endpoint_id={endpoint}" for endpoint in ENDPOINTS]


@pytest.mark.parametrize("document", [*DOCUMENTS, "/v1/openapi.json"])
def test_no_input_makes_the_server_fail(server, document, tmp_path):
    command = [
        str(pathlib.Path(sys.executable).parent / "st"),
        "run",
        f"{server.url}{document}",
        "--checks=not_a_server_error,content_type_conformance,response_schema_conformance",
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={EXAMPLES_MAX}",
        "--continue-on-failure",
        "--generation-database=none",
        "--no-color",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "No failures" in done.stdout or "0 failed" in done.stdout or "passed" in done.stdout, done.stdout[-3000:]


def test_the_documents_are_of_the_endpoints_that_are_served(server):
    served = {endpoint["id"] for endpoint in server.get("/")["endpoints"]}
    assert served == set(ENDPOINTS)
