// The playground, as somebody uses it who wants a picture.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PATIENCE, PHONE, Server, clean, close, drawn, finish, generate, shot, small, visit } from "../room.mjs";

const HOUSE = "a red house on the left, a big green tree on the right, the sun, at noon";
let server;

before(async () => {
  server = await Server.start();
});
after(async () => {
  await close();
  await server.stop();
});

/** `count` pixels of an image, evenly over it, as numbers. */
const pixels = (page, selector) =>
  page.locator(selector).first().evaluate(async (image) => {
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
  });

test("a prompt becomes a picture, seen while it is drawn", async () => {
  const page = await visit(server, { path: "/" });
  assert.match(page.url(), /\/playground$/);
  // Of the size that the embedded model draws best, where nobody says another.
  await page.getByLabel("Prompt", { exact: true }).fill(HOUSE);
  await page.evaluate(() => {
    globalThis.previews = 0;
    new MutationObserver((changes) => {
      globalThis.previews += changes.filter((change) => change.attributeName === "src" && change.target.matches("[data-preview]")).length;
    }).observe(document, { subtree: true, attributes: true });
  });
  await page.getByLabel("Prompt", { exact: true }).press("Control+Enter");
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  assert.ok((await page.evaluate(() => globalThis.previews)) >= 2, "previews were shown");
  const facts = await page.locator("#result .facts").innerText();
  for (const fact of ["Drawn in", "Waited", "Seed", "192 × 192", "Cost", "$0.0"]) assert.ok(facts.includes(fact), `${fact}: ${facts}`);
  await page.locator("#result summary", { hasText: "Log" }).click();
  assert.match(await page.locator("#result [data-logs]").innerText(), /Step 8\/8/);
  await page.locator("#recent img").first().waitFor();
  await shot(page, "playground");
  await finish(page);
});

test("a seed that is locked draws the same picture again, and one that is not another", async () => {
  const page = await visit(server, { path: "/playground" });
  await generate(page, HOUSE);
  const first = await pixels(page, "#result .made img");
  const seed = await page.locator("[data-seed-used]").innerText();
  await page.getByRole("button", { name: "Use this seed" }).click();
  assert.equal(await page.getByLabel("Seed", { exact: true }).inputValue(), seed);
  assert.equal(await page.getByRole("button", { name: "Keep this seed" }).getAttribute("aria-pressed"), "true");
  const again = page.waitForResponse((answer) => answer.request().method() === "POST");
  await page.getByRole("button", { name: "Generate" }).click();
  await again;
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  assert.equal(await page.locator("[data-seed-used]").innerText(), seed);
  assert.deepEqual(await pixels(page, "#result .made img"), first);
  await page.getByRole("button", { name: "Keep this seed" }).click();
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#result live-run").waitFor();
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  assert.notEqual(await page.locator("[data-seed-used]").innerText(), seed);
  await page.getByRole("button", { name: "Draw a seed" }).click();
  assert.match(await page.getByLabel("Seed", { exact: true }).inputValue(), /^\d+$/);
  await finish(page);
});

test("what is wrong is said at its field, and what was typed stays", async () => {
  const page = await visit(server, { path: "/playground" });
  await small(page);
  await page.getByLabel("Width").fill("9000");
  await page.getByText("More settings").click();
  await page.getByLabel("Steps", { exact: true }).fill("99");
  await page.getByRole("button", { name: "Generate" }).click();
  const steps = page.getByLabel("Steps", { exact: true });
  await page.locator("#f-num_inference_steps[aria-invalid=true]").waitFor();
  assert.equal(await steps.inputValue(), "99");
  const described = (await steps.getAttribute("aria-describedby")).split(" ")[0];
  assert.equal(await page.locator(`#${described}`).innerText(), "The most is 30.");
  assert.equal(await page.locator("#f-prompt-fault").innerText(), "Fill this in.");
  assert.equal(await page.locator("#f-image_size-width-fault").innerText(), "The most is 8192.");
  assert.equal(await page.evaluate(() => document.activeElement.id), "f-prompt");
  await shot(page, "faults");
  await finish(page);
});

