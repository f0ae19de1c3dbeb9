// Greedy ids by transformers.js. usage: node generate.mjs '[{"folder": F, "prompts": [P, ...], "tokens": N}, ...]', run in
// the folder where @huggingface/transformers is installed; prints [{"prompt": [ids, ...], "ids": [ids, ...]} or {"error": text}, ...].
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const { resolve } = createRequire(path.join(process.cwd(), "package.json"));
const { AutoModelForCausalLM, AutoTokenizer, env } = await import(pathToFileURL(resolve("@huggingface/transformers")));
env.allowRemoteModels = false;

async function generate({ folder, prompts, tokens }) {
  env.localModelPath = path.dirname(folder);
  const tokenizer = await AutoTokenizer.from_pretrained(path.basename(folder));
  const model = await AutoModelForCausalLM.from_pretrained(path.basename(folder), { device: "cpu" });
  tokenizer.padding_side = "left";
  const inputs = tokenizer(prompts, { padding: prompts.length > 1 });
  const length = inputs.input_ids.dims.at(-1);
  const rows = (await model.generate({ ...inputs, max_new_tokens: tokens, do_sample: false })).tolist();
  const masks = inputs.attention_mask.tolist();
  const result = {
    prompt: rows.map((row, n) => row.slice(0, length).filter((_, i) => masks[n][i]).map(Number)),
    ids: rows.map((row) => row.slice(length).map(Number)),
  };
  await model.dispose();
  return result;
}

const results = [];
for (const job of JSON.parse(process.argv[2])) {
  results.push(await generate(job).catch((error) => ({ error: String(error) })));
}
console.log(JSON.stringify(results));
