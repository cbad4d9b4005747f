// What fal's client must find, whichever way it was led here.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { test } from "node:test";
import { ApiError, ValidationError } from "@fal-ai/client";

export const TURBO = "fal-ai/z-image/turbo";
const LORA = "fal-ai/z-image/turbo/lora";
const IMAGE = "fal-ai/z-image/turbo/image-to-image";
// One step at a small size keeps a request below a second; the long one is cancelled long before its end.
export const SMALL = { prompt: "a red house, the sun", image_size: { width: 64, height: 64 }, num_inference_steps: 1 };
const LONG = { prompt: "a red house", image_size: { width: 1024, height: 1024 }, num_inference_steps: 30 };
const STEPS = { ...SMALL, num_inference_steps: 3 };
// Above this the client sends parts.
const LARGE_BYTES = (95 << 20) + 4321;
// A GIF of one pixel, made larger by the server.
const PIXEL = Buffer.from("R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==", "base64");

const bytesOf = async (url) => Buffer.from(await (await fetch(url)).arrayBuffer());
const isPng = (bytes) => bytes.subarray(1, 4).toString() === "PNG";
const rejection = async (promise) => {
  const settled = await Promise.allSettled([promise]);
  assert.equal(settled[0].status, "rejected");
  return settled[0].reason;
};

/** fal's address `url` as `server` has it. */
export function rewritten(url, server) {
  return url
    .replace("https://queue.fal.run", `${server.url}/queue`)
    .replace("https://rest.fal.ai", server.url)
    .replace("https://fal.run", server.url)
    .replace("wss://fal.run", server.url.replace("http", "ws"));
}

/** Declares the tests; `client()` is asked for once the server runs. */
export function suite(way, client) {
  const declare = (name, body) => test(`${way}: ${name}`, { timeout: 180_000 }, () => body(client()));
  declare("run answers with data and a request id", run);
  declare("subscribe polls, with each log line once", subscribe("polling"));
  declare("subscribe streams, with each log line once", subscribe("streaming"));
  declare("submit, status, result and cancel work by id", queue);
  declare("what runs is cancelled", cancelRunning);
  declare("a timeout cancels the request", timeout);
  declare("a start that is too late is not retried", startTimeout);
  declare("a stream shows a picture a step, then the result", stream);
  declare("a stream that cannot begin rejects", failedStream);
  declare("a Blob is uploaded and served", upload);
  declare("a large Blob is uploaded in parts", uploadLarge);
  declare("a Blob in the input becomes an address", nestedBlob);
  declare("a lifecycle ends an upload", lifecycle);
  declare("wrong fields are a ValidationError", validation);
  declare("an application that is not there is an ApiError", unknown);
  declare("an abort signal ends a run", abort);
}

async function run(fal) {
  const { data, requestId } = await fal.run(TURBO, { input: { ...SMALL, seed: 5 } });
  assert.match(requestId, /^[0-9a-f-]{36}$/);
  assert.equal(data.seed, 5);
  assert.ok(isPng(await bytesOf(data.images[0].url)));
  const inline = await fal.run(TURBO, { input: { ...SMALL, sync_mode: true } });
  assert.match(inline.data.images[0].url, /^data:image\/png;base64,/);
}

function subscribe(mode) {
  return async (fal) => {
    const [updates, ids] = [[], []];
    const { data, requestId } = await fal.subscribe(TURBO, {
      input: STEPS,
      mode,
      pollInterval: 50,
      logs: true,
      onEnqueue: (id) => ids.push(id),
      onQueueUpdate: (update) => updates.push(structuredClone(update)),
    });
    assert.equal(data.images.length, 1);
    assert.deepEqual(ids, [requestId]);
    const last = updates.at(-1);
    assert.equal(last.status, "COMPLETED");
    const steps = last.logs.map((line) => line.message).filter((message) => message.startsWith("Step"));
    assert.deepEqual(steps, ["Step 1/3", "Step 2/3", "Step 3/3"]);
  };
}

async function queue(fal) {
  const submitted = await fal.queue.submit(LORA, { input: SMALL, priority: "low", hint: "warm" });
  assert.equal(submitted.status, "IN_QUEUE");
  assert.equal(typeof submitted.queue_position, "number");
  const requestId = submitted.request_id;
  await fal.queue.subscribeToStatus(LORA, { requestId, pollInterval: 50 });
  const status = await fal.queue.status(LORA, { requestId, logs: true });
  assert.equal(status.status, "COMPLETED");
  assert.ok(status.metrics.inference_time > 0);
  const { data } = await fal.queue.result(LORA, { requestId });
  assert.equal(data.images.length, 1);
  const late = await rejection(fal.queue.cancel(LORA, { requestId }));
  assert.ok(late instanceof ApiError);
  assert.deepEqual([late.status, late.body.status], [400, "ALREADY_COMPLETED"]);
  const missing = await rejection(fal.queue.cancel(LORA, { requestId: randomUUID() }));
  assert.deepEqual([missing.status, missing.body.status], [404, "NOT_FOUND"]);
}

