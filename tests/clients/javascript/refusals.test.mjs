// What OpenAI's JavaScript client and the AI SDK, unmodified, do with a server that refuses.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateImage } from "ai";
import OpenAI from "openai";
import { startServer, zoetrope } from "./server.mjs";

const ASKED = { model: "remote", prompt: "a red house", size: "64x64", response_format: "b64_json" };
// A PNG of 16 by 16 red pixels.
const PIXELS =
  "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAF0lEQVR4nGP4z8BAEiJN9aiGUQ1DSgMAkPn/Afnh+ngAAAAASUVORK5CYII=";

let provider, server, folder, script, asked;

before(async () => {
  // A server of OpenAI's form whose answers are those of `script`, one after the other, and pictures after that.
  provider = createServer((request, response) => {
    request.resume().on("end", () => {
      asked += 1;
      const drawn = { status: 200, body: { created: 1, data: [{ b64_json: PIXELS }] } };
      const { status, headers, body } = script.shift() ?? drawn;
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(JSON.stringify(body));
    });
  });
  await new Promise((ready) => provider.listen(0, "127.0.0.1", ready));
  folder = await mkdtemp(join(tmpdir(), "zoetrope-refusals-"));
  const file = join(folder, "gateway.toml");
  await writeFile(
    file,
    `[gateway.providers.theirs]
protocol = "openai"
url = "http://127.0.0.1:${provider.address().port}/v1"
key = "theirs"
private = true

[gateway.models.remote]
size_max = "1024x1024"
deployments = [{ provider = "theirs", price = { unit = "image", dollars = 0.01 } }]
`,
  );
  server = await startServer("--config", file, "--no-worker");
});
beforeEach(() => {
  [script, asked] = [[], 0];
});
after(async () => {
  await server?.stop();
  provider.close();
  await rm(folder, { recursive: true });
});

const key = async (...limits) => (await zoetrope("keys", "create", ...limits, "--data-dir", server.data)).trim();

/** A client, and when it sent each of its requests. */
function asking(apiKey, maxRetries = 2) {
  const sent = [];
  const counting = (...args) => (sent.push(Date.now()), fetch(...args));
  return { client: new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries, fetch: counting }), sent };
}

const declare = (name, body) => test(`openai refused: ${name}`, { timeout: 60_000 }, body);
const raised = (promise) => promise.then(() => assert.fail("nothing was raised"), (error) => error);

declare("a pause that is asked for is made", async () => {
  const { client, sent } = asking(await key());
  script = [{ status: 429, headers: { "retry-after": "2" }, body: { error: { message: "slow down" } } }];
  const answer = await client.images.generate(ASKED);
  assert.ok(answer.data[0].b64_json);
  assert.equal(sent.length, 2);
  assert.ok(sent[1] - sent[0] > 1900, `${sent}`);
});

declare("a failure that may pass is asked about again", async () => {
  const { client, sent } = asking(await key());
  script = Array(4).fill({ status: 500, body: { error: { message: "out of order" } } });
  await client.images.generate(ASKED);
  assert.deepEqual([sent.length, asked], [3, 5]);
});

declare("what may have been paid is asked for once", async () => {
  const { client, sent } = asking(await key());
  script = [{ status: 200, body: { created: 1, data: [] } }];
  const error = await raised(client.images.generate(ASKED));
  assert.ok(error instanceof OpenAI.InternalServerError);
  assert.deepEqual([error.status, error.code, sent.length], [502, "ALL_PROVIDERS_EXHAUSTED", 1]);
  assert.equal(error.headers.get("x-should-retry"), "false");
});

declare("a budget that is spent, a rate that is used up", async () => {
  const poor = asking(await key("--budget", "0.015"));
  const { response } = await poor.client.images.generate(ASKED).withResponse();
  assert.equal(response.headers.get("x-gateway-cost"), "0.010000");
  const error = await raised(poor.client.images.generate(ASKED));
  assert.ok(error instanceof OpenAI.APIError);
  assert.deepEqual([error.status, error.code, poor.sent.length], [402, "INSUFFICIENT_BALANCE", 2]);
  const slow = asking(await key("--requests-per-minute", "1"), 0);
  await slow.client.images.generate(ASKED);
  const limited = await raised(slow.client.images.generate(ASKED));
  assert.ok(limited instanceof OpenAI.RateLimitError);
  assert.ok(Number(limited.headers.get("retry-after")) > 30);
});

test("@ai-sdk/openai refused: it says what the server said", { timeout: 60_000 }, async () => {
  const model = createOpenAI({ baseURL: `${server.url}/v1`, apiKey: await key() }).image("remote");
  script = [{ status: 200, body: { created: 1, data: [] } }];
  const error = await raised(generateImage({ model, prompt: "a red house", size: "64x64", maxRetries: 0 }));
  assert.ok(APICallError.isInstance(error), `${error}`);
  assert.equal(error.statusCode, 502);
});