test("a sampler, noise levels and a variation are chosen, checked and told as programs", async () => {
  const page = await visit(server, { path: "/playground" });
  await page.getByLabel("Prompt", { exact: true }).fill(HOUSE);
  await page.getByText("Sampler and variations").click();
  await page.locator("#f-sampler label", { hasText: "heun" }).click();
  await page.getByLabel("Noise levels").fill("0.5, 0.7");
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#f-sigmas[aria-invalid=true]").waitFor();
  assert.match(await page.locator("#f-sigmas-fault").innerText(), /must fall from at most 1/);
  assert.ok(await page.getByLabel("Variation seed").isVisible(), "what is wrong stands open");
  await page.getByLabel("Noise levels").fill("1, 0.5");
  await page.getByLabel("Variation seed").fill("3");
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  await page.locator("#result summary", { hasText: "Log" }).click();
  assert.match(await page.locator("#result [data-logs]").innerText(), /Step 2\/2/);
  await page.getByRole("button", { name: "Copy link" }).click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(new URL(link).searchParams.get("sampler"), "heun");
  assert.equal(new URL(link).searchParams.get("variation_seed"), "3");
  await page.getByRole("button", { name: "Code" }).click();
  await page.locator("#code-fal-python").waitFor();
  const programs = await page.locator("#code-sheet").textContent();
  for (const part of ['"sampler": "heun"', "--sigmas 1,0.5", "--variation-seed 3"]) assert.ok(programs.includes(part), programs);
  await finish(page);
});

test("a link restores everything", async () => {
  const page = await visit(server, { path: "/playground/fal-ai/z-image/base" });
  await page.getByLabel("Prompt", { exact: true }).fill("a & b? 房子");
  await page.getByLabel("Negative prompt").fill("fog");
  await small(page, 128);
  await page.getByLabel("Seed", { exact: true }).fill("42");
  await page.locator("#f-num_images label", { hasText: "3" }).click();
  await page.getByText("More settings").click();
  await page.getByLabel("Guidance").fill("3.5");
  await page.getByLabel("Safety checker").uncheck();
  await page.getByRole("button", { name: "Copy link" }).click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  clean(page);
  await page.goto(link);
  assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "a & b? 房子");
  assert.equal(await page.getByLabel("Negative prompt").inputValue(), "fog");
  assert.equal(await page.getByLabel("Width").inputValue(), "128");
  assert.equal(await page.getByLabel("Seed", { exact: true }).inputValue(), "42");
  assert.ok(await page.locator("#f-num_images input[value='3']").isChecked());
  await page.getByText("More settings").click();
  assert.equal(await page.getByLabel("Guidance").inputValue(), "3.5");
  assert.ok(!(await page.getByLabel("Safety checker").isChecked()));
  await finish(page);
});

test("a picture is dropped, changed, and used again as input", async () => {
  const [{ images }] = await drawn(server, [HOUSE], { image_size: { width: 192, height: 192 } });
  const bytes = Buffer.from(await (await fetch(images[0].url)).arrayBuffer());
  const page = await visit(server, { path: "/playground/fal-ai/z-image/turbo/image-to-image" });
  await page.getByLabel("Prompt", { exact: true }).fill("the same house at night, the moon");
  const transfer = await page.evaluateHandle((base64) => {
    const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "house.png", { type: "image/png" }));
    return transfer;
  }, bytes.toString("base64"));
  await page.locator(".drop").dispatchEvent("drop", { dataTransfer: transfer });
  await page.waitForFunction(() => document.querySelector("#f-image_url").value.startsWith("/files/"));
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  assert.match(await page.locator("#result .facts").innerText(), /192 × 192/);
  await page.getByRole("button", { name: "Vary" }).click();
  await page.locator("#result live-run").waitFor();
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  await page.getByRole("link", { name: "Use as input" }).click();
  await page.waitForURL(/image-to-image\?.*image_url=/);
  assert.match(await page.getByLabel("Image", { exact: true }).inputValue(), /^\/files\//);
  assert.ok(await page.locator(".drop img").isVisible());
  await finish(page);
});

test("the same is had as a program, and the program does the same", async () => {
  const page = await visit(server, { path: "/playground" });
  await page.getByLabel("Prompt", { exact: true }).fill("it's a \"red\" house");
  await small(page, 96);
  await page.getByLabel("Seed", { exact: true }).fill("7");
  await page.getByRole("button", { name: "Code" }).click();
  await page.locator("#code[open] pre").first().waitFor();
  await shot(page, "code");
  for (const [title, marks] of [
    ["fal Python", ["fal_client.subscribe", "\"seed\": 7"]],
    ["fal JavaScript", ["fal.subscribe", "proxyUrl"]],
    ["fal cURL", ["curl http"]],
    ["OpenAI Python", ["client.images.generate", "size=\"96x96\""]],
    ["OpenAI JavaScript", ["client.images.generate"]],
    ["OpenAI cURL", ["/v1/images/generations"]],
    ["CLI Shell", ["zoetrope generate", "--seed 7"]],
  ]) {
    await page.getByLabel(`Copy ${title}`).evaluate((button) => button.click());
    const text = await page.evaluate(() => navigator.clipboard.readText());
    for (const mark of marks) assert.ok(text.includes(mark), `${title}: ${text}`);
  }
  const { execFileSync } = await import("node:child_process");
  for (const id of ["#code-fal-curl", "#code-openai-curl"]) {
    const text = await page.locator(id).evaluate((element) => element.textContent);
    const answer = JSON.parse(execFileSync("bash", ["-c", text.replace("curl ", "curl -sS ")], { encoding: "utf8" }));
    assert.ok((answer.images ?? answer.data)[0].url, JSON.stringify(answer));
  }
  await finish(page);
});

