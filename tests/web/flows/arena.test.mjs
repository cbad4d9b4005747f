// The arena, as somebody uses it who wants to know which settings are better.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PATIENCE, PHONE, Server, clean, close, finish, shot, visit } from "../room.mjs";

let server;

before(async () => {
  server = await Server.start();
});
after(async () => {
  await close();
  await server.stop();
});

const NAMES = ["full precision", "8 bits", "4 steps", "8 steps"];

/** Fills the form in for pictures that are quickly drawn, and sends it. */
async function challenge(page, { name = "Houses", prompts = ["a red house, at noon", "a blue boat, the sea"], begin = "4 steps against 8" } = {}) {
  await page.goto("/arena");
  await page.getByRole("link", { name: "New challenge" }).click();
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Use case").fill("Landscapes");
  await page.getByLabel("Prompts").fill(prompts.join("\n"));
  await page.getByLabel("Width").fill("96");
  await page.getByLabel("Height").fill("96");
  await page.getByLabel(begin).check();
}

/** Sends it, and waits until everything is drawn: the page changes by itself. */
async function drawn(page) {
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByRole("heading", { name: "Contenders" }).waitFor();
  await page.getByRole("link", { name: "Vote" }).waitFor(PATIENCE);
  await page.locator("#progress progress").waitFor({ state: "detached", ...PATIENCE });
  return new URL(page.url()).pathname;
}

test("a challenge is made, drawn, voted on by keyboard and mouse, and has a board", async () => {
  const page = await visit(server, { path: "/arena" });
  assert.match(await page.locator("main").innerText(), /No challenge yet/);
  await challenge(page, { begin: "Full precision against 8 bits" });
  await shot(page, "arena-new", { fullPage: true });
  const path = await drawn(page);
  await page.getByRole("link", { name: "Vote" }).click();
  const images = page.locator(".duel img");
  assert.equal(await images.count(), 2);
  for (const image of await images.all()) {
    await image.evaluate((each) => each.decode());
    assert.equal(await image.evaluate((each) => `${each.naturalWidth}x${each.naturalHeight}`), "96x96");
    assert.match(await image.getAttribute("src"), /^\/files\/[0-9a-f]{32}\/picture\.png$/);
  }
  const blind = await page.content();
  for (const name of NAMES) assert.ok(!blind.includes(name), `${name} is told before the vote`);
  await shot(page, "arena-vote");
  await page.keyboard.press("ArrowLeft");
  await page.getByRole("heading", { name: "You said: Left is better." }).waitFor();
  const revealed = await page.locator(".duel").innerText();
  for (const name of NAMES.slice(0, 2)) assert.ok(revealed.includes(name), revealed);
  await shot(page, "arena-reveal");
  await page.keyboard.press("Enter");
  await page.getByText("1 pairs left").waitFor();
  await page.getByRole("button", { name: "Tie" }).click();
  await page.getByRole("heading", { name: "You said: Tie." }).waitFor();
  await page.getByRole("link", { name: "Next pair" }).click();
  await page.getByText("You have voted on every pair").waitFor();
  await page.getByRole("link", { name: "See the board" }).click();
  const rows = await page.locator("table.board tbody tr").allInnerTexts();
  assert.equal(rows.length, 2);
  assert.match(rows[0], /1 to 2\s+.*\s+1\s+0\s+1\s+50\.0 %/);
  assert.match(rows[1], /0\s+1\s+1\s+0\.0 %/);
  assert.match(await page.locator("main").innerText(), /Left was chosen 1 times of 1/);
  await shot(page, "arena-board", { fullPage: true });
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
  assert.equal(file.suggestedFilename(), "votes.csv");
  await page.getByRole("link", { name: "landscapes" }).click();
  await page.getByRole("heading", { name: "landscapes" }).waitFor();
  await finish(page);
  // The pages that were passed are fit for everybody too.
  for (const each of [path, "/arena", "/arena/new"]) await finish(await visit(server, { path: each }));
});

test("every key says what its button says", async () => {
  const page = await visit(server);
  await challenge(page, { name: "Keys", prompts: ["a house", "a tree", "a boat", "a windmill"] });
  const path = await drawn(page);
  const said = { ArrowUp: "Both bad", ArrowDown: "Tie", ArrowRight: "Right is better", ArrowLeft: "Left is better" };
  for (const [key, words] of Object.entries(said)) {
    await page.goto(`${path}/vote`);
    await page.locator(".duel img").first().waitFor();
    await page.keyboard.press(key);
    await page.getByRole("heading", { name: `You said: ${words}.` }).waitFor();
  }
  const votes = await (await page.request.get(`${path}/votes.json`)).json();
  assert.deepEqual(votes.votes.map((vote) => vote.verdict), ["both_bad", "tie", "right", "left"]);
  await finish(page);
});

test("a contender with settings that cannot be drawn is told so at its field, and one that can takes part", async () => {
  const page = await visit(server);
  await challenge(page, { name: "Contenders", begin: "None yet" });
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByText("Nobody takes part yet").waitFor();
  await page.locator("summary", { hasText: "Add a contender" }).click();
  await page.getByLabel("Steps").fill("1000");
  await page.getByRole("button", { name: "Add a contender" }).click();
  const wrong = page.getByLabel("Steps");
  assert.equal(await wrong.getAttribute("aria-invalid"), "true");
  assert.match(await page.locator(".field", { has: wrong }).innerText(), /less than or equal to 30/);
  await shot(page, "arena-contender", { fullPage: true });
  await wrong.fill("2");
  await page.getByLabel("Model").selectOption("local/z-image-turbo");
  await page.getByLabel("Name in this challenge").fill("by the gateway");
  await page.getByRole("button", { name: "Add a contender" }).click();
  await page.getByRole("rowheader", { name: "by the gateway" }).waitFor();
  await page.locator("#progress progress").waitFor({ state: "detached", ...PATIENCE });
  assert.match(await page.getByRole("row", { name: "by the gateway" }).innerText(), /2 \/ 2/);
  await finish(page);
});

test("it works without scripts", async () => {
  const page = await visit(server, { javaScriptEnabled: false });
  await challenge(page, { name: "Plain" });
  await page.getByRole("button", { name: "Create" }).click();
  for (let tried = 0; tried < 400 && (await page.locator("#progress progress").count()) > 0; tried++) {
    await page.waitForTimeout(300);
    await page.reload();
  }
  await page.getByRole("link", { name: "Vote" }).click();
  await page.getByRole("button", { name: "Both bad" }).click();
  await page.getByRole("heading", { name: "You said: Both bad." }).waitFor();
  clean(page);
  await page.context().close();
});

test("on a phone, in the dark, in Chinese", async () => {
  const page = await visit(server, { view: PHONE, colorScheme: "dark", locale: "zh-CN", hasTouch: true, isMobile: true, path: "/arena" });
  await page.locator(".challenges a", { hasText: "Contenders" }).first().waitFor();
  await shot(page, "arena-phone-dark");
  await page.locator(".challenges .card", { hasText: "Plain" }).getByRole("link", { name: "投票" }).tap();
  await page.getByRole("heading", { name: "哪一张更好？" }).waitFor();
  await page.locator(".duel img").first().evaluate((each) => each.decode());
  await shot(page, "arena-vote-phone-dark");
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= PHONE.width, `the page is ${width} wide`);
  await page.getByRole("button", { name: "左边更好" }).tap();
  await page.getByRole("heading", { name: "您的选择：左边更好。" }).waitFor();
  await finish(page);
});
