# Everything that a fresh clone needs; `make` alone lists the targets. GNU make 3.81 (macOS) and newer.
#
#   make test PYTHON=python3.12         build .venv with this Python (default: the first of python3, python3.13,
#                                       python3.12, python3.11 that is 3.11 to 3.13)
#   make quickstart TORCH_INDEX=URL     a further package index, used when .venv is filled: PyTorch's CPU wheel index
#                                       spares a Linux machine without GPU gigabytes (address: pytorch.org/get-started)
#   make quickstart ARGS="--data ..."   options of `firstlight quickstart`
#   make test WORKERS=8 TESTS=tests/model   processes that share the tests; which tests

PYTHON ?=
TORCH_INDEX ?=
ARGS =
TESTS =
WORKERS = 2

ENVIRONMENT = @PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/environment.sh
BIN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow lint bench format docs clean-venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: ## real text to a trained, evaluated, exported model in under ten minutes
	$(ENVIRONMENT) starter
	@$(BIN)/firstlight quickstart $(ARGS)

test: lint ## lint, types, import contract, tests (not the slow ones)
	@$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal $(TESTS)

test-slow: ## the tests that `make test` leaves out because they take long
	$(ENVIRONMENT) starter,test
	@$(BIN)/python -m pytest -m slow $(TESTS)

lint: ## lint, types and import contract only
	$(ENVIRONMENT) starter,test
	@echo "ruff, mypy, import contract"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "some files are not formatted; run: make format"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: ## the figures that the documentation quotes, each beside a peer
	$(ENVIRONMENT) bench
	@for script in benchmarks/*.py; do \
	    case "$$script" in */common.py | */on_ranks.py) continue ;; esac; \
	    echo; echo "$$script"; \
	    $(BIN)/python "$$script" || exit 1; \
	done

format: ## format the code and mend what the linter can mend
	$(ENVIRONMENT) starter,test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: ## build the documentation site into site/
	$(ENVIRONMENT) docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

clean-venv: ## remove .venv
	@rm -rf .venv
