// Every endpoint's form can be used by everybody, and a mask is painted where there is one.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PATIENCE, PHONE, Server, clean, close, drawn, finish, shot, visit } from "../room.mjs";

let server;

before(async () => {
  server = await Server.start();
});
after(async () => {
  await close();
  await server.stop();
});

const ids = async () => (await (await fetch(server.url)).json()).endpoints.map((endpoint) => endpoint.id);

test("every form is accessible, open and closed, and fits a phone", async () => {
  for (const id of await ids()) {
    const page = await visit(server, { path: `/playground/${id}`, view: PHONE });
    for (const fold of await page.locator("details.more > summary").all()) await fold.click();
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${id} is ${overflow} pixels too wide`);
    await finish(page);
  }
});

test("a mask is painted, and only what was painted changes", async (context) => {
  const known = await ids();
  const id = known.find((each) => each.endsWith("/inpaint")) ?? known.find((each) => each.endsWith("/tiling"));
  if (!id) return context.skip("no endpoint of this server has a mask");
  const [{ images }] = await drawn(server, ["a red house on the left, the sun, at noon"], { image_size: { width: 192, height: 192 }, num_inference_steps: 8 });
  const path = new URL(images[0].url).pathname;
  const page = await visit(server, { path: `/playground/${id}?prompt=the+moon%2C+at+night&image_url=${encodeURIComponent(path)}` });
  const canvas = page.locator(".painter canvas");
  await canvas.scrollIntoViewIfNeeded();
  const box = await canvas.boundingBox();
  await page.mouse.move(box.x + box.width * 0.7, box.y + box.height * 0.2);
  await page.mouse.down();
  for (let at = 0; at <= 10; at++) await page.mouse.move(box.x + box.width * (0.7 + at * 0.02), box.y + box.height * (0.2 + at * 0.02));
  await page.mouse.up();
  await page.waitForFunction(() => document.querySelector("[data-mask] input[type=text]").value.startsWith("/files/"));
  await shot(page, "mask");
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  const differs = await page.evaluate(async (before) => {
    const pixels = async (source) => {
      const image = new Image();
      image.src = source;
      await image.decode();
      const canvas = new OffscreenCanvas(192, 192);
      canvas.getContext("2d").drawImage(image, 0, 0, 192, 192);
      return canvas.getContext("2d").getImageData(0, 0, 192, 192).data;
    };
    const [old, now] = [await pixels(before), await pixels(document.querySelector("#result .made img").src)];
    const mean = (x, y) => {
      let sum = 0;
      for (let row = y; row < y + 24; row++) for (let at = x; at < x + 24; at++) for (let c = 0; c < 3; c++) sum += Math.abs(old[4 * (192 * row + at) + c] - now[4 * (192 * row + at) + c]);
      return sum / (24 * 24 * 3);
    };
    return { painted: mean(140, 40), elsewhere: mean(20, 150) };
  }, path);
  assert.ok(differs.painted > 3 * differs.elsewhere, JSON.stringify(differs));
  await page.getByRole("button", { name: "Clear" }).click();
  await page.waitForFunction(() => document.querySelector("[data-mask] input[type=text]").value === "");
  await finish(page);
});

test("adapters are added and taken away", async () => {
  const page = await visit(server, { path: "/playground/fal-ai/z-image/turbo/lora" });
  await page.getByLabel("Address, hub id or file 1").fill("owner/one");
  await page.getByRole("button", { name: "Add a LoRA" }).click();
  await page.getByLabel("Address, hub id or file 2").fill("owner/two");
  await page.getByLabel("Strength 2").fill("0.5");
  await page.getByRole("button", { name: "Copy link" }).click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  await page.goto(link);
  assert.equal(await page.getByLabel("Address, hub id or file 2").inputValue(), "owner/two");
  assert.equal(await page.getByLabel("Strength 2").inputValue(), "0.5");
  await page.locator(".lora").nth(1).getByRole("button", { name: "Remove" }).click();
  assert.ok(!(await page.locator(".lora").nth(1).isVisible()));
  // One that cannot be had is said where the request is shown.
  await page.getByLabel("Prompt", { exact: true }).fill("a house");
  await page.getByLabel("Address, hub id or file 1").fill("no such file!");
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#result .fault").waitFor(PATIENCE);
  assert.match(await page.locator("#result .fault").innerText(), /loras/);
  clean(page);
  await page.context().close();
});
