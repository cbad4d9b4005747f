"""A program that knows nothing of this server, started with the variables of `zoetrope env` or by `zoetrope run`."""

import json
import os
import subprocess
import sys

import serving
from serving import clean_environment

PROGRAM = """
import fal_client, json
from PIL import Image
image = fal_client.upload_image(Image.new("RGB", (64, 64), "red"))
result = fal_client.subscribe(
    "fal-ai/z-image/turbo/image-to-image",
    arguments={"prompt": "the sea", "image_url": image, "num_inference_steps": 2},
)
print(json.dumps(result))
"""


def pictures(output: str) -> int:
    return len(json.loads(output.strip().splitlines()[-1])["images"])


def test_run_starts_a_program_that_talks_to_this_server(server, tmp_path):
    program = tmp_path / "app.py"
    program.write_text(PROGRAM)
    done = server.run("run", "--data-dir", server.data, "--", sys.executable, str(program))
    assert pictures(done.stdout) == 1


def test_run_passes_the_program_s_exit_status_on(server):
    command = [serving.BINARY, "run", "--data-dir", server.data, "--"]
    program = [sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command + program, env=clean_environment(), timeout=60).returncode == 7


def test_a_shell_takes_what_env_prints(server, tmp_path):
    program = tmp_path / "app.py"
    program.write_text(PROGRAM)
    data = server.data
    script = f'eval "$("{serving.BINARY}" env --data-dir "{data}")" && exec "{sys.executable}" "{program}"'
    done = subprocess.run(["sh", "-c", script], env=clean_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert pictures(done.stdout) == 1


def test_the_authorities_of_the_system_are_still_trusted(server):
    # `SSL_CERT_FILE` replaces what a program trusts: without the public authorities it could reach nobody else.
    bundle = open(server.environment()["SSL_CERT_FILE"]).read()
    assert bundle.count("BEGIN CERTIFICATE") > 50


def test_only_this_process_s_requests_are_led_here():
    assert os.environ["HTTPS_PROXY"].startswith("http://127.0.0.1:")
