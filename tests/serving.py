"""The real binary, started on free ports with a folder of its own, for tests that drive it as users do."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("ZOETROPE") or str(ROOT / "target" / "debug" / "zoetrope")
# A debug build reads its embedded model in a second or two; a loaded machine needs longer.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def clean_environment() -> dict[str, str]:
    """This process's variables without those that point at a server or a proxy."""
    pointing = ("FAL_", "ZOETROPE_", "SSL_CERT", "NODE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(pointing)}


class Process:
    """One process of the binary, with a folder for its log."""

    def __init__(self, folder: pathlib.Path, environment: dict[str, str] | None = None):
        self.folder = pathlib.Path(folder)
        self.environment_added = environment or {}
        self.process: subprocess.Popen | None = None
        self.log = self.folder / "log"

    def command(self) -> list[str]:
        raise NotImplementedError

    def spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            environment = clean_environment() | self.environment_added
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        """As `kill -9` does: without a warning."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """As a supervisor does; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def tail(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-40:])


class Worker(Process):
    """A `zoetrope worker` process."""

    def __init__(self, folder: pathlib.Path, *flags: str, environment: dict[str, str] | None = None):
        super().__init__(folder, environment)
        self.flags = flags

    def command(self) -> list[str]:
        return [BINARY, "worker", *self.flags]

    def start(self) -> "Worker":
        self.spawn()
        return self


class Server(Process):
    """A `zoetrope serve` process. It keeps its ports and its folder over restarts."""

    def __init__(
        self, folder: pathlib.Path, *flags: str, tls: bool = True, environment: dict[str, str] | None = None
    ):
        super().__init__(folder, environment)
        self.flags = flags
        self.port = free_port()
        self.tls_port = free_port() if tls else None

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        tls = f"127.0.0.1:{self.tls_port}" if self.tls_port else "off"
        listen = ["--listen", f"127.0.0.1:{self.port}", "--tls-listen", tls]
        return [BINARY, "serve", *listen, "--data-dir", self.data, *self.flags]

    def start(self) -> "Server":
        """Returns once requests are accepted."""
        self.spawn()
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command()} ended with {self.process.returncode}:\n{self.tail()}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the server did not answer within {START_SECONDS_MAX} s:\n{self.tail()}")

    def run(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        """Another subcommand of the binary, which must succeed."""
        command = [BINARY, *arguments]
        options.setdefault("env", clean_environment() | self.environment_added)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
        if done.returncode != 0:
            raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def environment(self) -> dict[str, str]:
        """What `zoetrope env` says: the variables that point an unmodified program at this server."""
        return json.loads(self.run("env", "--json", "--data-dir", self.data).stdout)

    def get(self, path: str) -> dict:
        """JSON at `path`."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return json.load(answer)
