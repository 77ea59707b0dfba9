# The two commands to know: `make demo` and `make test`. Each makes .venv if need be.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
NATIVE := $(wildcard src/throughtime/engine/native/*)
MISSING := 'from scikit_build_core.build import get_requires_for_build_editable as missing; print(*missing())'

.PHONY: demo test check faults sanitize bench format clean

demo: $(READY)  ## train on the text that Python carries, for two minutes
	$(BIN)/throughtime train --recipe demo

test: $(READY)  ## all tests
	$(BIN)/python -m pytest

check: $(READY)  ## format, lint, types, the layout
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror $(NATIVE)
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/layout

faults: $(READY)  ## kills, power cuts, full disks, damages; figures for docs/reliability.md, for some minutes
	PYTHONPATH=tests $(BIN)/python tests/faults/table.py
	$(BIN)/python -m pytest -m slow

sanitize: build/sanitized-address build/sanitized-thread  ## kernels and C library, watched for wrong memory and races; needs GCC

bench: $(READY)  ## figures for docs/benchmarks, on a machine that does nothing else, for hours
	$(BIN)/python benchmarks/text.py
	$(BIN)/python benchmarks/output.py
	$(BIN)/python benchmarks/layer.py --peers
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/processes.py
	$(BIN)/python benchmarks/shards.py
	$(BIN)/python benchmarks/compress.py

format: $(READY)  ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(NATIVE)

clean:  ## remove what make made; runs stay
	rm -rf $(VENV) build src/throughtime/engine/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Memory is another matter for each length of a vector; races are between threads, whatever the instruction set.
build/sanitized-address: SANITIZE = address,undefined
build/sanitized-address: LIBRARY = libasan.so
build/sanitized-address: LEVELS = portable;avx512bf16;avx512fp16
build/sanitized-address: AND = fork
build/sanitized-address: INPUTS = 10000
build/sanitized-thread: SANITIZE = thread
build/sanitized-thread: LIBRARY = libtsan.so
build/sanitized-thread: LEVELS = portable
build/sanitized-thread: INPUTS = 300

# Python gives back little of its memory at its end: what leaks cannot be told.
.PHONY: build/sanitized-address build/sanitized-thread
build/sanitized-address build/sanitized-thread: $(READY)
	rm -rf $@
	$(INSTALL) --no-deps --no-build-isolation --target $@ --config-settings=build-dir=$@-objects \
	  --config-settings=install.strip=false --config-settings=cmake.define.THROUGHTIME_SANITIZE=$(SANITIZE) \
	  --config-settings='cmake.define.THROUGHTIME_LEVELS=$(LEVELS)' .
	LD_PRELOAD=$$($(CXX) -print-file-name=$(LIBRARY)) PYTHONPATH=$@:tests ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(BIN)/python tests/engine/sanitize.py $(AND)
	$(BIN)/python tests/engine/fuzz/models.py $@/fuzz
	$(CXX) -std=c++17 -g1 -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -Isrc/throughtime/include \
	  tests/engine/fuzz/fuzz.cpp $@/throughtime/lib/libthroughtime.a -lpthread -ldl -o $@/fuzz/fuzz
	ASAN_OPTIONS=detect_leaks=0:max_allocation_size_mb=256 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  $@/fuzz/fuzz $(INPUTS) $@/fuzz $@/fuzz/*.bin

# The tools of the build lie in .venv, so that what it compiled last time still counts; cmake and ninja only where the
# machine has none.
$(READY): pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) scikit-build-core
	$(INSTALL) nanobind numpy $$($(BIN)/python -c $(MISSING))
	$(INSTALL) --no-build-isolation --config-settings=build-dir=build -e '.[train,dev]'
	touch $(READY)
