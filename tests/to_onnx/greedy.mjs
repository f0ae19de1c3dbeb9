// Greedy ids of one job by transformers.js, the same in Node and in a browser: {"prompts": [P, ...], "tokens": N, "dtype": D or none}
// -> {"prompt": [ids, ...], "ids": [ids, ...]}. name: of the folder under env.localModelPath.
export async function generate({ AutoModelForCausalLM, AutoTokenizer }, name, device, { prompts, tokens, dtype }) {
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await AutoModelForCausalLM.from_pretrained(name, dtype ? { device, dtype } : { device });
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
