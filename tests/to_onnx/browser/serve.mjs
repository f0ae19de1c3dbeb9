// A server on 127.0.0.1 for one page: the page itself, npm's packages, the folders of the jobs, and nothing else.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const PACKAGES = ["@huggingface/transformers/dist", "onnxruntime-web/dist"];
const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript", ".json": "application/json", ".wasm": "application/wasm" };
// threads share memory, which a page may do that is isolated from others
const HEADERS = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "Cache-Control": "no-store" };
const PAGE = '<!doctype html><script type="module">import("/page.mjs").catch((error) => fetch("/failed", { method: "POST", body: String(error) }));</script>';

// {url, results (a promise of what the page posts), close}
export async function serve(jobs) {
  let settle;
  const results = new Promise((resolve, reject) => { settle = { resolve, reject }; });
  const server = createServer((request, response) => {
    answer(request, response, jobs, settle).catch((error) => { response.writeHead(500); response.end(String(error)); });
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  const close = () => { server.closeAllConnections(); server.close(); };
  return { url: `http://127.0.0.1:${server.address().port}/`, results, close };
}

async function answer(request, response, jobs, settle) {
  const place = decodeURIComponent(new URL(request.url, "http://127.0.0.1").pathname);
  if (request.method === "POST") {
    const text = await read(request);
    response.writeHead(204).end();
    if (place === "/results") settle.resolve(JSON.parse(text));
    else settle.reject(new Error(text));
    return;
  }
  if (place === "/") return void response.writeHead(200, { ...HEADERS, "Content-Type": TYPES[".html"] }).end(PAGE);
  if (place === "/jobs") return void response.writeHead(200, { ...HEADERS, "Content-Type": TYPES[".json"] }).end(JSON.stringify(jobs));
  const file = fileOf(place, jobs);
  const found = file && (await stat(file).catch(() => null));
  if (!found?.isFile()) return void response.writeHead(404, HEADERS).end();
  const type = TYPES[path.extname(file)] ?? "application/octet-stream";
  response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": found.size });
  createReadStream(file).pipe(response);
}

function fileOf(place, jobs) {
  if (place === "/page.mjs") return path.join(HERE, "page.mjs");
  if (place === "/greedy.mjs") return path.join(HERE, "..", "greedy.mjs");
  const [, room, ...rest] = place.split("/");
  if (rest.includes("..")) return null;
  if (room === "npm") return PACKAGES.some((name) => rest.join("/").startsWith(`${name}/`)) ? path.join(process.cwd(), "node_modules", ...rest) : null;
  return room === "folders" && jobs[rest[0]] ? path.join(jobs[rest[0]].folder, ...rest.slice(1)) : null;
}

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}
