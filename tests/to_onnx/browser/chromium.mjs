// A Chromium that runs here: the one that CHROMIUM names, else the system's, else npm's, which needs no root. usage: node chromium.mjs,
// where @sparticuz/chromium is installed, unpacks npm's; find() gives {command, env}, or {missing: why none runs}.
import { spawnSync } from "node:child_process";
import { chmodSync, createReadStream, createWriteStream, existsSync, mkdirSync, renameSync } from "node:fs";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { createBrotliDecompress } from "node:zlib";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const PACKED = path.resolve("node_modules/@sparticuz/chromium/bin");
const UNPACKED = path.resolve("chromium");
const LIBRARIES = path.join(UNPACKED, "lib"); // of which a small system has not all

export async function find() {
  const named = process.env.CHROMIUM;
  const system = named ? [named] : NAMES.flatMap((name) => (process.env.PATH ?? "").split(path.delimiter).map((folder) => path.join(folder, name)));
  const tries = system.filter((command) => existsSync(command)).map((command) => ({ command, env: process.env }));
  if (!named && existsSync(PACKED)) {
    const command = await unpacked();
    tries.push({ command, env: process.env }, { command, env: { ...process.env, LD_LIBRARY_PATH: LIBRARIES } });
  }
  let missing = named ? `${named} is not there` : "no Chromium: `make clients` brings npm's, or name one in CHROMIUM";
  for (const one of tries) {
    const done = spawnSync(one.command, ["--version"], { env: one.env, encoding: "utf8", timeout: 20000 });
    if (done.status === 0) return one;
    missing = `${one.command} does not run: ${(done.error?.message ?? done.stderr).trim().split("\n")[0]}`;
  }
  return { missing };
}

// the binary, unpacked once
async function unpacked() {
  const command = path.join(UNPACKED, "chromium");
  if (existsSync(command)) return command;
  mkdirSync(LIBRARIES, { recursive: true });
  const part = path.join(UNPACKED, `part-${process.pid}`);
  await unpack(path.join(PACKED, "al2023.tar.br"), `${part}.tar`);
  spawnSync("tar", ["-xf", `${part}.tar`, "-C", UNPACKED]);
  await unpack(path.join(PACKED, "chromium.br"), part);
  chmodSync(part, 0o755);
  renameSync(part, command);
  return command;
}

function unpack(from, to) {
  return pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { missing } = await find();
  if (missing) console.log(`no test in a browser: ${missing}`);
}
