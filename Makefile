# Everything a newcomer types. One virtual environment, .venv, made when needed and remade when the locks change.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
AFTER ?= .
UV ?= uv
UPGRADE ?= --upgrade

# Libraries are installed uncompiled, which is quicker; what is imported is compiled once, at its first import.
unexport PYTHONDONTWRITEBYTECODE

# The first interpreter that is new enough and can make environments; PYTHON=... overrides the search. In an active
# environment it is the one below it: ours may be the very one that has to be made anew.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.version_info < (3, 11) and sys.exit(1); print(sys._base_executable)' \
		2>/dev/null && break; done)

# Nothing is fetched that the lock does not name with its hash: the project itself goes in without dependencies
# and is built by what the lock installed. Where the interpreter has a pip that can serve another environment
# (23 or newer), setting up a second pip inside it is spared: that is 4 of 10 seconds of a first `make run`.
define install
	@set -e; python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		echo "dataflow needs Python 3.11 or newer with its venv module (on Debian: apt install python3-venv) and found none." >&2; \
		echo "If it is somewhere else: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; fi; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
		echo "Creating $(VENV) with $$($$python --version)"; \
		if "$$python" -c 'import sys, pip; sys.exit(int(pip.__version__.split(".")[0]) < 23)' 2>/dev/null; \
		then pip=--without-pip; else pip=; fi; \
		"$$python" -m venv --clear $$pip $(VENV); fi; \
	if $(BIN)/python -c 'import pip' 2>/dev/null; then pip="$(BIN)/python -m pip"; \
	else pip="$$python -m pip --python $(BIN)/python"; fi; \
	echo "Installing $(1)"; \
	$$pip install -qq --disable-pip-version-check --no-compile --no-deps --require-hashes -r $(1); \
	$$pip install -qq --disable-pip-version-check --no-compile --no-deps --no-build-isolation -e .; \
	touch $@
endef

GUIDE := dataflow/faces/guide

.PHONY: help run test lint fix docs proto bench abuse compare audit lock clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: $(VENV)/run.stamp ## simulated exchanges and the daemon, offline: make run ARGS="--port 9000"
	@$(BIN)/dataflow demo $(ARGS)

# Without ARGS, one worker process for each core. With ARGS, a single process: a few tests take less time than the
# start of the workers, and print and --pdb work. ARGS="-n logical ..." starts workers again.
test: $(VENV)/dev.stamp ## the tests: make test ARGS="tests/dataflow -k config"
	@$(BIN)/python -m pytest $(or $(ARGS),-n logical --dist worksteal)

lint: $(VENV)/dev.stamp ## style, types and who may import whom
	@status=0; for check in "ruff check ." "ruff format --check ." mypy lint-imports; do \
		$(BIN)/$$check || status=1; done; exit $$status

fix: $(VENV)/dev.stamp ## mend the style, as far as ruff can
	@$(BIN)/ruff check --fix --quiet .; status=$$?; $(BIN)/ruff format . && exit $$status

# Strict: a link or an anchor that leads nowhere ends it. The theme's notice of its own future is no warning of ours.
docs: $(VENV)/dev.stamp ## build the guide, which the daemon serves at /docs/guide/
	@started=$$(date +%s); NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f $(GUIDE)/building/mkdocs.yml && \
		echo "The guide is in $(GUIDE)/site, made in $$(($$(date +%s) - started)) s. A daemon serves it at /docs/guide/"

# Their paths below dataflow/protobuf are the names by which reflection knows them.
proto: $(VENV)/dev.stamp ## generate the Python of the .proto files anew
	@cd dataflow/protobuf && "$(CURDIR)/$(BIN)/python" -m grpc_tools.protoc -I . --python_out=$(or $(ARGS),.) \
		--pyi_out=$(or $(ARGS),.) $$(find . -name '*.proto' | sort)

bench: $(VENV)/dev.stamp ## this daemon and its peers, measured side by side: make bench ARGS=--quick
	@$(BIN)/dataflow bench $(ARGS)

abuse: $(VENV)/dev.stamp ## attacks on a daemon of their own, and what a bystander notices: make abuse ARGS="--short"
	@$(BIN)/python -m tests.abuse $(ARGS)

compare: $(VENV)/dev.stamp ## two checkouts, measured in turn: make compare BEFORE=../other ARGS="--pairs 6 ingest"
	@$(BIN)/python -m tests.bench.compare $(if $(BEFORE),--before "$(BEFORE)") --after "$(AFTER)" $(ARGS)

# Needs a network: the advisories live with the package index. What cannot be looked up fails the audit.
audit: ## look the locked dependencies up among known vulnerabilities
	@test -x .venv-audit/bin/pip-audit || { "$(PYTHON)" -m venv --clear .venv-audit && \
		.venv-audit/bin/pip install -qq --disable-pip-version-check pip-audit==2.10.1; }
	@for lock in requirements.lock requirements-dev.lock; do \
		.venv-audit/bin/pip-audit --strict --require-hashes --disable-pip -r $$lock || exit $$?; done

lock: ## resolve the dependencies anew into the two lock files (needs uv)
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url $(UPGRADE) \
		--custom-compile-command "make lock" --group build --extra all pyproject.toml -o requirements.lock
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url $(UPGRADE) \
		--custom-compile-command "make lock" --group build --group dev --all-extras -c requirements.lock pyproject.toml \
		-o requirements-dev.lock

clean: ## remove the environment and everything that was built
	@rm -rf $(VENV) .venv-bench .venv-audit tests/bench/.build tests/node/node_modules tests/node/.installing \
		$(GUIDE)/site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/run.stamp: requirements.lock pyproject.toml
	$(call install,requirements.lock)

$(VENV)/dev.stamp: requirements-dev.lock pyproject.toml
	$(call install,requirements-dev.lock)
	@touch $(VENV)/run.stamp
