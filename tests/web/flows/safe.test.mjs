// What must not happen: hostile prompts, other sites, strangers; and what a first visit weighs.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PATIENCE, Server, clean, close, drawn, finish, shot, visit } from "../room.mjs";

let server;
let locked;

before(async () => {
  server = await Server.start();
});
after(async () => {
  await close();
  await server.stop();
  await locked?.stop();
});

const PAGES = ["/playground", "/gallery", "/models", "/arena", "/performance", "/training", "/sign-in", "/nothing"];

test("no page lets anything inline run, or asks other sites for anything", async () => {
  for (const path of PAGES) {
    const answer = await fetch(server.url + path, { headers: { Accept: "text/html" } });
    const policy = answer.headers.get("content-security-policy");
    assert.match(policy, /default-src 'none'/, path);
    assert.ok(!/unsafe|\*|https?:/.test(policy), policy);
    const html = await answer.text();
    assert.ok(!/<script(?![^>]*\ssrc=)/.test(html), `${path} has a script inside`);
    assert.ok(!/<[^>]+\sstyle=/.test(html), `${path} has a style inside`);
    assert.ok(!/(src|href|action)="(https?:)?\/\//.test(html), `${path} leads elsewhere`);
  }
});

test("a prompt is text, whatever is in it", async () => {
  const hostile = `"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'; DROP TABLE pictures; --`;
  await drawn(server, [hostile]);
  for (const path of ["/gallery", "/playground/recent", `/playground?prompt=${encodeURIComponent(hostile)}`, `/gallery?q=${encodeURIComponent(hostile)}`]) {
    const page = await visit(server, { path });
    await page.waitForTimeout(200);
    assert.equal(await page.evaluate(() => window.hacked), undefined, path);
    clean(page);
    await page.context().close();
  }
});

test("what changes anything comes from these pages alone", async () => {
  const send = (headers) => fetch(`${server.url}/settings`, { method: "POST", redirect: "manual", headers, body: new URLSearchParams({ theme: "dark" }) });
  assert.equal((await send({})).status, 403);
  assert.equal((await send({ "Sec-Fetch-Site": "cross-site", Origin: "http://evil.example" })).status, 403);
  assert.equal((await send({ Origin: "http://evil.example" })).status, 403);
  assert.equal((await send({ Origin: server.url })).status, 303);
});

test("programs get what they always got", async () => {
  const index = await (await fetch(server.url)).json();
  assert.equal(index.name, "zoetrope");
  const missing = await fetch(`${server.url}/nothing`);
  assert.equal(missing.status, 404);
  assert.equal((await missing.json()).detail, "Path /nothing not found");
});

test("language and theme are chosen, and stay", async () => {
  const page = await visit(server, { path: "/gallery" });
  await page.locator(".top .menu summary").click();
  await page.getByRole("button", { name: "中文" }).click();
  assert.equal(await page.locator("html").getAttribute("lang"), "zh");
  assert.match(page.url(), /\/gallery$/);
  await page.locator(".top .menu summary").click();
  await page.getByRole("button", { name: "深色" }).click();
  assert.equal(await page.locator("html").getAttribute("data-theme"), "dark");
  assert.equal(await page.locator("h1").innerText(), "画廊");
  await finish(page);
});

test("who has a key signs in, sees their own alone, and signs out", async () => {
  locked = await Server.start("--require-keys");
  const { key } = JSON.parse(locked.key);
  const other = JSON.parse(locked.run("keys", "create", "--alias", "other", "--json")).key;
  await drawn(locked, ["of the other"], {}, { Authorization: `Key ${other}` });
  await drawn(locked, ["my own"], {}, { Authorization: `Key ${key}` });
  const page = await visit(locked, { path: "/gallery" });
  assert.match(page.url(), /\/sign-in\?back=/);
  await page.getByLabel("Key").fill("0123456789abcdef:wrong");
  await page.locator("main").getByRole("button", { name: "Sign in" }).click();
  await page.getByText("This key is not known here").waitFor();
  await shot(page, "sign-in");
  await page.getByLabel("Key").fill(key);
  await page.locator("main").getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(/\/gallery$/);
  assert.deepEqual(await page.locator("a.open img").evaluateAll((images) => images.map((image) => image.alt)), ["my own"]);
  const [session] = (await page.context().cookies()).filter((cookie) => cookie.name === "zoetrope_session");
  assert.ok(session.httpOnly && session.sameSite === "Lax");
  assert.equal(await page.evaluate(() => document.cookie), "");
  await page.goto("/playground");
  await page.getByLabel("Prompt", { exact: true }).fill("a house");
  await page.locator(".shape", { hasText: "Custom" }).click();
  await page.getByLabel("Width").fill("96");
  await page.getByLabel("Height").fill("96");
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#result .run[data-done=true] img").waitFor(PATIENCE);
  await page.locator(".top .menu summary").click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.goto("/gallery");
  assert.match(page.url(), /\/sign-in/);
  await finish(page);
  const forged = await fetch(`${locked.url}/gallery`, { redirect: "manual", headers: { Accept: "text/html", Cookie: "zoetrope_session=zt.e30.x" } });
  assert.equal(forged.status, 303);
});

test("a first visit is light, and what is pressed answers at once", async () => {
  const page = await visit(server, { path: "about:blank" });
  const client = await page.context().newCDPSession(page);
  await client.send("Network.enable");
  let bytes = 0;
  client.on("Network.loadingFinished", (event) => (bytes += event.encodedDataLength));
  const figures = {};
  for (const path of ["/playground", "/gallery", "/models"]) {
    bytes = 0;
    await client.send("Network.clearBrowserCache");
    await page.goto(server.url + path, { waitUntil: "networkidle" });
    const times = await page.evaluate(
      () =>
        new Promise((resolve) => {
          const found = { shift: 0, blocked: 0 };
          new PerformanceObserver((list) => list.getEntries().forEach((each) => (found.largest = each.startTime))).observe({ type: "largest-contentful-paint", buffered: true });
          new PerformanceObserver((list) => list.getEntries().forEach((each) => (found.shift += each.value))).observe({ type: "layout-shift", buffered: true });
          new PerformanceObserver((list) => list.getEntries().forEach((each) => (found.blocked += Math.max(0, each.duration - 50)))).observe({ type: "longtask", buffered: true });
          setTimeout(() => {
            found.first = performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
            resolve(found);
          }, 300);
        }),
    );
    const pictures = await page.evaluate(() =>
      performance.getEntriesByType("resource").filter((each) => each.initiatorType === "img").reduce((sum, each) => sum + each.transferSize, 0),
    );
    figures[path] = { kilobytes: (bytes - pictures) / 1000, ...times };
    assert.ok(bytes - pictures <= 100_000, `${path} takes ${bytes - pictures} bytes`);
    assert.ok(times.shift <= 0.1, `${path} shifts by ${times.shift}`);
  }
  await page.goto(`${server.url}/playground`);
  const took = await page.evaluate(
    () =>
      new Promise((resolve) => {
        const begun = performance.now();
        document.querySelector("details.more > summary").click();
        document.querySelector("[data-dice]").click();
        document.querySelector(".shape input[value=custom]").click();
        requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - begun)));
      }),
  );
  figures.interaction = took;
  console.log(JSON.stringify(figures));
  assert.ok(took <= 100, `what was pressed took ${took} ms`);
  await page.context().close();
});
