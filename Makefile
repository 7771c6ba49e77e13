# Every goal is a script in scripts/; this file only gives them names.
# Settings, all optional, from the environment or the command line:
#   PG=17            build and run against PostgreSQL 15, 16, 17 or 18: apt's package, or else built from source, once
#   PG_CONFIG=…      build and run against this very PostgreSQL
#   USHER_HOME=…     where the scratch cluster lives
#   LAYERS="…"       which of: unit regress isolation clients   (make test)
#   SOAK_KILLS=…     how many kill -9; also SOAK_STORM, SOAK_PROMOTIONS, SOAK_DISK_FULL, SOAK_SECONDS, SOAK_SEED   (make soak)
#   USHER_FUZZ_SECONDS=…  how long each parser gets random input; also USHER_FUZZ_SEED                   (make soak)
#   BENCH_JOBS=…     how large; also BENCH_CHURN, BENCH_WAITING, BENCH_FLOWS                           (make bench)
#   DRY_RUN=1        say it, do not do it                       (make deps)

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help deps build install cluster psql stop demo test lint coverage bench soak clean

help: ## this list
	@echo "pg_usher: an integration hub inside PostgreSQL"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## install what is missing, build, start a scratch cluster, show it at work
	@scripts/goal.sh demo

test: ## run all tests; the last line is the count (LAYERS="unit regress isolation clients", PG=17)
	@scripts/test.sh

deps: ## install what the build needs (DRY_RUN=1 only says what that is)
	@scripts/goal.sh deps

build: ## compile the extension; nothing leaves target/
	@scripts/goal.sh build

install: ## compile it and copy it to where PostgreSQL looks for extensions
	@scripts/goal.sh install

cluster: ## start the scratch cluster (unix socket only, apart from your own clusters)
	@scripts/goal.sh cluster

psql: ## start the scratch cluster and open psql in it
	@scripts/goal.sh psql

stop: ## stop the scratch cluster, keep its data
	@scripts/cluster.sh stop

lint: ## formatting, clippy, licences and sources of dependencies, shell syntax
	@scripts/lint.sh

coverage: ## run the tests with a library that counts lines; writes target/coverage/report.txt
	@scripts/coverage.sh

bench: ## measure against baselines of the same run; writes target/bench.json
	@scripts/goal.sh bench

soak: ## feed its parsers random input, then kill it, promote its standby, fill its disk, again and again, and check that nothing is lost
	@scripts/goal.sh soak

clean: ## remove the scratch cluster and target/; installed packages stay
	@scripts/cluster.sh destroy
	@rm -rf target