async function running(fal) {
  const { request_id: requestId } = await fal.queue.submit(TURBO, { input: LONG });
  for (let looks = 0; looks < 600; looks++) {
    if ((await fal.queue.status(TURBO, { requestId })).status === "IN_PROGRESS") return requestId;
    await new Promise((later) => setTimeout(later, 100));
  }
  throw new Error("it did not start");
}

async function cancelled(fal, requestId) {
  await fal.queue.subscribeToStatus(TURBO, { requestId, pollInterval: 50 });
  const error = await rejection(fal.queue.result(TURBO, { requestId }));
  assert.deepEqual([error.status, error.body.error_type], [499, "client_cancelled"]);
}

async function cancelRunning(fal) {
  const requestId = await running(fal);
  const early = await rejection(fal.queue.result(TURBO, { requestId }));
  assert.deepEqual([early.status, early.body.detail], [400, "Request is still in progress"]);
  await fal.queue.cancel(TURBO, { requestId });
  await cancelled(fal, requestId);
}

async function timeout(fal) {
  const ids = [];
  const error = await rejection(
    fal.subscribe(TURBO, { input: LONG, pollInterval: 50, timeout: 1500, onEnqueue: (id) => ids.push(id) }),
  );
  assert.match(error.message, /timed out/);
  await cancelled(fal, ids[0]);
}

async function startTimeout(fal) {
  const busy = await running(fal);
  const begun = Date.now();
  const error = await rejection(fal.subscribe(TURBO, { input: SMALL, startTimeout: 1.5, pollInterval: 50 }));
  assert.ok(error instanceof ApiError);
  assert.deepEqual([error.status, error.isUserTimeout, error.body.error_type], [504, true, "request_timeout"]);
  assert.ok(Date.now() - begun < 10_000);
  await fal.queue.cancel(TURBO, { requestId: busy });
  await cancelled(fal, busy);
}

async function stream(fal) {
  const stream = await fal.stream(TURBO, { input: STEPS });
  const events = [];
  for await (const event of stream) events.push(event);
  const result = await stream.done();
  assert.deepEqual(events.slice(0, -1).map(({ step, of }) => [step, of]), [[1, 3], [2, 3]]);
  assert.match(events[0].images[0].url, /^data:image\/jpeg;base64,/);
  assert.deepEqual(events.at(-1), result);
  assert.ok(isPng(await bytesOf(result.images[0].url)));
}

async function failedStream(fal) {
  const stream = await fal.stream(TURBO, { input: {} });
  const error = await rejection(stream.done());
  assert.ok(error instanceof ValidationError);
  assert.equal(error.getFieldErrors("prompt")[0].type, "missing");
}

async function upload(fal) {
  const url = await fal.storage.upload(new File(["hello"], "note.txt", { type: "text/plain" }));
  const answer = await fetch(url);
  assert.match(answer.headers.get("content-type"), /^text\/plain/);
  assert.equal(await answer.text(), "hello");
  assert.match(url, /note\.txt$/);
  const nameless = await fal.storage.upload(new Blob([PIXEL], { type: "image/gif" }));
  assert.deepEqual(await bytesOf(nameless), PIXEL);
}

async function uploadLarge(fal) {
  const bytes = Buffer.alloc(LARGE_BYTES, randomBytes(1 << 16));
  const url = await fal.storage.upload(new File([bytes], "large.bin"));
  assert.ok((await bytesOf(url)).equals(bytes), "the file is not what was sent");
}

async function nestedBlob(fal) {
  const image = new Blob([PIXEL], { type: "image/gif" });
  const input = { prompt: "the sea", image_url: image, image_size: { width: 64, height: 64 }, num_inference_steps: 2 };
  const { data } = await fal.subscribe(IMAGE, { input, pollInterval: 50 });
  assert.ok(isPng(await bytesOf(data.images[0].url)));
}

async function lifecycle(fal) {
  const url = await fal.storage.upload(new Blob(["soon gone"]), { lifecycle: { expiresIn: 1 } });
  assert.equal((await fetch(url)).status, 200);
  await new Promise((later) => setTimeout(later, 1200));
  assert.equal((await fetch(url)).status, 404);
}

async function validation(fal) {
  const error = await rejection(fal.run(TURBO, { input: { prompt: "a", num_images: 9, output_format: "bmp" } }));
  assert.ok(error instanceof ValidationError);
  assert.deepEqual(error.fieldErrors.map(({ loc, type }) => [loc.join("."), type]), [
    ["body.num_images", "less_than_equal"],
    ["body.output_format", "literal_error"],
  ]);
  assert.match(error.message, /num_images/);
  assert.match(error.requestId, /^[0-9a-f-]{36}$/);
}

async function unknown(fal) {
  const error = await rejection(fal.run("fal-ai/flux/dev", { input: SMALL }));
  assert.ok(error instanceof ApiError);
  assert.equal(error.status, 404);
  assert.match(error.message, /fal-ai\/flux\/dev/);
}

async function abort(fal) {
  const error = await rejection(fal.run(TURBO, { input: LONG, abortSignal: AbortSignal.timeout(1000) }));
  assert.match(error.name, /AbortError|TimeoutError/);
  // Nobody waits for that one: the worker is free for the next, which would otherwise come minutes later.
  const begun = Date.now();
  await fal.run(TURBO, { input: SMALL });
  assert.ok(Date.now() - begun < 45_000);
}
