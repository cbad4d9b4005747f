// A training as its page shows it: pictures are drawn here, zipped, uploaded, and what comes of them is a LoRA like any other.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { crc32 } from "node:zlib";
import { createFalClient } from "@fal-ai/client";
import { startServer } from "./server.mjs";
import { rewritten, SMALL, TURBO } from "./suite.mjs";

const TRAINER = "fal-ai/z-image-trainer";
// The fewest that fal takes.
const STEPS = 100;

let server, fal;
before(async () => {
  server = await startServer();
  const requestMiddleware = async (request) => ({ ...request, url: rewritten(request.url, server) });
  fal = createFalClient({ credentials: "any:key", requestMiddleware });
});
after(() => server?.stop());

/** A zip of `files`, `[name, bytes]`, without compression (PKWARE's APPNOTE, 4.3.7, 4.3.12 and 4.3.16). */
function zip(files) {
  const [parts, entries] = [[], []];
  let offset = 0;
  for (const [name, bytes] of files) {
    const about = Buffer.alloc(26);
    about.writeUInt16LE(20, 0); // the version that is needed
    about.writeUInt32LE(crc32(bytes), 10);
    about.writeUInt32LE(bytes.length, 14);
    about.writeUInt32LE(bytes.length, 18);
    about.writeUInt16LE(name.length, 22);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(offset, 10);
    entries.push(Buffer.from("PK\x01\x02\x14\x00", "latin1"), about, place, Buffer.from(name));
    const part = Buffer.concat([Buffer.from("PK\x03\x04", "latin1"), about, Buffer.from(name), bytes]);
    parts.push(part);
    offset += part.length;
  }
  const directory = Buffer.concat(entries);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, directory, end]);
}

test("a training is followed and its file is a LoRA", { timeout: 300_000 }, async () => {
  const input = { ...SMALL, image_size: { width: 192, height: 192 }, num_images: 2, seed: 1 };
  const drawn = await fal.run(TURBO, { input });
  const files = [];
  for (const [i, { url }] of drawn.data.images.entries()) {
    files.push([`${i}.png`, Buffer.from(await (await fetch(url)).arrayBuffer())], [`${i}.txt`, Buffer.from("a red house")]);
  }
  const archive = new Blob([zip(files)], { type: "application/zip" });

  const logged = [];
  const { data } = await fal.subscribe(TRAINER, {
    input: { image_data_url: archive, steps: STEPS },
    logs: true,
    pollInterval: 100,
    onQueueUpdate: (update) => logged.splice(0, Infinity, ...(update.logs ?? []).map((line) => line.message)),
  });
  const steps = logged.filter((message) => message.startsWith("Step "));
  assert.equal(steps.length, STEPS);
  assert.match(steps[0], /^Step 1\/100: loss /);
  const lora = data.diffusers_lora_file;
  assert.equal((await (await fetch(lora.url)).arrayBuffer()).byteLength, lora.file_size);

  const styled = await fal.run(`${TURBO}/lora`, { input: { ...SMALL, loras: [{ path: lora.url, scale: 1 }] } });
  assert.equal(styled.data.images.length, 1);
});
