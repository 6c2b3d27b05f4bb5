# The commands of this repository. `make help` lists them.

.PHONY: help run test test-quick test-ha lint bench fuzz clean
.DEFAULT_GOAL := help

target_folder = $(or $(CARGO_TARGET_DIR),target)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-11s %s\n", $$1, $$2 }'

run: ## build and start the demo: platform, WeChat simulator, sample merchant (ARGS="--port 8080")
	@scripts/ensure.sh run
	@echo "run: building in the development profile (our code unoptimised, libraries optimised; a release build takes minutes longer)"
	@cargo build -p server --bin feiqian
	@exec $(target_folder)/debug/feiqian demo $(ARGS)

test: ## install what tests need and run every test
	@scripts/test.sh all

test-quick: ## format, lints, rules of the house and cargo test
	@scripts/test.sh quick

test-ha: ## a cluster whose machines die under load (root; 5 minutes; ARGS="--json FILE")
	@scripts/ensure.sh ha
	@cargo build --quiet -p server --bin feiqian
	@tests/ha/run.sh $(ARGS)

lint: ## format, clippy and `cargo xtask tidy`
	@scripts/test.sh lint

bench: ## release build and the benchmarks of docs/performance.md (BENCH_SECONDS=20)
	@scripts/bench.sh

fuzz: ## the fuzz targets for longer (FUZZ_SECONDS=600 each)
	@FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) scripts/test.sh ensure fuzz

clean: ## remove what builds and tests left in the clone (not ~/.cache/feiqian)
	cargo clean
	rm -rf artifacts fuzz/target fuzz/artifacts fuzz/corpus
