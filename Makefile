# Everything that a developer runs. Each target installs what it needs: a new machine needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Three times the cores of CI: many tests wait for processes that start and end.
WORKERS ?= 6

# The tests start some hundred processes: without bytecode, each would compile the bridge again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: alerts audit deploy-tools dist manifests sbom site screenshots help demo fast one test check lint types format docs verdicts fuzz bench bench-console bench-deliver bench-hook bench-hostile bench-move bench-polling bench-proxy bench-scale bench-slow bench-start bench-upload bench-validation chaos language upgrade upload-path lock clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed 's/:.*## /\t/' | expand -t 18

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bridge needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@

demo: $(VENV)/.runtime ## four builds from upload to finalized run, against the sandbox
	$(RUN) -m bridge demo

fast: $(VENV)/.dev ## unit tests without property and memory tests, in less than a minute
	$(RUN) -m pytest tests/unit -n auto -m "not hypothesis and not property and not memory"

one: $(VENV)/.dev ## one file or test: T=tests/unit/test_imports.py
	$(RUN) -m pytest $(or $(T),$(error Name a file, folder or test: make one T=tests/unit/test_imports.py))

$(VENV)/.release: requirements-release.txt | $(VENV)/.dev
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-release.txt
	touch $@

$(VENV)/.browsers: | $(VENV)/.dev
	@for name in chromium firefox-esr nginx; do \
		PATH="$$PATH:/usr/sbin" command -v $$name >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && \
			apt-get install -qq --yes --no-install-recommends $$name >/dev/null; } || \
			echo "$$name is not installed (apt-get install $$name): tests that use it are skipped." >&2; \
	done
	@! command -v chromium >/dev/null || ! command -v firefox-esr >/dev/null || touch $@

# Debian's package without an installation, which would start a server.
$(VENV)/bin/promtool: | $(VENV)/.dev
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && chmod 755 "$$folder" && \
	if (cd "$$folder" && { apt-get download -qq prometheus || \
			{ test "$$(id -u)" = 0 && apt-get update -qq && apt-get download -qq prometheus; }; }) \
			2>/dev/null && dpkg-deb -x "$$folder"/prometheus_*.deb "$$folder"; \
	then cp "$$folder/usr/bin/promtool" $@; \
	else echo "promtool is not to be had (Debian package prometheus): tests of alerts are skipped." >&2; fi

alerts: $(VENV)/bin/promtool ## the alert rules, and the situations in which they fire
	$(VENV)/bin/promtool check rules deploy/prometheus/alerts.yml
	$(VENV)/bin/promtool test rules deploy/prometheus/tests.yml

test: $(VENV)/.dev $(VENV)/.release $(VENV)/.browsers $(VENV)/bin/promtool ## all tests, about 14 minutes on two cores
	$(RUN) -m pytest -n $(WORKERS) --dist worksteal

check: lint types test ## what CI runs

lint: $(VENV)/.dev ## ruff: rules and format; codespell
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m codespell_lib

types: $(VENV)/.dev ## mypy --strict
	$(RUN) -m mypy

format: $(VENV)/.dev ## rewrite files as ruff wants them
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: $(VENV)/.runtime ## render docs/codes.md, docs/reference/ and parts of docs/upload.md
	$(RUN) -m docs.render_codes
	$(RUN) -m docs.render_reference
	$(RUN) -m docs.render_upload

site: $(VENV)/.release docs ## build the documentation into site/, with every link checked
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

manifests: $(VENV)/.release ## render deploy/kubernetes from the Helm chart
	$(RUN) -m tools.render_manifests

deploy-tools: $(VENV)/.release ## install what checks deploy/

dist: $(VENV)/.dev ## build wheel and sdist into dist/, the same bytes from the same commit
	$(RUN) -m tools.build_release

sbom: $(VENV)/.release ## list what the gateway runs on, with licenses: dist/bridge.cdx.json and dist/licenses.md
	mkdir -p dist
	$(PYTHON) -m venv --clear --without-pip build/runtime
	$(RUN) -m pip --python build/runtime/bin/python install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.txt
	$(RUN) -m cyclonedx_py environment build/runtime/bin/python --pyproject pyproject.toml --output-reproducible \
		--output-file dist/bridge.cdx.json
	$(RUN) -m tools.license_list dist/bridge.cdx.json dist/licenses.md

