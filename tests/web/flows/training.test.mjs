// Training, as somebody does it who has some pictures of a style.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PATIENCE, PHONE, Server, clean, close, drawn, finish, generate, shot, visit } from "../room.mjs";

let server;
/** Pictures that somebody might have on disk. */
const files = [];

before(async () => {
  server = await Server.start();
  const answers = await drawn(server, ["a red house, at noon", "a blue boat, the sea, at sunset", "a windmill, hills"]);
  for (const [at, { images }] of answers.entries()) {
    const buffer = Buffer.from(await (await fetch(images[0].url)).arrayBuffer());
    files.push({ name: ["red_house-01.png", "boat 2.png", "0003.png"][at], mimeType: "image/png", buffer });
  }
});
after(async () => {
  await close();
  await server.stop();
});

/** A set made by the form. */
async function set(page, name) {
  await page.goto("/training");
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByLabel("Pictures", { exact: true }).setInputFiles(files);
  await page.getByRole("button", { name: "Create the set" }).click();
  await page.getByRole("heading", { name, level: 1 }).waitFor();
}

test("pictures become a LoRA that the playground draws with", async () => {
  const page = await visit(server, { path: "/training" });
  await set(page, "Flat landscapes");
  const captions = page.locator(".captions textarea");
  assert.deepEqual(await captions.evaluateAll((all) => all.map((each) => each.value)), ["red house", "boat", ""]);
  // Edited in place: saved when it is left, without a button.
  await captions.nth(2).fill("a windmill");
  await captions.nth(1).focus();
  await page.getByText("Saved").waitFor();
  await page.getByLabel("Word", { exact: true }).fill("ohwx");
  await page.getByRole("button", { name: "Put in front of all" }).click();
  await page.waitForLoadState();
  const words = () => page.locator(".captions textarea").evaluateAll((all) => all.map((each) => each.value));
  assert.deepEqual(await words(), ["ohwx, red house", "ohwx, boat", "ohwx, a windmill"]);
  await shot(page, "training-set", { fullPage: true });
  // From the gallery, with its prompt.
  await page.locator("summary", { hasText: "Add pictures" }).click();
  await page.locator(".choice input").first().check();
  await page.getByRole("button", { name: "Add", exact: true }).last().click();
  await page.getByText("4 pictures", { exact: true }).waitFor();
  assert.equal((await words())[3], "a windmill, hills");
  assert.equal(await page.getByLabel("Steps", { exact: true }).getAttribute("placeholder"), "1000");
  await page.getByLabel("Trainer", { exact: true }).selectOption("fal-ai/z-image-turbo-trainer");
  assert.equal(await page.getByLabel("Steps", { exact: true }).getAttribute("placeholder"), "2000");
  await page.getByLabel("Trainer", { exact: true }).selectOption("fal-ai/z-image-trainer");
  await page.getByLabel("Name of the LoRA").fill("flat");
  await page.getByLabel("Steps", { exact: true }).fill("100");
  await finish(await visit(server, { path: new URL(page.url()).pathname }));
  await page.getByRole("button", { name: "Train" }).click();
  await page.getByRole("heading", { name: "flat", level: 1 }).waitFor();
  // The loss and the first sample come while it runs.
  await page.locator(".plot svg[role=img]").waitFor(PATIENCE);
  await page.locator(".samples img").first().waitFor(PATIENCE);
  assert.match(await page.locator("#live").innerText(), /Step \d+ of 100/);
  await shot(page, "training-live");
  await page.getByText("The LoRA is ready.").waitFor({ timeout: 600_000 });
  await page.locator(".samples li").nth(4).waitFor();
  assert.match(await page.locator(".plot svg[role=img]").getAttribute("aria-label"), /^Loss by step: Loss 0\.\d+/);
  await page.locator(".plot summary").click();
  assert.ok((await page.locator(".plot tbody tr").count()) >= 50);
  await page.locator("summary", { hasText: "Log" }).click();
  assert.match(await page.locator("pre").innerText(), /Step 100\/100: loss/);
  await shot(page, "training-ready", { fullPage: true });
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download the LoRA" }).click()]);
  assert.match(file.suggestedFilename(), /\.safetensors$/);
  await page.getByRole("link", { name: "Use it in the playground" }).click();
  await page.getByLabel("Prompt", { exact: true }).waitFor();
  assert.match(await page.locator("[name='loras.0.path']").inputValue(), /^\/files\/[0-9a-f]{32}\/pytorch_lora_weights\.safetensors$/);
  await generate(page, "ohwx, red house");
  await finish(page);
});

test("a training is cancelled", async () => {
  const page = await visit(server);
  await set(page, "Cancelled");
  await page.locator(".captions textarea").nth(2).fill("a windmill");
  await page.getByRole("button", { name: "Save captions" }).click();
  await page.waitForLoadState();
  await page.getByRole("button", { name: "Train" }).click();
  await page.locator("#live").waitFor();
  page.on("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.locator("#live .tag", { hasText: "Cancelled" }).waitFor(PATIENCE);
  await finish(page);
});

test("what is wrong is said at its field", async () => {
  const page = await visit(server);
  await set(page, "Wrong");
  await page.getByLabel("Learning rate", { exact: true }).fill("fast");
  await page.getByLabel("Caption of pictures without one").fill("a house");
  await page.getByRole("button", { name: "Train" }).click();
  await page.getByText("`fast` is no number.").waitFor();
  assert.equal(await page.getByLabel("Learning rate", { exact: true }).getAttribute("aria-invalid"), "true");
  await finish(page);
});

test("it works without scripts", async () => {
  const page = await visit(server, { javaScriptEnabled: false });
  await set(page, "Plain");
  await page.locator(".captions textarea").nth(2).fill("a windmill");
  await page.getByRole("button", { name: "Save captions" }).click();
  assert.equal(await page.locator(".captions textarea").nth(2).inputValue(), "a windmill");
  await page.getByRole("button", { name: "Take out boat 2.png" }).click();
  await page.getByText("2 pictures", { exact: true }).waitFor();
  clean(page);
  await page.context().close();
});

test("on a phone, in the dark, in Chinese", async () => {
  const page = await visit(server, { view: PHONE, colorScheme: "dark", locale: "zh-CN", path: "/training" });
  await page.getByRole("heading", { name: "图片集", exact: true }).waitFor();
  await page.getByRole("link", { name: "Wrong" }).click();
  await page.locator(".captions img").first().evaluate((each) => each.decode());
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= PHONE.width, `the page is ${width} wide`);
  await shot(page, "training-phone-dark", { fullPage: true });
  await finish(page);
});
