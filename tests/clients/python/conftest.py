"""One server for all tests, and the environment that `zoetrope env` prints: the client is imported after that, unmodified."""

import os
import pathlib
import shutil
import tempfile

import pytest
from services import places
from serving import Server

TURBO = "fal-ai/z-image/turbo"
# One step at the demo model's smallest useful size keeps a request below a second.
SMALL = {"prompt": "a red house, the sun", "image_size": {"width": 64, "height": 64}, "num_inference_steps": 1}
# Long enough to be met while it runs, on any machine; it is cancelled long before its end.
LONG = {"prompt": "a red house, the sun", "image_size": {"width": 1024, "height": 1024}, "num_inference_steps": 30}


def pytest_configure(config):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zoetrope-clients-"))
    config.zoetrope = Server(folder, "--allow-private", environment=places()).start()
    os.environ.update(config.zoetrope.environment())


def pytest_unconfigure(config):
    server = config.zoetrope
    status = server.stop()
    if status != 0:
        raise RuntimeError(f"the server ended with {status}:\n{server.tail()}")
    shutil.rmtree(server.folder)


@pytest.fixture
def server(request) -> Server:
    """The server that the environment points at."""
    return request.config.zoetrope


@pytest.fixture
def own_server(tmp_path):
    """A server that the test may kill; others are not disturbed."""
    servers = []

    def start(*flags, **options) -> Server:
        options["environment"] = places() | options.get("environment", {})
        servers.append(Server(tmp_path / f"server-{len(servers)}", *flags, **options).start())
        return servers[-1]

    yield start
    for one in servers:
        one.kill()
