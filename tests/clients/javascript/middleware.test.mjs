// `requestMiddleware`: addresses are rewritten before they are called. Realtime has no such setting; its socket is wrapped.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createFalClient } from "@fal-ai/client";
import { startServer } from "./server.mjs";
import { rewritten, SMALL, suite, TURBO } from "./suite.mjs";

let server, fal;

before(async () => {
  server = await startServer();
  const requestMiddleware = async (request) => ({ ...request, url: rewritten(request.url, server) });
  fal = createFalClient({ credentials: "any:key", requestMiddleware });
  const Direct = globalThis.WebSocket;
  globalThis.WebSocket = class extends Direct {
    constructor(url) {
      super(rewritten(url, server));
    }
  };
});
after(() => server?.stop());

suite("requestMiddleware", () => fal);

test("realtime: inputs are answered with the bytes of pictures", { timeout: 120_000 }, async () => {
  const token = async (app) => {
    const body = JSON.stringify({ allowed_apps: [app.split("/").slice(0, 2).join("/")], duration: 60 });
    const headers = { "content-type": "application/json", authorization: "Key any:key" };
    const answer = await fetch(`${server.url}/tokens/realtime`, { method: "POST", body, headers });
    return (await answer.json()).token;
  };
  const results = await new Promise((resolve, reject) => {
    const got = [];
    const connection = fal.realtime.connect(TURBO, {
      throttleInterval: 0,
      tokenProvider: token,
      tokenExpirationSeconds: 60,
      onError: reject,
      onResult: (result) => {
        got.push(result);
        if (got.length === 1) return connection.send({ ...SMALL, request_id: "second" });
        connection.close();
        resolve(got);
      },
    });
    connection.send({ ...SMALL, request_id: "first" });
  });
  assert.deepEqual(results.map((result) => result.request_id), ["first", "second"]);
  const [start] = [Buffer.from(results[0].images[0].content)];
  assert.equal(start.subarray(0, 2).toString("hex"), "ffd8");
});

test("realtime: a wrong input is told", { timeout: 60_000 }, async () => {
  const error = await new Promise((resolve) => {
    const connection = fal.realtime.connect(TURBO, {
      onError: (error) => {
        connection.close();
        resolve(error);
      },
      onResult: () => resolve(undefined),
    });
    connection.send({ ...SMALL, num_images: 9 });
  });
  assert.equal(error?.name, "ApiError");
  assert.match(error.message, /num_images/);
});
