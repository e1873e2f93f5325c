# The commands for contributors. `make` without a target lists them.
#
# Build products are outside the checkout, so that a fresh clone on the same machine builds quickly.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/hawser/target
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
export HAWSER_PLUGIN := $(CARGO_TARGET_DIR)/hawser
export HAWSER_IPAMD := $(CARGO_TARGET_DIR)/debug/ipamd
# The commit whose state, links and conflist the upgrade tests start from.
PREVIOUS := 3fd7b2b76819c99b81ba372294bd79e5ed32f646
PREVIOUS_DIR := $(CARGO_TARGET_DIR)/previous/$(PREVIOUS)
export HAWSER_PREVIOUS_PLUGIN := $(PREVIOUS_DIR)/hawser
export HAWSER_PREVIOUS_IPAMD := $(PREVIOUS_DIR)/ipamd
# The commit whose chart the cluster test upgrades from.
PREVIOUS_CHART := ac05477d1a9d254ce5a803f196664c7fe83fbe2b
export HAWSER_PREVIOUS_CHART := $(CARGO_TARGET_DIR)/previous/$(PREVIOUS_CHART)/deploy/chart/hawser
CARGO := cargo --locked
# Named after the content of what they are built from, so that a checkout with other versions builds its own.
CLUSTER := tests/cluster/programs
CLUSTER_HASH := $(shell cat $(CLUSTER)/go.* $(CLUSTER)/*/*.go $(CLUSTER)/build.sh | sha256sum | cut -c 1-12)
export HAWSER_CLUSTER_PROGRAMS := $(HOME)/.cache/hawser/cluster/$(CLUSTER_HASH)
export HAWSER_CONFORMANCE_PROGRAMS := $(HOME)/.cache/hawser/conformance/$(CLUSTER_HASH)

AWS_NODE := tests/aws-node
export HAWSER_AWS_NODE_PROGRAMS := $(HOME)/.cache/hawser/aws-node/$(shell cat $(AWS_NODE)/go.* $(AWS_NODE)/build.sh | sha256sum | cut -c 1-12)

.PHONY: help tools build plugin previous plugin-binary daemon-binary aws-node-programs cluster-programs conformance-programs cluster cluster-test aws-node-test conformance manifest image-root demo test sim-conformance bench fleet fmt lint deny ci sim soak fuzz

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

tools: ## Install what is missing on a fresh Debian machine
	@sh tests/tools.sh

# The plugin is static, so that it runs with any host libc. It is linked with musl, because glibc executes 68 CPUID instructions
# before main, each of which a virtual machine leaves for the hypervisor. It has fixed addresses, so that it need not relocate
# itself, and few segments. The flags are set per target: with plain RUSTFLAGS they would also apply to build scripts and
# invalidate all other cached builds. The binary is copied, as on a node: the linker writes its output in pieces, the kernel
# then maps the file in pieces, and the start takes 10 % longer.
PLUGIN_FLAGS := -C target-feature=+crt-static -C relocation-model=static -C relro-level=off -C link-arg=-Wl,-z,noseparate-code
plugin: tools plugin-binary

plugin-binary:
	@echo "== building the plugin (static)"
	@target=$(HOST:-gnu=-musl); \
	[ -d "$$(rustc --print target-libdir --target $$target)" ] || rustup -q target add $$target || { \
	  echo "== $$target cannot be installed: the plugin is linked with glibc and starts more slowly"; target=$(HOST); }; \
	export CARGO_TARGET_$$(echo $$target | tr a-z- A-Z_)_RUSTFLAGS="$(PLUGIN_FLAGS)"; \
	$(CARGO) build -q --profile plugin -p cni-plugin --target $$target && \
	install -m 755 $(CARGO_TARGET_DIR)/$$target/plugin/hawser $(HAWSER_PLUGIN)

previous: tools ## Build the release that the upgrade tests start from, once
	@sh tests/previous.sh $(PREVIOUS) $(PREVIOUS_DIR)

# Always builds all targets, including tests. Cargo merges the features of all crates in one build, and any other selection
# would compile the EC2 client a second time.
build: plugin previous ## Build everything (the EC2 client takes minutes, once)
	@echo "== building daemon, simulator and lab (the first time takes about five minutes: aws-sdk-ec2)"
	@$(CARGO) build -q --workspace --all-targets

cluster-programs: tools ## Build a real Kubernetes from the Go module proxy (once; ten minutes)
	@sh $(CLUSTER)/build.sh $(HAWSER_CLUSTER_PROGRAMS)

aws-node-programs: tools ## Build the AWS VPC CNI from the Go module proxy (once; four minutes)
	@sh $(AWS_NODE)/build.sh $(HAWSER_AWS_NODE_PROGRAMS)

conformance-programs: cluster-programs
	@sh tests/tools.sh conformance
	@sh $(CLUSTER)/build.sh $(HAWSER_CONFORMANCE_PROGRAMS) conformance

cluster: build cluster-programs ## Run Kubernetes with Hawser on a simulated VPC; KEEP=1 keeps it for kubectl
	@$(CARGO_TARGET_DIR)/debug/cluster $(if $(KEEP),keep)

manifest: cluster-programs ## Render the chart into deploy/manifests/hawser.yaml
	@PATH=$(HAWSER_CLUSTER_PROGRAMS):$$PATH sh deploy/manifests/render.sh > deploy/manifests/hawser.yaml

# Packed relocations make the daemon 1.7 MB smaller. They need glibc 2.36, which the image contains.
daemon-binary:
	@echo "== building the daemon as the image contains it (the first time takes about ten minutes)"
	@$(CARGO) rustc -q --profile image -p ipamd --bin ipamd -- -C link-arg=-Wl,-z,pack-relative-relocs

# In bytes, before compression.
IMAGE_LIMIT := 25000000
# Used by deploy/image/Containerfile, which has none of the tools that the tests need.
image-root: plugin-binary daemon-binary ## Fill DIRECTORY with the files of the image, built for release
	@sh deploy/image/assemble.sh $(CARGO_TARGET_DIR)/image/ipamd $(HAWSER_PLUGIN) $(DIRECTORY)
	@size=$$(du --summarize --bytes $(DIRECTORY) | cut -f 1); [ $$size -le $(IMAGE_LIMIT) ] || { \
	  echo "== the image has $$size bytes, and the limit is $(IMAGE_LIMIT)"; exit 1; }

demo: build ## Run pods on two nodes of a simulated VPC; KEEP=1 keeps the nodes and their live pages
	@$(CARGO_TARGET_DIR)/debug/demo $(if $(KEEP),keep)

# The tests of the real AWS VPC CNI have a command of their own: they need more programs that take minutes to build.
CLUSTER_TEST := package(cluster) & test(a_real_kubernetes_runs_hawser)
AWS_NODE_TEST := (package(e2e) & test(/^takeover::real::/)) | (package(cluster) & test(a_node_of_a_real_kubernetes_goes_from_aws_node_to_hawser_and_back))
test: build cluster-programs $(HAWSER_PREVIOUS_CHART) ## Run every test but those of aws-node-test
	@echo "== testing"
	@$(CARGO) nextest run --workspace --all-targets --no-fail-fast -E 'not ($(AWS_NODE_TEST))'

aws-node-test: build cluster-programs aws-node-programs ## Take nodes over from the real AWS VPC CNI, and give them back
	@$(CARGO) nextest run --workspace --all-targets --no-fail-fast -E '$(AWS_NODE_TEST)'

$(HAWSER_PREVIOUS_CHART):
	@mkdir -p $(CARGO_TARGET_DIR)/previous/$(PREVIOUS_CHART)
	@git archive $(PREVIOUS_CHART) deploy/chart | tar -x -C $(CARGO_TARGET_DIR)/previous/$(PREVIOUS_CHART)

cluster-test: build cluster-programs $(HAWSER_PREVIOUS_CHART) ## Run only the test of Hawser in a real Kubernetes
	@$(CARGO) nextest run --workspace --all-targets -E '$(CLUSTER_TEST)'

conformance: build conformance-programs ## Run the network conformance of Kubernetes and CRI and record it [ONLY=TEXT in a name]
	@$(CARGO_TARGET_DIR)/debug/conformance $(if $(ONLY),"$(ONLY)")

sim-conformance: build ## Compare the simulator with another one, through the AWS command line
	@echo "== comparing the simulator with moto"
	@python3 -B tests/conformance/test_compare.py --quiet
	@python3 -B tests/conformance/run.py --vpc-sim $(CARGO_TARGET_DIR)/debug/vpc-sim \
	  --environment $(CARGO_TARGET_DIR)/conformance-venv

sim: build ## Simulate SEEDS=200000 [FROM=0] nodes in virtual time, or one with a log: SEED=7; CRASH=all: kill at every point
	@$(CARGO_TARGET_DIR)/debug/sim $(if $(CRASH),--crash,$(if $(SEED),--seed $(SEED),$(or $(SEEDS),10000) $(FROM)))

soak: build ## Run two nodes with random pods, faults and restarts for MINUTES=60 [SEED=1]
	@$(CARGO_TARGET_DIR)/debug/soak $(or $(MINUTES),60) $(or $(SEED),1)

# A run reads the committed corpus and does not change it: new inputs are written next to the build. The memory limit is
# high because of the store: for a corrupt page number, redb allocates up to 2 GiB before it checks that the page exists.
FUZZED := netlink cni rpc store imds ec2
fuzz: export RUSTC_WRAPPER := $(CURDIR)/tests/fuzz/rustc.sh
fuzz: tools ## Fuzz the parsers of untrusted input, MINUTES=10 each [TARGET=netlink|cni|rpc|store|imds|ec2]
	@command -v cargo-fuzz >/dev/null || { echo "== installing cargo-fuzz"; RUSTC_WRAPPER= cargo install -q --locked cargo-fuzz; }
	@for target in $(or $(TARGET),$(FUZZED)); do \
	  echo "== fuzzing $$target"; \
	  mkdir -p $(CARGO_TARGET_DIR)/fuzz/found/$$target && \
	  nice cargo fuzz run --fuzz-dir tests/fuzz --target-dir $(CARGO_TARGET_DIR)/fuzz -s none $$target \
	    $(CARGO_TARGET_DIR)/fuzz/found/$$target tests/fuzz/corpus/$$target -- -timeout=20 -rss_limit_mb=4608 -verbosity=0 -print_final_stats=1 \
	    -artifact_prefix=$(CARGO_TARGET_DIR)/fuzz/ -max_total_time=$$((60 * $(or $(MINUTES),10))) || exit 1; \
	done

# Builds the whole workspace in release mode. A smaller selection would compile the EC2 client once more.
bench: export HAWSER_IPAMD := $(CARGO_TARGET_DIR)/image/ipamd
bench: export RUNS ?= 1
bench: plugin daemon-binary ## Measure a node and its floor, RUNS=1 times: a table, report.json and latency.svg in target/bench [ONLY="verbs storm"]
	@echo "== building for release (the first time takes about ten minutes)"
	@$(CARGO) build -q --release --workspace
	@$(CARGO_TARGET_DIR)/release/node target/bench $(ONLY)
	@$(CARGO_TARGET_DIR)/release/planner

fleet: build ## Simulate the EC2 calls of 1,000 and 5,000 nodes in one account
	@$(CARGO_TARGET_DIR)/debug/fleet

fmt: ## Format the sources
	@cargo fmt --all

lint: ## Check the format, clippy, that the fuzz targets compile, and the layout of the source folders
	@echo "== format" && cargo fmt --all --check
	@echo "== clippy" && $(CARGO) clippy -q --workspace --all-targets -- -D warnings
	@echo "== fuzz targets" && $(CARGO) check -q --manifest-path tests/fuzz/Cargo.toml --bins
	@echo "== layout" && $(CARGO) test -q --manifest-path tests/layout/Cargo.toml

deny: ## Check licences, sources and duplicates of the dependencies, and advisories if their database can be reached
	@command -v cargo-deny >/dev/null || { echo "== installing cargo-deny"; cargo install -q --locked --debug cargo-deny; }
	@echo "== dependencies" && cargo deny --locked check -A no-license-field licenses bans sources
	@if git ls-remote -q https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then cargo deny --locked check advisories; \
	  else echo "== advisories: not checked, their database cannot be reached"; fi

ci: tools lint deny test sim-conformance ## Run everything that a change must pass
