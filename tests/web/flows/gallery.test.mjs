// The gallery, as somebody uses it who looks for a picture.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { PATIENCE, PHONE, Server, clean, close, drawn, finish, shot, visit } from "../room.mjs";

const PROMPTS = [
  "a red house on the left, the sun",
  "two pine trees, snow, the moon",
  "a lake, mountains, at dusk",
  "红色的房子, 太阳",
  "a blue house on the right, a tree",
  "a hill with a small tree, at noon",
];
let server;

before(async () => {
  server = await Server.start();
  await drawn(server, PROMPTS, { image_size: { width: 192, height: 192 } });
  await drawn(server, ["not to be kept"], { sync_mode: true });
});
after(async () => {
  await close();
  await server.stop();
});

const prompts = (page) => page.locator("a.open img").evaluateAll((images) => images.map((image) => image.alt));

test("all that was made is there, newest first, and nothing that was not to be kept", async () => {
  const page = await visit(server, { path: "/gallery" });
  assert.deepEqual(await prompts(page), [...PROMPTS].reverse());
  await page.waitForFunction(() => [...document.querySelectorAll("a.open img")].every((image) => image.naturalWidth > 0));
  await shot(page, "gallery");
  await finish(page);
});

test("words are found as they are typed, Chinese ones too", async () => {
  const page = await visit(server, { path: "/gallery" });
  const search = page.getByRole("searchbox");
  for (const [words, expected] of [
    ["hous", ["a blue house on the right, a tree", "a red house on the left, the sun"]],
    ["red sun", ["a red house on the left, the sun"]],
    ["房子", ["红色的房子, 太阳"]],
    ["子房", []],
    ["\"'; DROP", []],
    ["", [...PROMPTS].reverse()],
  ]) {
    await search.fill(words);
    const shown = (wanted) => JSON.stringify([...document.querySelectorAll("a.open img")].map((image) => image.alt)) === wanted;
    await page.waitForFunction(shown, JSON.stringify(expected), { timeout: 10_000 });
  }
  await search.fill("house");
  await page.waitForURL(/q=house/);
  await page.reload();
  assert.equal((await prompts(page)).length, 2, "the address restores the search");
  await finish(page);
});

test("what was asked for through OpenAI's API is there too", async () => {
  const body = { model: "z-image-turbo", prompt: "a tree by name", size: "96x96", num_inference_steps: 2 };
  const send = (more) =>
    fetch(`${server.url}/v1/images/generations`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...body, ...more }) });
  assert.equal((await send({})).status, 200);
  assert.equal((await send({ response_format: "b64_json", prompt: "not kept either" })).status, 200);
  const page = await visit(server, { path: "/gallery?q=tree+by+name" });
  assert.deepEqual(await prompts(page), ["a tree by name"]);
  await page.goto(await page.locator("a.open").getAttribute("href"));
  await page.locator(".run .made img").waitFor();
  await page.goto("/gallery?q=kept");
  assert.deepEqual(await prompts(page), []);
  await page.goto("/gallery");
  await page.getByLabel("Select: a tree by name").check();
  page.on("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Delete" }).click();
  await page.waitForFunction(() => ![...document.querySelectorAll("a.open img")].some((image) => image.alt === "a tree by name"));
  await finish(page);
});

test("favourites are marked, and found", async () => {
  const page = await visit(server, { path: "/gallery" });
  await page.locator(".item").nth(1).hover();
  await page.locator(".item").nth(1).getByRole("button", { name: "Mark as favourite" }).click();
  await page.locator(".item").nth(1).getByRole("button", { name: "No longer a favourite" }).waitFor();
  await page.locator(".chip", { hasText: "Favourites" }).click();
  await page.waitForFunction(() => document.querySelectorAll("a.open").length === 1);
  assert.deepEqual(await prompts(page), [PROMPTS[4]]);
  await finish(page);
});

