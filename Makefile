# Two commands need nothing but Python 3.11+ and the network's package registry: make demo, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= edgekd-demo

.PHONY: install system demo test lint types contracts wheel check constraints clean

install: $(VENV)/.installed

# torch first and by its pin: asked for by another package, pip would take the newest build with its CUDA libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[compress,dev]'
	@touch $@

# What some tests drive and a person has or has not: a real sshd, an emulated Arm core, a compiler for its counter.
SYSTEM := openssh-server openssh-client qemu-user gcc libc6-dev
system:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		dpkg -s $(SYSTEM) >/dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $(SYSTEM) >/dev/null; }; \
	else echo "make system: needs root and apt; tests that lack a program are skipped: $(SYSTEM)"; fi

demo: install
	$(BIN)/edgekd demo --out $(OUT) --resume

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

wheel: install
	rm -rf dist build
	$(BIN)/python -m build -q --wheel
	$(BIN)/check-wheel-contents dist/*.whl

check: lint types contracts wheel test

constraints: install
	@echo "# Exact versions that make, the tests and CI install; pyproject.toml has the ranges. Renew with: make constraints"
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'

clean:
	rm -rf $(VENV) build dist *.egg-info
