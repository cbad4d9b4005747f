// Performance, as somebody looks at it who runs the server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PHONE, Server, close, drawn, finish, shot, visit } from "../room.mjs";

let server;

before(async () => {
  server = await Server.start();
  await drawn(server, ["a red house", "a blue boat", "a windmill"]);
  for (const prompt of ["a tree", "the sea"]) {
    const body = JSON.stringify({ model: "z-image-turbo", prompt, size: "96x96", num_inference_steps: 2 });
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`${server.url}/v1/images/generations`, { method: "POST", headers, body });
    assert.equal(answer.status, 200, await answer.clone().text());
  }
});
after(async () => {
  await close();
  await server.stop();
});

test("calls, requests, workers and load are plotted, with the numbers behind them", async () => {
  const page = await visit(server, { path: "/performance" });
  const row = (name) => page.getByRole("row", { name, exact: false }).first().innerText();
  assert.match(await row("local"), /\d s\t.*100\.0 %\t2\t2\t\$0$/);
  assert.match(await row("fal-ai/z-image/turbo"), /100\.0 %\t3\t\$0\.0/);
  assert.match(await page.locator(".figures").innerText(), /Workers\s+1\s/);
  assert.match(await page.locator(".figures").innerText(), /\d (MB|GB) of \d+\.\d GB/);
  const plots = page.locator("figure.plot", { has: page.locator("svg[role=img]") });
  assert.ok((await plots.count()) >= 8, `${await plots.count()} plots`);
  const calls = page.locator("figure.plot", { has: page.locator("figcaption", { hasText: /^Calls$/ }) });
  assert.match(await calls.locator("svg[role=img]").getAttribute("aria-label"), /^Calls: local 2$/);
  assert.equal(await calls.locator("rect").count(), 1);
  await calls.locator("summary").click();
  assert.equal(await calls.locator("tbody tr").count(), 24);
  assert.equal((await calls.locator("tbody tr").last().innerText()).split("\t").pop(), "2");
  await shot(page, "performance", { fullPage: true });
  await finish(page);
});

test("another time and another grouping are links that can be kept", async () => {
  const page = await visit(server, { path: "/performance" });
  await page.getByRole("link", { name: "30 days" }).click();
  await page.getByRole("link", { name: "Model", exact: true }).click();
  assert.match(page.url(), /window=month&by=model/);
  assert.match(await page.getByRole("row", { name: "z-image-turbo" }).first().innerText(), /100\.0 %/);
  assert.equal(await page.getByRole("link", { name: "30 days" }).getAttribute("aria-current"), "true");
  await finish(page);
});

test("on a phone in the dark nothing is wider than the phone", async () => {
  const page = await visit(server, { path: "/performance?window=week", view: PHONE, colorScheme: "dark" });
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= PHONE.width, `the page is ${width} wide`);
  await shot(page, "performance-phone-dark", { fullPage: true });
  await finish(page);
});
