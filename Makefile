# `make help` lists what there is to do. Everything that is built lives in the user's cache folder, so that
# it outlives a clone; the release binary is linked at bin/amoeba.

CACHE            ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/amoeba
CARGO_TARGET_DIR ?= $(CACHE)/target
ROCKSDB_VERSION  := $(shell sed -n '/^name = "librocksdb-sys"/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
ROCKSDB_LIB_DIR  ?= $(CACHE)/rocksdb-$(ROCKSDB_VERSION)
ROCKSDB_STATIC   ?= 1
# The newest kubectl and helm, for the end-to-end tests; KUBECTL=/path/to/another overrides one.
KUBECTL          ?= $(CACHE)/kubectl-1.37
HELM             ?= $(CACHE)/helm-4
# A Python that has the official client.
KUBERNETES_PYTHON ?= $(CACHE)/python-kubernetes-37/bin/python
export CARGO_TARGET_DIR ROCKSDB_LIB_DIR ROCKSDB_STATIC KUBECTL HELM KUBERNETES_PYTHON

.PHONY: help demo test test-vm soak build bench bench-store bench-api bench-scheduler bench-nodes check setup clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## Start 3 members and 3 nodes, kill some, and watch the cluster heal
	@bin/amoeba demo self-heal

test: setup $(ROCKSDB_LIB_DIR)/librocksdb.a $(KUBECTL) $(HELM) $(KUBERNETES_PYTHON) ## Unit tests, simulations and end-to-end tests
	@echo "==> building the binary and the tests"
	@cargo build --locked --workspace --all-targets
	@AMOEBA=$(CARGO_TARGET_DIR)/debug/amoeba cargo test --locked --workspace

# On a kernel whose control groups are version 2 alone, as on most machines, from each place in their tree where an agent
# may be started (see e2e/vm/run). Emulated where there is no /dev/kvm.
VM_TESTS ?= cgroups:: containers::
test-vm: setup ## The node's containers on a virtual machine of Debian's kernel, control groups v2 alone
	@.ci/setup qemu-system-x86_64=qemu-system-x86 depmod=kmod
	@cargo build --locked -p kubelet --tests --examples
	@for group in service root container; do \
	    echo "==> started in: $$group"; \
	    GROUP=$$group cargo --config "target.'cfg(all())'.runner='$(CURDIR)/e2e/vm/run'" \
	        test --locked -p kubelet --test it -- $(VM_TESTS) || exit 1; \
	done

# How much of everything `make soak` does, one after the other; each part prints its counts and ends by itself.
SEEDS        ?= 30
LEADER_KILLS ?= 100
SIM_SEEDS    ?= 200000
CLUSTERS     ?= 10000
DISORDERS    ?= 50
AGENT_KILLS  ?= 50
soak: setup $(ROCKSDB_LIB_DIR)/librocksdb.a ## Long proofs: make soak SEEDS=30 LEADER_KILLS=100 SIM_SEEDS=200000 CLUSTERS=10000 DISORDERS=50 AGENT_KILLS=50
	@echo "==> building the binary and the tests"
	@cargo build --locked --workspace --all-targets
	@echo "==> every failpoint × kill"
	@AMOEBA=$(CARGO_TARGET_DIR)/debug/amoeba cargo test --locked --workspace --test failpoints -- --include-ignored --nocapture
	@echo "==> $(SEEDS) fault schedules on real processes"
	@AMOEBA=$(CARGO_TARGET_DIR)/debug/amoeba FAULT_SEEDS=$(SEEDS) cargo test --locked --workspace --test store_faults -- --nocapture
	@echo "==> $(LEADER_KILLS) leader kills"
	@AMOEBA=$(CARGO_TARGET_DIR)/debug/amoeba LEADER_KILLS=$(LEADER_KILLS) cargo test --locked --workspace --test store_failover -- --include-ignored --nocapture
	@echo "==> $(SIM_SEEDS) simulated schedules"
	@SIM_SEEDS=$(SIM_SEEDS) cargo test --locked --workspace --lib a_group_keeps_its_promises_under_faults -- --nocapture
	@echo "==> the scheduler beside its oracle on $(CLUSTERS) clusters"
	@PROPTEST_CASES=$(CLUSTERS) cargo test --locked -p scheduler --lib oracle -- --nocapture
	@echo "==> every controller under $(DISORDERS) disorders × crashes after each of its first writes"
	@PERTURBATION_SEEDS=$(DISORDERS) cargo test --locked -p controllers --lib perturbed -- --nocapture
	@echo "==> $(AGENT_KILLS) kills of a node's agent with 100 pods"
	@AMOEBA=$(CARGO_TARGET_DIR)/debug/amoeba AGENT_KILLS=$(AGENT_KILLS) AGENT_PODS=100 cargo test --locked --workspace --test agent_kills -- --nocapture

build: setup $(ROCKSDB_LIB_DIR)/librocksdb.a ## Build the release binary at bin/amoeba
	@echo "==> building amoeba (release)"
	@cargo build --locked --release -p ctl
	@mkdir -p bin && cp -f $(CARGO_TARGET_DIR)/release/amoeba bin/.amoeba.new && mv -f bin/.amoeba.new bin/amoeba

bench: build ## Measure this machine: start, memory, pods per second, failover
	@cargo build --locked --release -p bench
	@$(CARGO_TARGET_DIR)/release/bench --amoeba bin/amoeba

# BENCH_STORE="--quick --seconds 1" and the like: see `bench store --help`. Debian starts the etcd that it installs;
# the measurement starts its own.
BENCH_STORE ?=
bench-store: build ## Measure the store beside etcd (BENCH_STORE=--quick: a few minutes)
	@.ci/setup etcd=etcd-server strace=strace taskset=util-linux
	@cargo build --locked --release -p bench
	@$(CARGO_TARGET_DIR)/release/bench store --amoeba bin/amoeba --output docs $(BENCH_STORE)

# KUBECONFIG=FILE measures another server, with BENCH_API="--name kube-apiserver --pid PID,…"; without it ours is started.
# (Only a KUBECONFIG of the command line counts, not that of the environment.)
BENCH_API ?=
bench-api: build ## Measure an API server (make bench-api KUBECONFIG=FILE; without it a cluster of its own)
	@cargo build --locked --release -p bench
	@$(CARGO_TARGET_DIR)/release/bench api --amoeba bin/amoeba --output docs \
	    $(if $(filter command,$(firstword $(origin KUBECONFIG))),--kubeconfig "$(KUBECONFIG)") $(BENCH_API)

# The same for pods, Jobs and Deployments on simulated nodes; BENCH_SCHEDULER="--only basic,spread" and the like.
BENCH_SCHEDULER ?=
bench-scheduler: build ## Measure scheduler and controllers (make bench-scheduler KUBECONFIG=FILE for another server's)
	@cargo build --locked --release -p bench
	@$(CARGO_TARGET_DIR)/release/bench scheduler --amoeba bin/amoeba --output docs \
	    $(if $(filter command,$(firstword $(origin KUBECONFIG))),--kubeconfig "$(KUBECONFIG)") $(BENCH_SCHEDULER)

# A machine of the measurement's own (a network namespace), so it needs root; BENCH_NODES="--pairs 10" and the like.
BENCH_NODES ?=
bench-nodes: build ## Measure a node's pods beside containerd and runc, and its Services (as root)
	@cargo build --locked --release -p bench
	@$(CARGO_TARGET_DIR)/release/bench nodes --amoeba bin/amoeba --output docs $(BENCH_NODES)

check: setup $(ROCKSDB_LIB_DIR)/librocksdb.a ## Formatting, lints and (if cargo-deny is installed) licences
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; \
	 else echo "cargo-deny is not installed: skipped (the licence test of e2e still runs in make test)"; fi

setup: ## Install what the build needs (as root; otherwise say what to install)
	@.ci/setup

# RocksDB is 340 C++ files, by far the longest step: about 12 minutes on two cores. It is built once, into the
# cache folder, and shared by the test build and the release build.
$(ROCKSDB_LIB_DIR)/librocksdb.a:
	@.ci/build-rocksdb "$(CACHE)/rocksdb-build" "$@"

$(CACHE)/kubectl-1.37 $(CACHE)/helm-4 &:
	@.ci/fetch-clients $(CACHE)/kubectl-1.37 $(CACHE)/helm-4

$(CACHE)/python-kubernetes-37/bin/python:
	@.ci/fetch-python $(CACHE)/python-kubernetes-37

clean: ## Remove what was built, RocksDB excepted
	@rm -rf bin $(CARGO_TARGET_DIR)
