// OpenAI's JavaScript client and Vercel's AI SDK, unmodified.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createFal } from "@ai-sdk/fal";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";
import OpenAI, { toFile } from "openai";
import { startServer } from "./server.mjs";

const MODEL = "z-image-turbo";
// One step at the demo model's smallest useful size keeps a request below a second.
const SMALL = { model: MODEL, prompt: "a red house, the sun", size: "64x64", num_inference_steps: 1 };
// A PNG of 16 by 16 red pixels.
const PIXELS = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAF0lEQVR4nGP4z8BAEiJN9aiGUQ1DSgMAkPn/Afnh+ngAAAAASUVORK5CYII=",
  "base64",
);

let server, client, folder, file;

before(async () => {
  server = await startServer("--allow-private");
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "any", maxRetries: 0 });
  folder = await mkdtemp(join(tmpdir(), "zoetrope-openai-"));
  file = join(folder, "photo.png");
  await writeFile(file, PIXELS);
});
after(async () => {
  await server?.stop();
  await rm(folder, { recursive: true });
});

const declare = (name, body) => test(`openai: ${name}`, { timeout: 180_000 }, body);
const isPng = (bytes) => Buffer.from(bytes).subarray(1, 4).toString() === "PNG";
const bytesOf = async (item) =>
  item.b64_json
    ? Buffer.from(item.b64_json, "base64")
    : Buffer.from(await (await fetch(item.url)).arrayBuffer());

declare("a picture is at its address, or in the answer", async () => {
  const answer = await client.images.generate({ ...SMALL, n: 2, seed: 5 });
  assert.equal(answer.data.length, 2);
  assert.ok(isPng(await bytesOf(answer.data[1])));
  assert.deepEqual(answer.metadata.seeds, [5, 6]);
  assert.match(answer._request_id, /^req_/);
  const inline = await client.images.generate({ ...SMALL, response_format: "b64_json" });
  assert.ok(inline.data[0].b64_json && isPng(await bytesOf(inline.data[0])));
});

declare("a file's stream is edited, whatever its framing", async () => {
  const answer = await client.images.edit({
    image: createReadStream(file),
    model: MODEL,
    prompt: "a red house at night",
    num_inference_steps: 1,
  });
  assert.equal(answer.size, "16x16");
  assert.ok(isPng(await bytesOf(answer.data[0])));
});

declare("named files and a mask are edited too", async () => {
  const image = [await toFile(PIXELS, "a.png", { type: "image/png" })];
  const mask = await toFile(PIXELS, "mask.png");
  const answer = await client.images.edit({ image, mask, model: MODEL, prompt: "a", num_inference_steps: 1 });
  assert.ok(isPng(await bytesOf(answer.data[0])));
});

declare("a variation needs no prompt", async () => {
  const answer = await client.images.createVariation({ image: createReadStream(file), model: MODEL });
  assert.ok(isPng(await bytesOf(answer.data[0])));
});

declare("a stream ends with the picture", async () => {
  const types = [];
  const stream = await client.images.generate({ ...SMALL, num_inference_steps: 4, stream: true, partial_images: 2 });
  for await (const event of stream) types.push(event.type);
  assert.equal(types.at(-1), "image_generation.completed");
  assert.ok(types.slice(0, -1).every((type) => type === "image_generation.partial_image"));
});

declare("models are listed and found", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes(MODEL));
  assert.equal((await client.models.retrieve(`local/${MODEL}`)).id, `local/${MODEL}`);
  const told = await client.models.retrieve(MODEL, { query: { schema: "true" } });
  assert.ok(told.schema.parameters.some((parameter) => parameter.name === "strength"));
});

declare("errors are the client's own", async () => {
  const raised = async (sent) => client.images.generate({ ...SMALL, ...sent }).catch((error) => error);
  const wrong = await raised({ n: 99 });
  assert.ok(wrong instanceof OpenAI.BadRequestError);
  assert.deepEqual([wrong.code, wrong.param], ["INVALID_REQUEST", "n"]);
  const missing = await raised({ model: "z-imag-turbo" });
  assert.ok(missing instanceof OpenAI.NotFoundError);
  assert.match(missing.message, /Did you mean/);
});

declare("a raw answer names who drew it", async () => {
  const raw = await client.images.generate(SMALL).asResponse();
  assert.equal(raw.headers.get("x-lumenfall-provider"), "local");
  assert.match(raw.headers.get("content-type"), /application\/json/);
});

const option = { num_inference_steps: 1 };

test("@ai-sdk/openai: generates and edits", { timeout: 180_000 }, async () => {
  const provider = createOpenAI({ baseURL: `${server.url}/v1`, apiKey: "any" });
  const model = provider.image(MODEL);
  const { image } = await generateImage({ model, prompt: "a red house", size: "64x64" });
  assert.ok(isPng(image.uint8Array));
  const edited = await generateImage({ model, prompt: { text: "at night", images: [PIXELS] } });
  assert.ok(isPng(edited.image.uint8Array));
});

test("@ai-sdk/openai-compatible: generates with options of the model's own", { timeout: 180_000 }, async () => {
  const provider = createOpenAICompatible({ name: "zoetrope", baseURL: `${server.url}/v1`, apiKey: "any" });
  const { images } = await generateImage({
    model: provider.imageModel(MODEL),
    prompt: "a red house",
    size: "64x64",
    n: 2,
    providerOptions: { zoetrope: option },
  });
  assert.equal(images.length, 2);
});

test("@ai-sdk/fal: generates at fal's own endpoints", { timeout: 180_000 }, async () => {
  const provider = createFal({ baseURL: server.url, apiKey: "any:key" });
  const { image } = await generateImage({
    model: provider.image("fal-ai/z-image/turbo"),
    prompt: "a red house",
    size: "64x64",
    providerOptions: { fal: { numInferenceSteps: 1 } },
  });
  assert.ok(isPng(image.uint8Array));
});
