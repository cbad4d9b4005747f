"""Ends servers and workers at random points, mostly as `kill -9` does, and then checks every request that was accepted.

    python tests/crash/crash.py [--rounds 10] [--seed N] [--postgres] [--engine-sleep-ms MS]

By default one server with its worker is killed, on SQLite and a folder. With --postgres there are two API nodes and three
workers on a PostgreSQL and an S3-compatible server, and each round kills one of each. With --engine-sleep-ms the engine sleeps
instead of drawing, so that many more requests meet each kill. The promises:

- whatever was answered with an id ends, exactly once: as completed, failed or cancelled, and never differently when asked again;
- only what was cancelled ends as cancelled, only what must not be tried again ends because its worker was lost;
- a completed request's pictures are there, whole;
- its webhook is delivered, always with the same body;
- nothing else ran: the history holds what was accepted, and at most those submissions whose answer was cut off.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import hashlib
import http.server
import io
import json
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import httpx
from PIL import Image
from services import S3_BUCKET, bucket, bucket_variables, postgres
from serving import Server, Worker

TURBO = "fal-ai/z-image/turbo"
SIDE = 64
# So short that a lost worker's request is tried again within the run, so long that a busy machine's heartbeat makes it.
LEASE_SECONDS = 5
# Unfinished requests at a time: enough that each kill meets some in every state.
UNFINISHED_MAX = 24
SUBMITTERS = 4
# So many that none runs out of them: in a long run some request is met by ten kills in a row.
ATTEMPTS_MAX = 100
# One victim in three is told to go, with too little time to finish what runs: that goes back into the queue.
GRACEFUL_SHARE = 1 / 3
DRAIN_SECONDS = 0
DRAIN_SECONDS_MAX = 300
TERMINAL = "COMPLETED"


class Ledger:
    """What was promised, and what was seen of it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.accepted: dict[str, dict] = {}
        self.unanswered = 0
        self.ended: dict[str, tuple[int, str]] = {}
        self.hooks: dict[str, set[str]] = collections.defaultdict(set)
        self.broken: list[str] = []

    def accept(self, request_id: str, terms: dict):
        with self.lock:
            if request_id in self.accepted:
                self.broken.append(f"{request_id} was given away twice")
            self.accepted[request_id] = terms

    def end(self, request_id: str, status: int, body: bytes):
        seen = (status, hashlib.sha256(body).hexdigest())
        with self.lock:
            first = self.ended.setdefault(request_id, seen)
        if first != seen:
            self.broken.append(f"{request_id} ended as {first[0]}, and later as {status} with {body[:200]!r}")

    def open(self) -> list[str]:
        with self.lock:
            return [request_id for request_id in self.accepted if request_id not in self.ended]


