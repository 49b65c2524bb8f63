# headrace: everything a person does with a checkout. `make` alone lists it.

VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
COMPOSE ?= docker compose
# Passed on to pytest, such as PYTEST_ARGS="-k retry".
PYTEST_ARGS ?=
# `make lock UPGRADE=--upgrade` takes the newest versions instead of keeping those that are locked.
UPGRADE ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help dev deps test quick test-coverage model model-mutants mutants schemathesis chaos chaos-cluster acl soak bench frontier hostile lint docs build lock clean \
	run-server run-worker docker-up docker-logs docker-down cluster-up cluster-down bench-cluster bench-operator bench-image

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(VENV)/.dev ## The whole system on this machine: Redis, API on :8080 (or PORT), workers; Ctrl-C ends it
	@$(VENV)/bin/headrace dev --app examples.tasks

deps: $(VENV)/.test ## Install everything into the virtual environment

test: $(VENV)/.test ## Run all tests; the end of the output says what was skipped and why
	$(PY) -m pytest $(PYTEST_ARGS)

quick: $(VENV)/.test ## Run the tests that take a moment, and stop at the first failure
	$(PY) -m pytest -m "not slow and not cluster" -x $(PYTEST_ARGS)

test-coverage: $(VENV)/.test ## Run all tests and write coverage.html
	@$(PY) -m pytest --cov --cov-report=term --cov-report=html:htmlcov $(PYTEST_ARGS); result=$$?; \
	sed -E 's,(href|src)="([^"#:]+)",\1="htmlcov/\2",g' htmlcov/index.html > coverage.html \
		&& echo "Open coverage.html." && exit $$result

model: $(VENV)/.test ## Run the model tests of the broker, of whole processes and of the operator for a long time
	$(PY) -m pytest tests/test_model*.py tests/test_system_model.py tests/test_operator_model.py --hypothesis-profile=long --timeout=0 -s $(PYTEST_ARGS)

model-mutants: $(VENV)/.test ## Put known faults into the operator one by one, and see how soon its model test notices
	$(PY) -m pytest tests/test_operator_model.py -k faulty -q -s $(PYTEST_ARGS)

MUTANTS_ARGS ?=
mutants: $(VENV)/.test ## Seed the faults of docs/guarantees.md one by one, and print what notices each; MUTANTS_ARGS=--write keeps the table
	PYTHONPATH=tests $(PY) tests/seeded_faults.py $(MUTANTS_ARGS)

schemathesis: $(VENV)/.test ## Send the API thousands of requests made from its OpenAPI document; SCHEMATHESIS_SEED=1 repeats a run
	SCHEMATHESIS_EXAMPLES=300 SCHEMATHESIS_SEED=$${SCHEMATHESIS_SEED:-$$$$} $(PY) -m pytest tests/test_schemathesis.py -s $(PYTEST_ARGS)

chaos: $(VENV)/.test ## Run every test of a failure mode, with the numbers of docs/guarantees.md; takes half an hour
	CHAOS=full PYTHONPATH=tests $(PY) -m pytest -p chaos.plugin -m "chaos and not cluster" --timeout=900 $(PYTEST_ARGS)

chaos-cluster: $(VENV)/.test ## The same for those of its tests that need a real Kubernetes, which they start if there is none
	CHAOS=full PYTHONPATH=tests $(PY) -m pytest -p chaos.plugin -m "chaos and cluster" --timeout=900 $(PYTEST_ARGS)

ACL_TESTS := $(foreach part,acl age_bound api_* app_* attempts batches cancel claims connection connection_faults contract demand disruption \
	drain findings group_commit handshake heartbeat hostile_entries inspection listing load managing middleware \
	on_failure operator_crowd operator_faults operator_redis_away operator_telling operator_two_redis passes poison \
	processes progress promotions publishing recount replay rest service_times steering suspects threads tls \
	transitions types unique_expires wake watching worker worker_duties worker_faults worker_refused,tests/test_$(part).py)
acl: $(VENV)/.test ## Run the tests of broker, workers, library, API and operator as the users of Redis of docs/how-to/redis.md
	$(PY) -m pytest --acl $(PYTEST_ARGS) $(ACL_TESTS)

SOAK_MINUTES ?= 30
SOAK_ARGS ?=
soak: $(VENV)/.test ## Real processes under load, a fault every 20 to 40 s, for SOAK_MINUTES; more options: SOAK_ARGS=--help
	PYTHONPATH=tests $(PY) -m chaos --minutes $(SOAK_MINUTES) $(SOAK_ARGS)

bench: $(VENV)/.test ## Measure the table of speeds; takes some minutes and wants an idle machine
	$(PY) -m bench

