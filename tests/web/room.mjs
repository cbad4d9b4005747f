// A server of the real binary and a browser in front of it. Whatever a page breaks — its content policy, a script, a rule of
// accessibility — fails the test that looks at it.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const binary = process.env.ZOETROPE ?? join(root, "target/debug/zoetrope");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Pictures for the documentation are written where this says so, and nowhere else. */
const shots = process.env.ZOETROPE_SCREENSHOTS;

export const DESKTOP = { width: 1280, height: 860 };
export const PHONE = { width: 390, height: 844 };
/** Small enough for the embedded model to be quick on any machine. */
export const SIDE = 192;
/** A loaded machine draws slowly. */
export const PATIENCE = { timeout: 120_000 };

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function environment() {
  const own = Object.entries(process.env).filter(([name]) => !/^(FAL_|ZOETROPE_|HTTPS?_PROXY|ALL_PROXY|NO_PROXY)/i.test(name));
  return Object.fromEntries(own);
}

/** A running server with a folder of its own. */
export class Server {
  static async start(...flags) {
    const server = new Server();
    server.folder = mkdtempSync(join(tmpdir(), "zoetrope-web-"));
    if (flags.includes("--require-keys")) server.key = server.run("keys", "create", "--alias", "web", "--json");
    await server.listen(flags);
    return server;
  }

  run(...args) {
    return execFileSync(binary, [...args, "--data-dir", this.folder], { env: environment(), encoding: "utf8" });
  }

  async listen(flags) {
    const port = await freePort();
    this.url = `http://127.0.0.1:${port}`;
    const log = openSync(join(this.folder, "log"), "a");
    const args = ["serve", "--data-dir", this.folder, "--listen", `127.0.0.1:${port}`, "--tls-listen", "off", ...flags];
    this.process = spawn(binary, args, { env: environment(), stdio: ["ignore", log, log] });
    for (let tried = 0; tried < 600; tried++) {
      const ready = await fetch(`${this.url}/readyz`).then((answer) => answer.ok, () => false);
      if (ready) return;
      if (this.process.exitCode !== null) break;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`the server does not answer: ${readFileSync(join(this.folder, "log"), "utf8").slice(-2000)}`);
  }

  async stop() {
    const gone = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGTERM");
    await gone;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

let browser;

/** The one browser of this process; Debian's, or the one that CHROMIUM names. */
export async function open() {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf8" }).trim(),
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  return browser;
}

export async function close() {
  await browser?.close();
  browser = undefined;
}

/** A page whose mistakes are collected; [`finish`] fails on them. */
export async function visit(server, { path = "/", view = DESKTOP, ...options } = {}) {
  const context = await (await open()).newContext({ viewport: view, baseURL: server.url, locale: "en-GB", ...options });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.mistakes = [];
  page.foreign = [];
  page.on("pageerror", (error) => page.mistakes.push(String(error)));
  page.on("console", (message) => {
    const text = message.text();
    // What a form refuses with 422 is meant, and Chromium calls it an error.
    if (message.type() === "error" && !/status of 4\d\d/.test(text)) page.mistakes.push(text);
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(server.url) && !/^(data|blob|about):/.test(url)) page.foreign.push(url);
  });
  await page.goto(path);
  return page;
}

/** Nothing went wrong on `page`, nothing was asked of other sites, and it can be used by everybody. */
export async function finish(page) {
  await accessible(page);
  clean(page);
  await page.context().close();
}

export function clean(page) {
  assert.deepEqual(page.mistakes, []);
  assert.deepEqual(page.foreign, []);
}

/** WCAG 2.2, levels A and AA, by axe-core. */
export async function accessible(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const { violations } = await globalThis.axe.run(document, { runOnly: { type: "tag", values: tags } });
    return violations.map((each) => ({ rule: each.id, help: each.help, nodes: each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)) }));
  });
  assert.deepEqual(found, [], `${page.url()} breaks rules of accessibility`);
}

/** Writes what `page` looks like now, where somebody asked for pictures. */
export async function shot(page, name, options = {}) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`), animations: "disabled", ...options });
}

/** Fills the form in for a small picture and sends it; waits for the end. */
export async function generate(page, prompt, fields = {}) {
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  await small(page);
  for (const [label, value] of Object.entries(fields)) await page.getByLabel(label, { exact: true }).fill(String(value));
  await page.getByRole("button", { name: "Generate" }).click();
  await page.locator("#result .run[data-done=true] img").first().waitFor(PATIENCE);
}

/** Chooses a size that is quickly drawn. */
export async function small(page, side = SIDE) {
  await page.locator(".shape", { hasText: "Custom" }).click();
  await page.getByLabel("Width").fill(String(side));
  await page.getByLabel("Height").fill(String(side));
}

/** Pictures that were drawn, by fal's API: quicker to have than by hand. */
export async function drawn(server, prompts, input = {}, headers = {}) {
  const answers = [];
  for (const prompt of prompts) {
    const body = JSON.stringify({ prompt, image_size: { width: 96, height: 96 }, num_inference_steps: 2, ...input });
    const answer = await fetch(`${server.url}/fal-ai/z-image/turbo`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body,
    });
    assert.equal(answer.status, 200, await answer.clone().text());
    answers.push(await answer.json());
  }
  return answers;
}
