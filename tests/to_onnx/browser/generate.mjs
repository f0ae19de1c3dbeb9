// Greedy ids by transformers.js in a headless Chromium: as ../generate.mjs, which see; with --check, why no Chromium runs here, or nothing.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { find } from "./chromium.mjs";
import { serve } from "./serve.mjs";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-zygote",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-pings",
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", // no name leads into a network
];

async function run(jobs, { command, env }) {
  const server = await serve(jobs);
  const profile = mkdtempSync(path.join(tmpdir(), "browser-"));
  const browser = spawn(command, [...FLAGS, `--user-data-dir=${profile}`, server.url], { env, stdio: ["ignore", "ignore", "pipe"], detached: true });
  let said = "";
  browser.stderr.on("data", (data) => { said = (said + data).slice(-4000); });
  const gone = new Promise((resolve) => { browser.once("exit", resolve); });
  const early = gone.then((code) => { throw new Error(`the browser ended (${code}): ${said}`); });
  try {
    return await Promise.race([server.results, early]);
  } finally {
    early.catch(() => {});
    process.kill(-browser.pid, "SIGKILL"); // and what it started, which is its group
    await gone;
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

const found = await find();
if (process.argv[2] === "--check") console.log(found.missing ?? "");
else if (found.missing) throw new Error(found.missing);
else console.log(JSON.stringify(await run(JSON.parse(process.argv[2]), found)));
