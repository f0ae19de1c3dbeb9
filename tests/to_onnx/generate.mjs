// Greedy ids by transformers.js. usage: node generate.mjs '[{"folder": F, "prompts": [P, ...], "tokens": N}, ...]', run in
// the folder where @huggingface/transformers is installed; prints [{"prompt": [ids, ...], "ids": [ids, ...]} or {"error": text}, ...].
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { generate } from "./greedy.mjs";

const { resolve } = createRequire(path.join(process.cwd(), "package.json"));
const transformers = await import(pathToFileURL(resolve("@huggingface/transformers")));
transformers.env.allowRemoteModels = false;

const results = [];
for (const { folder, ...job } of JSON.parse(process.argv[2])) {
  transformers.env.localModelPath = path.dirname(folder);
  const done = generate(transformers, path.basename(folder), "cpu", job);
  results.push(await done.catch((error) => ({ error: String(error) })));
}
console.log(JSON.stringify(results));
