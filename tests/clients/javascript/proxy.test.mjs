// `proxyUrl`: every call goes to one address of this server, which answers in fal's stead.

import { after, before } from "node:test";
import { createFalClient } from "@fal-ai/client";
import { startServer } from "./server.mjs";
import { suite } from "./suite.mjs";

let server, fal;
before(async () => {
  server = await startServer();
  fal = createFalClient({ proxyUrl: { url: `${server.url}/api/fal/proxy`, when: "always" } });
});
after(() => server?.stop());

suite("proxyUrl", () => fal);
