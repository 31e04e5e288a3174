# Everything runs in .venv, made from requirements.lock. A fresh machine needs Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
LXD_START ?= ../shared/tools/start-lxd.sh
LXD_FOLDER ?= /tmp/controlplane-lxd

.PHONY: help demo test lint format check game-check lxd-check browser-check ide-check stripe-check billing-month openapi lock \
	binary binary-check clean

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

test: $(STAMP)  ## every test that needs nothing but Python: the rest are the checks below
	$(BIN)/pytest -m "not game and not browser and not binary and not lxd and not ide and not stripe_mock" -n 4 --dist worksteal

game-check: $(STAMP)  ## a real OpenTTD dedicated server under the reference agent
	$(BIN)/pytest -m game tests/game

lxd-check: $(STAMP)  ## containers of a real LXD, as root (LXD_START starts a daemon on a folder: ../shared/tools/start-lxd.sh)
	TEST_LXD_START=$(LXD_START) TEST_LXD_FOLDER=$(LXD_FOLDER) $(BIN)/pytest -m lxd tests/lxd

browser-check: $(STAMP)  ## the dashboard in a real Chromium (CHROMIUM=… names another than the system's)
	$(BIN)/pytest -m browser tests/browser

ide-check: $(STAMP) tools-cache/code-server/run.sh  ## a real code-server through the control plane, in Chromium (2 minutes more, the first time)
	$(BIN)/pytest -m ide tests/ide

tools-cache/code-server/run.sh:
	@test -f ../shared/tools/install-code-server.sh || { echo "ide-check needs a code-server in tools-cache/code-server, with a run.sh that starts it" >&2; exit 1; }
	bash ../shared/tools/install-code-server.sh tools-cache/code-server

stripe-check: $(STAMP)  ## our requests and the fake Stripe's answers, judged by Stripe's own stripe-mock (needs Go)
	.ci/stripe-check

billing-month: $(STAMP)  ## a customer's months under the fake Stripe's clock, day by day
	$(BIN)/python -m tests.billing_month

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

lock:  ## pin what setup.py allows: requirements.lock for CI and the binary, requirements-run.lock for the container image
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-header --extra dev --output-file requirements.lock setup.py
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-header --extra embedded --constraint requirements.lock --output-file requirements-run.lock setup.py

binary: $(STAMP)  ## dist/controlplane, one file
	$(BIN)/pyinstaller --noconfirm --clean --log-level WARN --onefile --name controlplane --add-data static:static \
		--add-data controlplane/billing/mail_texts:controlplane/billing/mail_texts --collect-data stripe run.py

binary-check: binary  ## the binary, far from its checkout
	$(BIN)/pytest -m binary tests/process/test_binary.py

clean:  ## remove what is built, but no data
	rm -rf build dist *.egg-info $(VENV)
