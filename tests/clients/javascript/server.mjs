// The real binary, started on free ports with a folder of its own.

import { execFile, spawn } from "node:child_process";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const ROOT = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../../..");
export const BINARY = process.env.ZOETROPE ?? join(ROOT, "target/debug/zoetrope");
const START_MS_MAX = 60_000;

async function freePort() {
  const listener = createServer();
  await new Promise((ready) => listener.listen(0, "127.0.0.1", ready));
  const { port } = listener.address();
  await new Promise((closed) => listener.close(closed));
  return port;
}

/** This process's variables without those that point at a server or a proxy. */
export function cleanEnvironment() {
  const pointing = /^(FAL_|ZOETROPE_|SSL_CERT|NODE_|(HTTP|HTTPS|ALL|NO)_PROXY$)/i;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !pointing.test(name)));
}

/** A `zoetrope serve` process with its `url` and `data` folder; `stop()` waits until it has ended. */
export async function startServer(...flags) {
  const folder = await mkdtemp(join(tmpdir(), "zoetrope-js-"));
  const [port, tlsPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const data = join(folder, "data");
  const listen = ["--listen", `127.0.0.1:${port}`, "--tls-listen", `127.0.0.1:${tlsPort}`];
  const log = await open(join(folder, "server.log"), "a");
  const child = spawn(BINARY, ["serve", ...listen, "--data-dir", data, ...flags], {
    stdio: ["ignore", log.fd, log.fd],
    env: cleanEnvironment(),
  });
  const ended = new Promise((done) => child.on("exit", (code, signal) => done(code ?? signal)));
  const said = () => readFile(join(folder, "server.log"), "utf8");
  const stop = async () => {
    child.kill("SIGTERM");
    const status = await ended;
    const text = await said();
    await log.close();
    await rm(folder, { recursive: true });
    if (status !== 0) throw new Error(`the server ended with ${status}:\n${text}`);
  };
  const deadline = Date.now() + START_MS_MAX;
  while (Date.now() < deadline && child.exitCode === null) {
    const ready = await fetch(`${url}/readyz`).catch(() => undefined);
    if (ready?.ok) return { url, data, stop };
    await sleep(50);
  }
  child.kill("SIGKILL");
  throw new Error(`the server did not answer:\n${await said()}`);
}

/** Another subcommand of the binary; what it printed. */
export async function zoetrope(...args) {
  const { stdout } = await promisify(execFile)(BINARY, args, { env: cleanEnvironment(), maxBuffer: 1 << 26 });
  return stdout;
}
