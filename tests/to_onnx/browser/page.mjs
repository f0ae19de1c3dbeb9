// What runs in the page: the jobs that the server holds, one after the other, by WebAssembly alone.
import * as transformers from "/npm/@huggingface/transformers/dist/transformers.min.js";
import { generate } from "/greedy.mjs";

const { env } = transformers;
const runtime = `${location.origin}/npm/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify`;
env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = "/folders/";
env.useBrowserCache = false;
env.backends.onnx.wasm.wasmPaths = { mjs: `${runtime}.mjs`, wasm: `${runtime}.wasm` };

const jobs = await (await fetch("/jobs")).json();
const results = [];
for (const [number, job] of jobs.entries()) {
  const done = generate(transformers, String(number), "wasm", job);
  results.push(await done.catch((error) => ({ error: String(error) })));
}
await fetch("/results", { method: "POST", body: JSON.stringify(results) });
