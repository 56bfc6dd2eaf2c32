# Every target builds the virtual environment that it needs; python3 (3.11 or newer) and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SDK := .venv-sdk
ARGS ?=
# The tests start a thousand processes: not each of them is to compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test check dashboards docs bench loadtest loadtest-ui scaling pictures lint types format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# One stamp per set of packages: make run on a fresh machine need not wait for the test tools.
$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stentor needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,loadtest,redis]'
	@touch $@

# The SDKs that the tests use. Without npm those of JavaScript are left out, aloud, and made once it is there.
$(SDK)/.python: tests/sdk/requirements.txt
	test -x $(SDK)/bin/python || $(PYTHON) -m venv $(SDK)
	$(SDK)/bin/pip install --quiet --disable-pip-version-check -r tests/sdk/requirements.txt
	@touch $@

$(SDK)/.node: tests/sdk/package.json
	@mkdir -p $(SDK)
	@cp tests/sdk/package.json $(SDK)/package.json
	@if command -v npm >/dev/null; \
	then npm install --prefix $(SDK) --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@; \
	else echo "npm is missing: the tests of the JavaScript SDK are left out" >&2; fi

run: $(VENV)/.run  ## start the server with its defaults (ARGS="--port 8080" to change them)
	@exec $(BIN)/stentor $(ARGS)

# Most tests wait, and share the machine with one another; what measures has it for itself. Files stay together, with the
# servers that they share.
test: $(VENV)/.dev $(SDK)/.python $(SDK)/.node  ## run the whole test suite (ARGS="-k hub" for a part)
ifeq ($(strip $(ARGS)),)
	@failed=0; \
	$(BIN)/python -m pytest -m alone || failed=1; \
	$(BIN)/python -m pytest -m "not alone" --numprocesses 4 --dist loadfile --no-loadscope-reorder || failed=1; \
	exit $$failed
else
	$(BIN)/python -m pytest $(ARGS)
endif

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

loadtest: $(VENV)/.dev  ## start a server, load it, judge it, leave a report (USERS= RATE= TIME= WORKERS= NODES= BROKER= URL=)
	$(BIN)/python -m loadtest.run $(ARGS)

loadtest-ui: $(VENV)/.dev  ## the same with Locust's web page
	$(BIN)/python -m loadtest.run --ui $(ARGS)

scaling: $(VENV)/.dev  ## raise the load until the promise breaks; what this machine holds, with plots
	$(BIN)/python -m loadtest.scaling $(ARGS)

docs: $(VENV)/.dev  ## write what of docs/ is made from the code: the options, and the picture of the house
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/house.py

pictures: $(VENV)/.dev  ## take the pictures of the README again
	$(BIN)/python docs/pictures.py $(ARGS)
	$(BIN)/python -m dashboards.pictures

dashboards: $(VENV)/.dev  ## write Grafana's dashboards again
	$(BIN)/python -m dashboards.build

bench: $(VENV)/.dev  ## micro-benchmarks and a small race against other Python fan-outs
	$(BIN)/python -m bench $(ARGS)
	$(BIN)/python -m loadtest.bench

check: lint types test  ## lint, types and tests: exactly what CI runs

format: $(VENV)/.dev  ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what make has built
	rm -rf $(VENV) $(SDK) dist build