test("a picture is seen large, and the next by an arrow", async () => {
  const page = await visit(server, { path: "/gallery" });
  await page.locator("a.open").first().click();
  const large = page.locator("#large[open]");
  assert.equal(await large.locator("[data-prompt]").innerText(), PROMPTS[5]);
  await page.keyboard.press("ArrowRight");
  assert.equal(await large.locator("[data-prompt]").innerText(), PROMPTS[4]);
  await finish(page);
});

test("two pictures are compared with a slider", async () => {
  const page = await visit(server, { path: "/gallery" });
  await page.getByLabel(`Select: ${PROMPTS[5]}`).check();
  await page.getByLabel(`Select: ${PROMPTS[4]}`).check();
  await page.getByRole("button", { name: "Compare" }).click();
  await page.waitForURL(/compare/);
  await page.getByRole("slider").focus();
  await page.keyboard.press("Home");
  const clip = () => page.locator(".pair img").nth(1).evaluate((image) => getComputedStyle(image).clipPath);
  assert.match(await clip(), /0%\)$|inset\(0px\)/);
  const box = await page.locator(".pair").boundingBox();
  await page.mouse.click(box.x + box.width * 0.25, box.y + 20);
  assert.match(await clip(), /2[45](\.\d+)?%\)$/);
  await shot(page, "compare");
  await finish(page);
});

test("several are taken along as a zip, and deleted for good", async () => {
  const [{ images }] = await drawn(server, ["to be deleted"], { num_images: 2 });
  const page = await visit(server, { path: "/gallery" });
  const boxes = page.getByLabel("Select: to be deleted");
  await boxes.nth(0).check();
  await boxes.nth(1).check();
  const coming = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download" }).click();
  const zip = readFileSync(await (await coming).path());
  const wanted = Buffer.from(await (await fetch(images[0].url)).arrayBuffer());
  assert.ok(zip.subarray(0, 4).equals(Buffer.from("PK\x03\x04")) && zip.includes(wanted), "the zip holds the file as it is");
  page.on("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Delete" }).click();
  await page.waitForFunction(() => ![...document.querySelectorAll("a.open img")].some((image) => image.alt === "to be deleted"));
  for (let tried = 0; ; tried++) {
    const { status } = await fetch(images[0].url);
    if (status === 404) break;
    assert.ok(tried < 50, "the file is still there");
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await finish(page);
});

test("a picture that is dropped opens the form that made it", async () => {
  const [{ images, seed }] = await drawn(server, ["a lake"], { image_size: { width: 128, height: 64 } });
  const bytes = Buffer.from(await (await fetch(images[0].url)).arrayBuffer());
  const page = await visit(server, { path: "/gallery" });
  const transfer = await page.evaluateHandle((base64) => {
    const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "lake.png", { type: "image/png" }));
    return transfer;
  }, bytes.toString("base64"));
  await page.locator("main").dispatchEvent("drop", { dataTransfer: transfer });
  await page.waitForURL(/playground/);
  assert.equal(await page.getByLabel("Seed", { exact: true }).inputValue(), String(seed));
  assert.equal(await page.getByLabel("Width").inputValue(), "128");
  await finish(page);
});

test("it fits a phone, in the dark", async () => {
  const page = await visit(server, { path: "/gallery", view: PHONE, colorScheme: "dark", hasTouch: true, isMobile: true });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} pixels too wide`);
  await page.waitForFunction(() => [...document.querySelectorAll("a.open img")].every((image) => image.naturalWidth > 0), null, PATIENCE);
  await shot(page, "gallery-phone");
  await finish(page);
});

test("without scripts it is searched, and pictures are deleted", async () => {
  await drawn(server, ["a plain tree"]);
  const page = await visit(server, { path: "/gallery", javaScriptEnabled: false });
  await page.getByRole("searchbox").fill("plain");
  await page.getByRole("button", { name: "Show", exact: true }).click();
  assert.deepEqual(await prompts(page), ["a plain tree"]);
  await page.getByLabel("Select: a plain tree").check();
  await page.getByRole("button", { name: "Delete" }).click();
  assert.ok(!(await prompts(page)).includes("a plain tree"));
  clean(page);
  await page.context().close();
});