test("what runs is cancelled, and what waits says how much is before it", async () => {
  const page = await visit(server, { path: "/playground" });
  await page.getByLabel("Prompt", { exact: true }).fill("a mountain");
  await page.locator(".shape", { hasText: "Custom" }).click();
  await page.getByLabel("Width").fill("1024");
  await page.getByLabel("Height").fill("1024");
  await page.getByText("More settings").click();
  await page.getByLabel("Steps", { exact: true }).fill("30");
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#result live-run").waitFor();
  const other = await visit(server, { path: "/playground" });
  await other.getByLabel("Prompt", { exact: true }).fill("a lake");
  await small(other, 96);
  await other.getByRole("button", { name: "Generate" }).click();
  await other.locator("live-run [data-status]", { hasText: /Waiting: \d|Starting/ }).waitFor();
  await page.locator("live-run").getByRole("button", { name: "Cancel" }).click();
  await page.locator("#result", { hasText: "Cancelled" }).waitFor(PATIENCE);
  await other.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  await finish(other);
  await finish(page);
});

test("parameters are read back from the file of a picture", async () => {
  const page = await visit(server, { path: "/playground" });
  await generate(page, "a lake at dusk", { Seed: 99 });
  const path = await page.locator("#result .made a.whole").getAttribute("href");
  const file = Buffer.from(await (await fetch(server.url + path)).arrayBuffer());
  const picture = { name: "lake.png", mimeType: "image/png", buffer: file };
  await page.locator("[data-reader] input[type=file]").setInputFiles(picture);
  await page.waitForURL(/prompt=a\+?(%20)?lake/);
  assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "a lake at dusk");
  assert.equal(await page.getByLabel("Seed", { exact: true }).inputValue(), "99");
  assert.equal(await page.getByLabel("Width").inputValue(), "192");
  await finish(page);
});

test("everything works without scripts", async () => {
  const page = await visit(server, { path: "/playground", javaScriptEnabled: false });
  await page.getByLabel("Prompt", { exact: true }).fill("a small house");
  await page.locator(".shape", { hasText: "Custom" }).click();
  await page.getByLabel("Width").fill("96");
  await page.getByLabel("Height").fill("96");
  await page.getByRole("button", { name: "Generate" }).click();
  await page.waitForURL(/\/requests\//);
  await page.locator(".run img").waitFor(PATIENCE);
  await page.getByRole("link", { name: "Change and repeat" }).click();
  assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "a small house");
  await page.getByLabel("Prompt", { exact: true }).fill("");
  await page.getByRole("button", { name: "Generate" }).click();
  assert.equal(await page.locator("#f-prompt-fault").innerText(), "Fill this in.");
  await page.getByRole("button", { name: "Code" }).click();
  assert.match(await page.locator("pre").first().innerText(), /fal_client/);
  clean(page);
  await page.context().close();
});

test("it fits a phone, in the dark, and in Chinese", async () => {
  const page = await visit(server, { path: "/playground", view: PHONE, colorScheme: "dark", locale: "zh-CN", hasTouch: true, isMobile: true });
  assert.equal(await page.locator("html").getAttribute("lang"), "zh");
  await page.getByLabel("提示词", { exact: true }).fill("a red house on the left, the sun");
  await page.locator(".shape", { hasText: "自定义" }).click();
  await page.getByLabel("宽").fill("192");
  await page.getByLabel("高", { exact: true }).fill("192");
  await page.getByRole("button", { name: "生成", exact: true }).click();
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `the page is ${overflow} pixels too wide`);
  await shot(page, "playground-phone", { fullPage: true });
  await finish(page);
});

test("it is used by keyboard alone", async () => {
  const page = await visit(server, { path: "/playground" });
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  for (let presses = 0; presses < 40; presses++) {
    if (await page.evaluate(() => document.activeElement.id === "f-prompt")) break;
    await page.keyboard.press("Tab");
  }
  await page.keyboard.type("a tree");
  await page.keyboard.press("Tab");
  await page.keyboard.press("End");
  for (let presses = 0; presses < 10; presses++) {
    if (await page.evaluate(() => document.activeElement.value === "custom")) break;
    await page.keyboard.press("ArrowRight");
  }
  await page.keyboard.press("Tab");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("96");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("96");
  await page.keyboard.press("Control+Enter");
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  assert.match(await page.locator("#result .facts").innerText(), /96 × 96/);
  clean(page);
  await page.context().close();
});
