# Hawser: every command a contributor needs. `make` alone lists them.
#
# Build products live outside the checkout, so that a fresh clone on the same machine builds quickly.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/hawser/target
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
export HAWSER_PLUGIN := $(CARGO_TARGET_DIR)/hawser
export HAWSER_IPAMD := $(CARGO_TARGET_DIR)/debug/ipamd
CARGO := cargo --locked

.PHONY: help tools build plugin demo test sim-conformance bench fleet fmt lint ci sim soak fuzz

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: ## Install what is missing on a fresh Debian machine
	@sh tests/tools.sh

# Static, so that it runs on any host libc and starts as fast as the kernel can exec. The flag is given per target:
# as plain RUSTFLAGS it would also reach build scripts and throw away every other cached build. What runs is a copy, as on
# a node: a linker writes its output in pieces, which the kernel then maps in pieces, and the start takes a tenth longer.
plugin: tools
	@echo "== building the plugin (static)"
	@CARGO_TARGET_$(subst -,_,$(shell echo $(HOST) | tr a-z A-Z))_RUSTFLAGS="-C target-feature=+crt-static" \
	  $(CARGO) build -q --profile plugin -p cni-plugin --target $(HOST)
	@install -m 755 $(CARGO_TARGET_DIR)/$(HOST)/plugin/hawser $(HAWSER_PLUGIN)

# All targets, tests included: cargo unites the features of what it builds together, and any other selection would
# compile the EC2 client a second time.
build: plugin ## Build everything (the EC2 client takes minutes, once)
	@echo "== building daemon, simulator and lab (the first time takes about five minutes: aws-sdk-ec2)"
	@$(CARGO) build -q --workspace --all-targets

demo: build ## Two nodes, a simulated VPC, pods that talk: the main job, watched; KEEP=1 leaves the live pages open
	@$(CARGO_TARGET_DIR)/debug/demo $(if $(KEEP),keep)

test: build ## Run every test
	@echo "== testing"
	@$(CARGO) nextest run --workspace --all-targets --no-fail-fast

sim-conformance: build ## Compare the simulator with another one, through the AWS command line
	@echo "== a second opinion on the simulator"
	@python3 -B tests/conformance/test_compare.py --quiet
	@python3 -B tests/conformance/run.py --vpc-sim $(CARGO_TARGET_DIR)/debug/vpc-sim \
	  --environment $(CARGO_TARGET_DIR)/conformance-venv

sim: build ## Live SEEDS=200000 [FROM=0] nodes in virtual time, or one, word for word: SEED=7; CRASH=all: kill at every point
	@$(CARGO_TARGET_DIR)/debug/sim $(if $(CRASH),--crash,$(if $(SEED),--seed $(SEED),$(or $(SEEDS),10000) $(FROM)))

soak: build ## Two nodes, random churn, faults and restarts for MINUTES=60 [SEED=1]
	@$(CARGO_TARGET_DIR)/debug/soak $(or $(MINUTES),60) $(or $(SEED),1)

# The committed corpus is read, not written: what a run finds stays beside the build. The store needs room: where a
# damaged page number names a page of 2 GiB, redb makes room for it before it looks whether it is there.
FUZZED := netlink cni rpc store imds ec2
fuzz: export RUSTC_WRAPPER := $(CURDIR)/tests/fuzz/rustc.sh
fuzz: tools ## Fuzz what reads foreign bytes, MINUTES=10 each [TARGET=netlink|cni|rpc|store|imds|ec2]
	@command -v cargo-fuzz >/dev/null || { echo "== installing cargo-fuzz"; RUSTC_WRAPPER= cargo install -q --locked cargo-fuzz; }
	@for target in $(or $(TARGET),$(FUZZED)); do \
	  echo "== fuzzing $$target"; \
	  mkdir -p $(CARGO_TARGET_DIR)/fuzz/found/$$target && \
	  nice cargo fuzz run --fuzz-dir tests/fuzz --target-dir $(CARGO_TARGET_DIR)/fuzz -s none $$target \
	    $(CARGO_TARGET_DIR)/fuzz/found/$$target tests/fuzz/corpus/$$target -- -timeout=20 -rss_limit_mb=4608 -verbosity=0 -print_final_stats=1 \
	    -artifact_prefix=$(CARGO_TARGET_DIR)/fuzz/ -max_total_time=$$((60 * $(or $(MINUTES),10))) || exit 1; \
	done

# Release builds, the daemon included; the whole workspace, as everywhere, or the EC2 client is compiled once more.
bench: export HAWSER_IPAMD := $(CARGO_TARGET_DIR)/release/ipamd
bench: plugin ## Measure a node beside its floor: a table, report.json and latency.svg in target/bench [ONLY="verbs storm"]
	@echo "== building for release (the first time takes about ten minutes)"
	@$(CARGO) build -q --release --workspace
	@$(CARGO_TARGET_DIR)/release/node target/bench $(ONLY)
	@$(CARGO_TARGET_DIR)/release/planner

fleet: build ## What 1,000 and 5,000 nodes cost one account's EC2 budget
	@$(CARGO_TARGET_DIR)/debug/examples/fleet

fmt: ## Format the sources
	@cargo fmt --all

lint: ## Format check and clippy, warnings denied; do the fuzz targets compile?
	@echo "== format" && cargo fmt --all --check
	@echo "== clippy" && $(CARGO) clippy -q --workspace --all-targets -- -D warnings
	@echo "== fuzz targets" && $(CARGO) check -q --manifest-path tests/fuzz/Cargo.toml --bins

ci: tools lint test sim-conformance ## What a submission must pass
