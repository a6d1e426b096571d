# Two commands matter: `make lab` and `make test`. The rest are their parts.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: bootstrap
bootstrap: ## system packages and the locked virtual environment
	@scripts/bootstrap

.PHONY: qemu
qemu: ## bootstrap, and the packages for a lab whose client has a kernel of its own (about 200 MB)
	@scripts/bootstrap --qemu

.PHONY: lab
lab: bootstrap ## start the lab, provision it, check traffic end to end, print the table; SSH=1: over ssh
	mpqlab up $(if $(SSH),--ssh --umask 077)
	ansible-playbook -i inventories/lab $(if $(SSH),-i /run/$(or $(MPQLAB_NAME),mpqlab)/ssh.yml) site.yml
	mpqlab table --measure

.PHONY: lab-down
lab-down: bootstrap ## stop the lab; nothing of it stays
	mpqlab down

.PHONY: test
test: bootstrap ## everything: format, lint, types, unit tests, scenarios; a table at the end
	@scripts/run-tests

.PHONY: lint
lint: bootstrap ## format, lint and types
	@scripts/run-tests lint

.PHONY: unit
unit: bootstrap ## unit and property tests, on every Python that is installed
	@scripts/run-tests unit

.PHONY: compiled
compiled: bootstrap ## the tests of proto/ on a copy of it that mypyc has compiled, about 10 minutes
	scripts/compiled-tests

.PHONY: fuzz
fuzz: bootstrap ## 1.2 million inputs for what reads the network
	MPQUIC_FUZZ_INPUTS=75000 pytest -q mpquic_daemon/tests/proto/test_fuzz.py mpquic_daemon/tests/proto/test_fuzz_registration.py \
	  mpquic_daemon/tests/quic/test_quic_fuzz.py

.PHONY: hostile
hostile: bootstrap ## honest clients of a server that is attacked for a minute; SECONDS=N: for as long
	MPQUIC_HOSTILE_SECONDS=$(or $(SECONDS),60) pytest -q -s mpquic_daemon/tests/daemon/test_hostile.py

.PHONY: soak
soak: qemu ## what takes too long for every test run, before a release: about 75 minutes; SEED=N: the same choices again
	MPQUIC_SOAK_SEED=$(SEED) MPQUIC_SOAK_RESULTS=$(CURDIR)/bench/results/classes.json molecule test --scenario-name soak
	python -m mpqbench --only-document
	molecule test --scenario-name vlan

.PHONY: scenarios
scenarios: bootstrap ## molecule, all scenarios
	@scripts/run-tests scenarios

.PHONY: bench
bench: bootstrap ## tunnels side by side, in namespaces, about an hour: tables, bench/results/, docs/performance.md
	python -m mpqbench

.PHONY: bench-micro
bench-micro: bootstrap ## the daemon's inner loops, each by itself
	pytest bench/micro --benchmark-columns=min,median,stddev,ops --benchmark-sort=name

.PHONY: format
format: bootstrap ## rewrite the sources in the project's format
	ruff format .
	ruff check --fix .

.PHONY: wheel
wheel: bootstrap ## the daemon's wheel and all that it needs, as a host gets them, in build/wheelhouse; PYTHON=3.13, MACHINE=aarch64
	@mkdir -p build/wheelhouse
	ansible localhost -i localhost, -c local -e ansible_python_interpreter=$(CURDIR)/.venv/bin/python -m wheelhouse \
		-a 'source=$(CURDIR)/mpquic_daemon requirements=$(CURDIR)/requirements/daemon.txt cache=$(CURDIR)/build/wheelhouse \
		python_version=$(or $(PYTHON),3.11) machine=$(or $(MACHINE),$(shell uname -m)) pip=$(CURDIR)/.cache/uv/bin/python,-m,pip'

.PHONY: docs
docs: bootstrap ## regenerate the documents that are made from code
	python -m mpquic_plan.docs docs/site-variables.md
	python scripts/command_pages.py mpquic_daemon/share

.PHONY: golden
golden: bootstrap ## render the reference site anew into molecule/render/golden
	ansible-playbook playbooks/render.yml -i inventories/prod -i molecule/render/inventory/unusual.yml \
		-e mpquic_render_dir=$(CURDIR)/molecule/render/golden

.PHONY: lock
lock: bootstrap ## renew the locked versions in requirements/
	scripts/lock
