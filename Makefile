# The two commands to know: `make demo` and `make test`. Each makes .venv if need be.

SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DEMO_READY := $(VENV)/demo-ready
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --no-compile -c constraints.txt
INSTALL := $(PIP_INSTALL) --quiet
NATIVE := $(wildcard src/throughtime/engine/native/*)

.PHONY: demo test check faults sanitize bench format clean

demo: $(or $(wildcard $(READY)),$(DEMO_READY))  ## train on the text that Python carries, for two minutes
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
	$(BIN)/python benchmarks/lengths.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/processes.py
	$(BIN)/python benchmarks/shards.py
	$(BIN)/python benchmarks/compress.py
	$(BIN)/python benchmarks/validation.py

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

# The demo, and the commands that the readme shows after it, need PyTorch and the kernels that the engine chooses on this
# processor. The other targets need the development tools too, and the kernels of all levels. What either has made, the
# other takes over.
$(DEMO_READY): EXTRAS := train compress
$(DEMO_READY): KERNELS := native
$(DEMO_READY): COMPILE_TIME := a minute
$(READY): EXTRAS := train compress dev
$(READY): KERNELS := all
$(READY): COMPILE_TIME := two and a half minutes

# The tools of the build lie in .venv, so that what it compiled last time still counts. What is largest to install and
# what takes longest to compile are done side by side.
$(DEMO_READY) $(READY): pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	@echo "Installing the build tools into $(VENV): ten seconds"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) scikit-build-core
	@$(INSTALL) nanobind numpy $$($(BIN)/python -c $(MISSING))
	@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j2) packages kernels \
	  EXTRAS='$(EXTRAS)' KERNELS='$(KERNELS)' COMPILE_TIME='$(COMPILE_TIME)'
	@$(INSTALL) --no-deps --no-build-isolation $(addprefix --config-settings=,$(SETTINGS)) -e .
	@touch $@

SETTINGS = build-dir=build cmake.args=--log-level=NOTICE cmake.define.THROUGHTIME_LEVELS=$(KERNELS)
# cmake and ninja, where the machine has none
MISSING := 'from scikit_build_core.build import get_requires_for_build_editable as missing; print(*missing())'
COMPILE := 'import signal, sys; from scikit_build_core.build import build_editable as compile; \
  signal.signal(signal.SIGINT, signal.SIG_DFL); \
  compile("build", dict(setting.split("=", 1) for setting in sys.argv[1:]))'
WANTED := 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*project["dependencies"], *(name for extra in sys.argv[1:] for name in project["optional-dependencies"][extra]))'

.PHONY: packages kernels
packages:
	@echo "Installing PyTorch and other packages ($(EXTRAS)): half a minute, plus the download of what pip has not cached"
	@set -o pipefail; $(PIP_INSTALL) --progress-bar off $$($(BIN)/python -c $(WANTED) $(EXTRAS)) \
	  | { grep --line-buffered -o 'Downloading .* MB)' || true; }
	@echo "Packages installed"

kernels:
	@echo "Compiling the engine (levels: $(KERNELS)): $(COMPILE_TIME) on two cores"
	@TERM=dumb $(BIN)/python -c $(COMPILE) $(SETTINGS)
	@echo "Build of the engine finished"