frontier: $(VENV)/.test ## Simulate how pools are scaled, beside KEDA; writes docs/images and the table of docs/scaling.md
	$(PY) -m bench.autoscaling check
	$(PY) -m bench.autoscaling frontier

hostile: $(VENV)/.test ## Attack an API of its own: dripping connections, senseless requests; takes some minutes
	$(PY) -m bench.hostile

lint: $(VENV)/.test ## Style, types, and which package may import which
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy worker api operator cli tests examples bench charts/*.py deploy/*.py
	$(VENV)/bin/lint-imports

docs: $(VENV)/.test ## Write the pages of docs/ that are made from the code
	@$(PY) -m headrace_cli.pages docs

build: $(VENV)/.dev ## Build the wheel into dist/
	@$(PIP) wheel --no-deps --wheel-dir dist .
	@ls dist/*.whl

run-server: $(VENV)/.dev ## The API alone, with the Redis of HEADRACE_URL or REDIS_ADDR
	@$(VENV)/bin/headrace api

run-worker: $(VENV)/.dev ## One worker for the example tasks, with the same Redis
	@$(VENV)/bin/headrace worker --app examples.tasks

docker-up: ## In containers: Redis, API on :8080, three workers, Prometheus on :9090, Grafana on :3000
	$(COMPOSE) up --detach --build

docker-logs: ## Follow what the containers say
	$(COMPOSE) logs --follow

docker-down: ## Stop and remove the containers; the data of Redis stays
	$(COMPOSE) down

# Tests start the cluster themselves; these are for a look at it, and to have it ready.
cluster-up: $(VENV)/.test ## Start the Kubernetes of the tests, by kind or from plain processes; the first time takes some minutes
	@PYTHONPATH=tests $(PY) -m cluster up

cluster-down: $(VENV)/.test ## Stop it; nothing of it is left but what it has built
	@PYTHONPATH=tests $(PY) -m cluster down

bench-cluster: $(VENV)/.test ## Measure how fast pools of a real Kubernetes react; wants an idle machine
	PYTHONPATH=tests $(PY) -m bench.cluster --page

BENCH_OPERATOR_ARGS ?=
bench-operator: $(VENV)/.test ## Measure what 1, 50 and 1,000 pools cost the operator, and its lag; more options: BENCH_OPERATOR_ARGS=--help
	PYTHONPATH=tests $(PY) -m bench.operator_pools $(BENCH_OPERATOR_ARGS)

bench-image: $(VENV)/.test ## Build the image, and measure its size and its start; as root, with buildah and runc
	PYTHONPATH=tests $(PY) -m bench.image

# Extras stay in the locks: without them pip 23 takes a newer release than the locked one, and refuses it for its hash.
LOCKING = $(UPGRADE) --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --no-strip-extras
COMPILE = $(VENV)/bin/uv pip compile pyproject.toml $(LOCKING)
COMPILE_GROUP = $(VENV)/bin/uv pip compile $(LOCKING) --no-annotate --group

lock: $(PY) ## Write the requirements*.lock anew from pyproject.toml
	$(PIP) install 'uv>=0.9'
	$(COMPILE) --all-extras --output-file requirements-test.lock
	$(COMPILE) --extra dev --extra examples --constraint requirements-test.lock --output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-test.lock --output-file requirements.lock
	$(COMPILE) --extra operator --extra examples --constraint requirements-test.lock --output-file requirements-image.lock
	$(COMPILE_GROUP) build --constraint requirements-test.lock --output-file requirements-build.lock

clean: ## Remove what was built and cached; keeps the virtual environment and the data in .headrace/
	rm -rf dist build htmlcov coverage.html .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# -- the virtual environment

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(PY)
	$(call install,$<)

$(VENV)/.test: requirements-test.lock pyproject.toml | $(PY)
	$(call install,$<)

define install
@echo "Installing $(1) into $(VENV) (a minute or two the first time) ..."
@$(PIP) install --require-hashes --requirement $(1)
@$(PIP) install --no-deps --editable .
@touch $@
endef

# The first Python that is in range and can make virtual environments. 3.14 comes last: the wheel with the embedded
# Redis does not exist for it.
PYTHONS := python3.13 python3.12 python3.11 python3 python3.14 python
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))

$(PY):
	@for python in $(or $(PYTHON),$(PYTHONS)); do \
		if $$python -c '$(FITS)' 2>/dev/null; then \
			echo "Making $(VENV) with $$($$python --version) ..."; exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "No Python from 3.11 to 3.14 with venv was found (tried: $(or $(PYTHON),$(PYTHONS)))." >&2; \
	echo "Install one (Debian: apt install python3 python3-venv), or name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	exit 1
