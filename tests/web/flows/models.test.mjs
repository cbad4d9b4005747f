// The catalogue, as somebody reads it who wants to write a program.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PHONE, Server, close, drawn, finish, shot, visit } from "../room.mjs";

let server;

before(async () => {
  server = await Server.start();
  await drawn(server, ["a red house on the left, the sun", "a lake, mountains, at dusk"]);
});
after(async () => {
  await close();
  await server.stop();
});

test("an endpoint's sheet has its fields, prices, pictures, programs and documents", async () => {
  const page = await visit(server, { path: "/models" });
  await shot(page, "models");
  await page.locator('a[href="/models/fal-ai/z-image/turbo"]').click();
  await page.waitForURL(/\/models\/fal-ai\/z-image\/turbo$/);
  const text = await page.locator("main").innerText();
  for (const each of ["num_inference_steps", "1 – 8", "required", "$0.005 / megapixel", "fal_client"]) {
    assert.ok(text.includes(each), each);
  }
  const folded = await page.locator("main").textContent();
  assert.ok(folded.includes("client.images.generate"), folded);
  assert.equal(await page.locator(".samples img").count(), 2);
  for (const name of ["llms.txt", "OpenAPI"]) {
    const path = await page.locator(".sheet-facts a", { hasText: name }).getAttribute("href");
    assert.equal((await fetch(server.url + path)).status, 200, path);
  }
  await shot(page, "model");
  await page.getByRole("link", { name: "Open in the playground" }).click();
  await page.waitForURL(/\/playground\/fal-ai\/z-image\/turbo$/);
  await finish(page);
});

test("a model's sheet has its providers and parameters", async () => {
  const page = await visit(server, { path: "/models/z-image-turbo" });
  const text = await page.locator("main").innerText();
  for (const each of ["local/z-image-turbo", "asked as usual", "aspect_ratio", "text-to-image"]) assert.ok(text.includes(each), `${each}: ${text}`);
  await finish(page);
});

test("every sheet can be read, in both languages and on a phone", async () => {
  const { endpoints } = await (await fetch(server.url)).json();
  for (const { id } of endpoints) {
    const page = await visit(server, { path: `/models/${id}`, view: PHONE, locale: "zh-CN", colorScheme: "dark" });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${id} is ${overflow} pixels too wide`);
    await finish(page);
  }
});
