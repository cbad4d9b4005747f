// Nothing but the environment: the program below knows no server, and `zoetrope run` starts it.
//
// Node reads HTTPS_PROXY from version 24 on, which is why one comes with the packages: `npm test` finds it first.

import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startServer, zoetrope } from "./server.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const NODE = process.execPath;

let server;
before(async () => {
  server = await startServer();
});
after(() => server?.stop());

test("a program for fal runs unchanged", { timeout: 120_000 }, async () => {
  const said = await zoetrope("run", "--data-dir", server.data, "--", NODE, join(HERE, "program.mjs"));
  const { images, previews, uploaded, realtime } = JSON.parse(said.trim().split("\n").at(-1));
  assert.deepEqual([images, previews, uploaded, realtime], [1, 2, "hello", "jpeg"]);
});

test("every call of the suite works so", { timeout: 600_000 }, async () => {
  const said = await zoetrope("run", "--data-dir", server.data, "--", NODE, "--test", join(HERE, "environment.suite.mjs"));
  assert.match(said, /^# fail 0$|ℹ fail 0$/m);
  assert.doesNotMatch(said, /^(# pass|ℹ pass) 0$/m);
});
