"""A PostgreSQL and an S3-compatible server of the tests' own, on free loopback ports, gone with their folder.

    python tests/services.py COMMAND…

runs COMMAND with ZOETROPE_TEST_POSTGRES and ZOETROPE_TEST_S3 set to their addresses. `scripts/test` installs both: Debian's
PostgreSQL, and `s3s-fs` from crates.io below target/tools.
"""

import contextlib
import glob
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

from serving import ROOT, free_port

S3_BINARY = ROOT / "target" / "tools" / "bin" / "s3s-fs"
S3_KEY, S3_SECRET, S3_BUCKET = "test-key", "test-secret", "pictures"
# PostgreSQL refuses to run as root; Debian's package brings this user.
POSTGRES_USER = "postgres"
START_SECONDS_MAX = 30


def postgres_folder() -> pathlib.Path:
    """Where `initdb` and `postgres` are; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [pathlib.Path(found).resolve().parent] if found else []
    folders += map(pathlib.Path, sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True))
    if not folders:
        raise RuntimeError("PostgreSQL is missing: apt-get install postgresql")
    return folders[0]


def listening(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(command: list[str], log: pathlib.Path, port: int, stop=signal.SIGTERM, **options):
    """`command` until the block ends, from the moment that `port` answers."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not listening(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not answer on port {port}:\n{log.read_text()}")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def postgres(*settings: str):
    """A fresh cluster; the address of its database `postgres`, whose user may make others."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zoetrope-postgres-"))
    as_user = {}
    if os.geteuid() == 0:
        shutil.chown(folder, POSTGRES_USER, POSTGRES_USER)
        as_user = {"user": POSTGRES_USER, "group": POSTGRES_USER, "extra_groups": []}
    binaries, data, port = postgres_folder(), folder / "data", free_port()
    try:
        make = [binaries / "initdb", "-D", data, "-U", "zoetrope", "-A", "trust", "-E", "UTF8", "--no-sync"]
        made = subprocess.run(list(map(str, make)), capture_output=True, text=True, cwd=folder, **as_user)
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")
        command = [binaries / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", folder]
        command += [part for setting in ("max_connections=300", *settings) for part in ("-c", setting)]
        # SIGINT is its "fast shutdown": clients are not waited for.
        with running(list(map(str, command)), folder / "log", port, signal.SIGINT, cwd=folder, **as_user):
            yield f"postgres://zoetrope@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def bucket():
    """An empty bucket; its endpoint, to be used with the key and the name above."""
    if not S3_BINARY.exists():
        raise RuntimeError(f"{S3_BINARY} is missing: ./scripts/test installs it")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zoetrope-s3-"))
    (folder / "data" / S3_BUCKET).mkdir(parents=True)
    port = free_port()
    keys = ["--access-key", S3_KEY, "--secret-key", S3_SECRET]
    command = [str(S3_BINARY), "--host", "127.0.0.1", "--port", str(port), *keys, str(folder / "data")]
    try:
        with running(command, folder / "log", port, env=os.environ | {"RUST_LOG": "warn"}):
            yield f"http://127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bucket_variables(endpoint: str) -> dict[str, str]:
    """What S3's clients read to reach the bucket."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": S3_KEY,
        "AWS_SECRET_ACCESS_KEY": S3_SECRET,
        "AWS_REGION": "local",
        "AWS_ALLOW_HTTP": "true",
    }


def places() -> dict[str, str]:
    """Variables of a server that keeps everything in a database and a folder of its own on the services that `main` started;
    none where it started none: then a server keeps it in its data folder."""
    server, endpoint = os.environ.get("ZOETROPE_TEST_POSTGRES"), os.environ.get("ZOETROPE_TEST_S3")
    if not (server and endpoint):
        return {}
    name = f"test_{uuid.uuid4().hex}"
    subprocess.run([str(postgres_folder() / "createdb"), "--maintenance-db", server, name], check=True)
    database = {"ZOETROPE_DATABASE_URL": f"{server.rsplit('/', 1)[0]}/{name}"}
    return database | {"ZOETROPE_STORAGE": f"s3://{S3_BUCKET}/{name}"} | bucket_variables(endpoint)


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    with postgres("fsync=off") as database, bucket() as endpoint:
        environment = os.environ | {"ZOETROPE_TEST_POSTGRES": database, "ZOETROPE_TEST_S3": endpoint}
        return subprocess.run(sys.argv[1:], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