upgrade: $(VENV)/.dev ## a rolling upgrade from the last release and back: PREVIOUS=its wheel
	$(PYTHON) -m venv --clear build/previous
	build/previous/bin/python -m pip install --quiet --disable-pip-version-check $(or $(PREVIOUS),$(error Name the wheel of the last release: make upgrade PREVIOUS=file.whl))
	BRIDGE_PREVIOUS=$(CURDIR)/build/previous/bin/python $(RUN) -m pytest tests/end_to_end/test_upgrade.py

audit: $(VENV)/.release ## look up known vulnerabilities; fails if the registry has no data about a package
	$(RUN) -m pip_audit --strict --disable-pip --require-hashes -r requirements.txt

verdicts: $(VENV)/.dev ## render docs/verdicts.md; CORPUS=folder adds its files
	$(RUN) -m docs.render_verdicts $(CORPUS)

screenshots: $(VENV)/.dev $(VENV)/.browsers ## remake the pictures of the console in docs/images
	$(RUN) -m docs.make_screenshots

fuzz: $(VENV)/.dev ## arbitrary and mutated bytes through validation, for a minute
	$(RUN) -m tests.fuzz_validator

chaos: $(VENV)/.dev ## random faults against running gateways: SEED=, SECONDS=, OPTIONS="--postgres --s3 --replicas 3 --limits"
	$(RUN) -m tests.chaos $(addprefix --seed=,$(SEED)) $(addprefix --seconds=,$(SECONDS)) $(OPTIONS)

bench bench-%: export PYTHONPATH := .

bench-polling: $(VENV)/.dev ## ends of builds within CodeArts' limits, simulated, beside former policies
	$(RUN) bench/polling.py $(OPTIONS)

bench-proxy: $(VENV)/.dev ## proxied calls and downloads, beside nginx
	$(RUN) bench/proxy.py

bench-validation: $(VENV)/.dev ## validation beside plain lxml, its memory, and uploads beside a hostile file
	$(RUN) bench/validation.py

bench: $(VENV)/.dev ## accepted reports per second, beside other servers: OPTIONS="--against COMMIT" or --quick
	$(RUN) bench/intake.py $(OPTIONS)

bench-console: $(VENV)/.dev ## pages of the console with a million builds, and the page of a report of 20 MB
	$(RUN) bench/console.py $(OPTIONS)

bench-deliver: $(VENV)/.dev ## delivery end to end, beside a naive bridge: OPTIONS="--against COMMIT --shapes 5" or --postgres
	$(RUN) bench/deliver.py $(OPTIONS)

bench-move: $(VENV)/.dev ## a ledger of 100,000 builds moved from SQLite and disk to PostgreSQL and S3, with kills
	$(RUN) bench/move.py $(OPTIONS)

bench-upload: $(VENV)/.dev ## how long a build step waits, beside register and PUT one after the other
	$(RUN) bench/upload.py $(OPTIONS)

bench-start: $(VENV)/.dev ## CPU and memory of a start, and CPU of commands: OPTIONS="--against COMMIT"
	$(RUN) bench/start.py $(OPTIONS)

bench-hook: $(VENV)/.dev ## time from a build's end to finalize if CI calls the webhook
	$(RUN) bench/hook.py

bench-scale: $(VENV)/.dev ## the ledger with a million builds against a thousand, on both engines; half an hour
	$(RUN) bench/scale.py

language: $(VENV)/.dev ## measure prose and structure, and list banned words
	$(RUN) -m tools.language

upload-path: $(VENV)/.dev ## list the modules that one upload passes through
	$(RUN) -m tools.upload_path

bench-slow: $(VENV)/.dev ## uploads beside 500 clients that send a byte a second, for a minute
	$(RUN) bench/slow_clients.py

bench-hostile: $(VENV)/.dev ## an honest caller beside callers that try to keep others out
	$(RUN) bench/hostile_callers.py

lock: $(VENV)/bin/python ## choose the newest versions: requirements.txt, requirements-dev.txt and requirements-release.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	$(RUN) -m uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --upgrade -o requirements.txt
	$(RUN) -m uv pip compile pyproject.toml --extra otel --group dev --group bench --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet -c requirements.txt -o requirements-dev.txt
	$(RUN) -m uv pip compile pyproject.toml --group release --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet -c requirements-dev.txt -o requirements-release.txt

clean: ## remove what the targets above made
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