class Receiver:
    """Takes webhooks, and refuses one in five so that they are sent again."""

    def __init__(self, ledger: Ledger, dice: random.Random):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with ledger.lock:
                    ledger.hooks[json.loads(body)["request_id"]].add(hashlib.sha256(body).hexdigest())
                    refused = dice.random() < 0.2
                self.send_response(503 if refused else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


class Site:
    """The processes of one installation."""

    def __init__(self, folder: pathlib.Path, engine: list[str], database: str = "", endpoint: str = ""):
        common = ["--lease-seconds", str(LEASE_SECONDS), "--drain-seconds", str(DRAIN_SECONDS)]
        common += ["--attempts-max", str(ATTEMPTS_MAX), *engine]
        api = ["--allow-private", *common]
        if not database:
            self.apis = [Server(folder / "node", *api, tls=False)]
            self.workers = []
            return
        shared = ["--database-url", database, "--storage", f"s3://{S3_BUCKET}"]
        secrets = bucket_variables(endpoint)
        node = lambda at: Server(folder / f"node-{at}", "--no-worker", *shared, *api, tls=False, environment=secrets)
        self.apis = [node(at) for at in range(2)]
        self.workers = [Worker(folder / f"worker-{at}", *shared, *common, environment=secrets) for at in range(3)]

    def start(self):
        for process in self.apis + self.workers:
            process.start()

    def kill_some(self, dice: random.Random):
        """One of each kind goes, at a moment of its own, and comes back after another."""
        victims = [dice.choice(kind) for kind in (self.apis, self.workers) if kind]
        dice.shuffle(victims)
        for victim in victims:
            time.sleep(dice.uniform(0, 0.8))
            if dice.random() >= GRACEFUL_SHARE:
                victim.kill()
            elif victim.stop() != 0:
                raise RuntimeError(f"a graceful stop ended with {victim.process.returncode}:\n{victim.tail()}")
        time.sleep(dice.uniform(0, 0.5))
        for victim in victims:
            victim.start()

    def stop(self):
        for process in self.workers + self.apis:
            status = process.stop()
            if status != 0:
                raise RuntimeError(f"a graceful stop ended with {status}:\n{process.tail()}")


class Harness:
    """Clients of a site, while its processes come and go."""

    def __init__(self, site: Site, seed: int):
        self.site, self.dice = site, random.Random(seed)
        self.ledger = Ledger()
        self.receiver = Receiver(self.ledger, random.Random(seed + 1))
        self.over = threading.Event()
        self.http = httpx.Client(timeout=20, headers={"Authorization": "Key crash:test"})

    def node(self, dice: random.Random) -> str:
        return dice.choice(self.site.apis).url

    def submit(self, dice: random.Random):
        """Submits until told to stop; a submission that was not answered is not repeated."""
        while not self.over.is_set():
            if len(self.ledger.open()) >= UNFINISHED_MAX:
                time.sleep(0.05)
                continue
            terms = {
                "images": dice.choice([1, 1, 2]),
                "cancel": dice.random() < 0.15,
                "no_retry": dice.random() < 0.1,
                "hook": dice.random() < 0.3,
            }
            query = "?fal_webhook=" + urllib.parse.quote(self.receiver.url, safe="") if terms["hook"] else ""
            headers = {"X-Fal-No-Retry": "1"} if terms["no_retry"] else {}
            body = {
                "prompt": "a red house, the sun",
                "image_size": {"width": SIDE, "height": SIDE},
                "num_inference_steps": dice.choice([1, 2]),
                "num_images": terms["images"],
            }
            try:
                answer = self.http.post(f"{self.node(dice)}/queue/{TURBO}{query}", json=body, headers=headers)
            except httpx.HTTPError as error:
                # A refused connection has brought nothing; anything else may have.
                if not isinstance(error, httpx.ConnectError):
                    with self.ledger.lock:
                        self.ledger.unanswered += 1
                time.sleep(0.02)
                continue
            if answer.status_code != 200:
                self.ledger.broken.append(f"a submission was answered {answer.status_code}: {answer.text[:300]}")
                return
            request_id = answer.json()["request_id"]
            self.ledger.accept(request_id, terms)
            if terms["cancel"]:
                self.cancel(request_id, dice)

    def cancel(self, request_id: str, dice: random.Random):
        time.sleep(dice.uniform(0, 0.5))
        with contextlib.suppress(httpx.HTTPError):
            answer = self.http.put(f"{self.node(dice)}/queue/fal-ai/z-image/requests/{request_id}/cancel")
            if answer.status_code not in (202, 400):
                self.ledger.broken.append(f"cancelling {request_id} was answered {answer.status_code}: {answer.text}")

    def look(self, request_id: str, node: str):
        """Asks for a request; whoever has seen its end sees the same ever after."""
        base = f"{node}/queue/fal-ai/z-image/requests/{request_id}"
        # Another client may see the end while this one's answer is on its way.
        ended_before = request_id in self.ledger.ended
        try:
            status = self.http.get(f"{base}/status?logs=1")
            if status.status_code not in (200, 202):
                self.ledger.broken.append(f"{request_id} is answered {status.status_code}: {status.text[:200]}")
                return
            if status.json()["status"] != TERMINAL:
                if ended_before:
                    self.ledger.broken.append(f"{request_id} had ended, and is {status.json()['status']} again")
                return
            result = self.http.get(base)
        except httpx.HTTPError:
            return
        self.ledger.end(request_id, result.status_code, result.content)

    def watch(self, dice: random.Random):
        """Looks at open requests, and now and then at one that has ended."""
        while not self.over.is_set():
            still = self.ledger.open()
            ended = list(self.ledger.ended)
            if ended and (not still or dice.random() < 0.2):
                self.look(dice.choice(ended), self.node(dice))
            elif still:
                self.look(dice.choice(still), self.node(dice))
            else:
                time.sleep(0.05)

    def follow(self, dice: random.Random):
        """Follows a request by its stream of events, from whichever node, to its end or the node's."""
        while not self.over.is_set():
            still = self.ledger.open()
            if not still:
                time.sleep(0.05)
                continue
            request_id = dice.choice(still)
            url = f"{self.node(dice)}/queue/fal-ai/z-image/requests/{request_id}/status/stream"
            last = None
            try:
                with self.http.stream("GET", url) as events:
                    for line in events.iter_lines():
                        if line.startswith("data:"):
                            last = json.loads(line[5:])["status"]
            except httpx.HTTPError:
                continue
            if last != TERMINAL and not self.over.is_set():
                self.ledger.broken.append(f"the events of {request_id} ended with {last}")

    def drain(self):
        """Waits until all that was accepted has ended, and all webhooks are there."""
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        while time.monotonic() < deadline:
            still = self.ledger.open()
            for request_id in still:
                self.look(request_id, self.node(self.dice))
            hooks = [i for i, terms in self.ledger.accepted.items() if terms["hook"] and i not in self.ledger.hooks]
            if not still and not hooks:
                return
            time.sleep(0.2)
        for request_id in self.ledger.open():
            self.ledger.broken.append(f"{request_id} has not ended within {DRAIN_SECONDS_MAX} s")
        for request_id in hooks:
            self.ledger.broken.append(f"{request_id}'s webhook has not come within {DRAIN_SECONDS_MAX} s")

    def check(self, request_id: str):
        """The end of one request, against its terms."""
        terms, wrong = self.ledger.accepted[request_id], self.ledger.broken.append
        node = self.node(self.dice)
        result = self.http.get(f"{node}/queue/fal-ai/z-image/requests/{request_id}")
        self.ledger.end(request_id, result.status_code, result.content)
        body = result.json()
        if result.status_code == 200:
            if len(body["images"]) != terms["images"]:
                wrong(f"{request_id} has {len(body['images'])} pictures instead of {terms['images']}")
            for image in body["images"]:
                # It was made for the node that took the request; any node serves it.
                file = self.http.get(node + urllib.parse.urlsplit(image["url"]).path)
                if file.status_code != 200 or len(file.content) != image["file_size"]:
                    wrong(f"{request_id}: {image['url']} is answered {file.status_code}, {len(file.content)} bytes")
                elif Image.open(io.BytesIO(file.content)).convert("RGB").size != (SIDE, SIDE):
                    wrong(f"{request_id}: {image['url']} is another picture")
        elif result.status_code == 499:
            if not terms["cancel"]:
                wrong(f"{request_id} was cancelled by nobody")
        elif not (terms["no_retry"] and body.get("error_type") == "runner_disconnected"):
            wrong(f"{request_id} ended with {result.status_code}: {result.text[:300]}")
        if terms["hook"] and len(self.ledger.hooks[request_id]) != 1:
            wrong(f"{request_id}'s webhook came with {len(self.ledger.hooks[request_id])} different bodies")

    def count(self):
        """The history holds what was accepted, and little else."""
        known = set()
        cursor = ""
        while True:
            page = self.http.get(f"{self.site.apis[0].url}/platform/v1/models/requests/by-endpoint?limit=100{cursor}").json()
            known |= {item["request_id"] for item in page["items"]}
            if not page.get("next_cursor"):
                break
            cursor = "&cursor=" + urllib.parse.quote(page["next_cursor"])
        missing = set(self.ledger.accepted) - known
        more = len(known - set(self.ledger.accepted))
        if missing:
            self.ledger.broken.append(f"the history lacks {sorted(missing)[:5]} and others, {len(missing)} in all")
        if more > self.ledger.unanswered:
            self.ledger.broken.append(f"{more} requests more than accepted, but only {self.ledger.unanswered} unanswered")

    def run(self, rounds: int):
        self.site.start()
        with concurrent.futures.ThreadPoolExecutor(SUBMITTERS + 4) as threads:
            tasks = [threads.submit(self.submit, random.Random(self.dice.random())) for _ in range(SUBMITTERS)]
            tasks += [threads.submit(self.watch, random.Random(self.dice.random())) for _ in range(2)]
            tasks += [threads.submit(self.follow, random.Random(self.dice.random())) for _ in range(2)]
            try:
                for _ in range(rounds):
                    time.sleep(self.dice.uniform(0, 1.5))
                    self.site.kill_some(self.dice)
                    if self.ledger.broken:
                        break
            finally:
                self.over.set()
            for task in tasks:
                task.result()
        self.drain()
        for request_id in list(self.ledger.accepted):
            self.check(request_id)
        self.count()
        self.site.stop()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    arguments.add_argument("--postgres", action="store_true")
    arguments.add_argument("--engine-sleep-ms", type=int)
    asked = arguments.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="zoetrope-crash-"))
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        shared = {}
        if asked.postgres:
            shared = {"database": stack.enter_context(postgres()), "endpoint": stack.enter_context(bucket())}
        engine = [] if asked.engine_sleep_ms is None else ["--engine-sleep-ms", str(asked.engine_sleep_ms)]
        site = Site(folder, engine, **shared)
        harness = Harness(site, asked.seed)
        try:
            harness.run(asked.rounds)
        finally:
            for process in site.apis + site.workers:
                process.kill()
    ledger = harness.ledger
    ends = collections.Counter(status for status, _ in ledger.ended.values())
    told = ", ".join(f"{count} × {status}" for status, count in sorted(ends.items()))
    print(
        f"seed {asked.seed}: {asked.rounds} rounds in {time.monotonic() - begun:.0f} s, {len(ledger.accepted)} accepted ({told}), "
        f"{len(ledger.hooks)} webhooks, {ledger.unanswered} submissions cut off"
    )
    for line in ledger.broken[:20]:
        print(f"BROKEN: {line}")
    if ledger.broken:
        print(f"{len(ledger.broken)} promises broken; logs are in {folder}")
        return 1
    if not {200}.issubset(ends) or len(ledger.accepted) < asked.rounds:
        print("too little happened to say anything")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
