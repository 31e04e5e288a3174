# Everything runs in .venv, made from requirements.lock. A fresh machine needs Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: help demo test lint format check game-check stripe-check openapi lock binary clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

$(STAMP): requirements.lock setup.py
	@command -v $(PYTHON) >/dev/null || { echo "controlplane needs Python 3.11 ($(PYTHON) is not on the PATH; PYTHON=… names another)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: $(STAMP)  ## a control plane with three real agents on loopback (PORT=8080, DATA_DIR=demo-data)
	$(BIN)/python run.py demo --port $(or $(PORT),8080) --data-dir $(or $(DATA_DIR),demo-data)

test: $(STAMP)  ## every test but those of the real game server and of stripe-mock
	$(BIN)/pytest -m "not game and not stripe_mock"

game-check: $(STAMP)  ## a real OpenTTD dedicated server under the reference agent
	$(BIN)/pytest -m game tests/game

stripe-check: $(STAMP)  ## our requests and the fake Stripe's answers, judged by Stripe's own stripe-mock (needs Go)
	.ci/stripe-check

lint: $(STAMP)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the layout of the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(STAMP)  ## rewrite docs/openapi.json from the route table
	$(BIN)/python run.py openapi > docs/openapi.json

lock:  ## pin what setup.py allows, for CI and the binary
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-header --extra dev --output-file requirements.lock setup.py

binary: $(STAMP)  ## dist/controlplane, one file
	$(BIN)/pyinstaller --noconfirm --clean --log-level WARN --onefile --name controlplane --add-data static:static --collect-data stripe run.py

clean:  ## remove what is built, but no data
	rm -rf build dist *.egg-info $(VENV)
