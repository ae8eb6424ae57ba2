# Start with `make demo` and `make test`. Each installs missing tools into .tools/, or reports what is missing.

SHELL := /bin/bash
TOOLS := $(CURDIR)/.tools
export PATH := $(TOOLS)/bin:$(PATH)
CARGO ?= cargo

.PHONY: engines redis redis-small chaos exhaustive simulate partition demo test compile-tests tools fmt lint core core-compiles unit doc interop clients clients-small deploy-test dist observability page page-test bench bench-hop bench-ledger soak bench-decide count count-small crash-loop crash-loop-inbox dependencies deny fuzz build setup clean mutants mutants-sample tls-scan image-test

demo: setup
	$(CARGO) build --release --locked
	python3 tests/demo/play.py --callgate target/release/callgate

# Compiles and downloads side by side, runs the suite, then the other tests two at a time.
test: setup
	@$(MAKE) --no-print-directory --output-sync=target -j4 fmt lint core-compiles doc compile-tests tools
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory redis-small
	@$(MAKE) --no-print-directory --output-sync=target -j2 interop clients-small tls-scan deploy-test observability page count-small dependencies mutants-sample
	@echo "all tests passed"

compile-tests: setup
	scripts/unit.sh compile

# Downloads what the tests need besides Rust crates. A failure is reported by the test that needs the tool.
tools: setup
	-@FETCH_ONLY=1 scripts/interop.sh $(TOOLS) target/debug/callgate
	-@FETCH_ONLY=1 scripts/deploy-test.sh $(TOOLS) target/debug/callgate
	-@FETCH_ONLY=1 scripts/observability.sh $(TOOLS) target/debug/callgate
	-@scripts/engines.sh $(TOOLS)
	-@timeout 60 scripts/browser.sh $(TOOLS) >/dev/null

# Installs cmake, which builds the zlib of pingora.
setup:
	@scripts/setup.sh $(TOOLS)

fmt:
	$(CARGO) fmt --check

lint: setup
	$(CARGO) clippy --locked --all-targets -- -D warnings

# Tests the core without pingora and tokio: its unit tests, and the decision cases. Takes seconds once it is compiled.
core:
	$(CARGO) test --locked --no-default-features --lib --test decisions

# Compiles the same. `make test` runs these tests with the others, because their optimized dependencies take minutes.
core-compiles:
	$(CARGO) check --locked --no-default-features --lib --test decisions

unit: setup engines
	scripts/unit.sh

redis-small: setup engines
	scripts/redis.sh $(TOOLS) redis-server

# Redis, Sentinel and Valkey for the tests of the shared ledger.
engines: setup
	@scripts/engines.sh $(TOOLS)

# The tests of the ledger again, on Redis and on Valkey. ENGINES=redis-server runs them on one of the two.
redis: setup engines
	scripts/redis.sh $(TOOLS) $(ENGINES)

# Includes the examples so that the dependencies are compiled with the same features as for `lint`.
doc: setup
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --lib --examples

# The providers' own client libraries sign requests, and Callgate verifies them.
interop: setup
	scripts/unit.sh compile
	scripts/interop.sh $(TOOLS) target/debug/callgate

# Sends the requests of client libraries through Callgate, and compares the results with docs/clients.md. Installs the
# libraries. CLIENTS="--only NAME" runs one of them, CLIENTS="--write docs/clients.md" writes the page.
CLIENTS ?=
clients: setup
	scripts/unit.sh compile
	scripts/clients.sh $(TOOLS) target/debug/callgate $(CLIENTS)

# Does the same with curl, Node and the libraries that `make interop` has installed and that start fast.
clients-small: setup
	scripts/unit.sh compile
	scripts/clients.sh $(TOOLS) target/debug/callgate --small

# Scans the TLS of an ingress listener with sslyze, and compares it with the intermediate profile of Mozilla.
tls-scan: setup
	scripts/unit.sh compile
	scripts/tls-scan.sh $(TOOLS) target/debug/callgate

# Renders the manifests in deploy/, and checks them against their schemas and against the program.
deploy-test: setup
	scripts/unit.sh compile
	scripts/deploy-test.sh $(TOOLS) target/debug/callgate

# Compares rules, dashboard and metrics with each other, and plays incidents with a real Prometheus.
observability: setup
	scripts/unit.sh compile
	scripts/observability.sh $(TOOLS) target/debug/callgate

# Tests the admin page in a real browser. If none is installed, downloads a headless Chromium into .tools/.
page-test: setup
	scripts/unit.sh compile
	@browser=$$(scripts/browser.sh $(TOOLS)) && python3 tests/page/run.py --callgate target/debug/callgate --browser "$$browser"

# Does the same as a part of `make test`. If no browser can be installed, prints a message and does not fail.
page: setup
	scripts/unit.sh compile
	@if browser=$$(timeout 60 scripts/browser.sh $(TOOLS)); then \
	    python3 tests/page/run.py --callgate target/debug/callgate --browser "$$browser"; \
	else echo "THE PAGE WAS NOT LOOKED AT: no browser" >&2; fi

build: setup
	$(CARGO) build --release --locked

# Builds the image of deploy/Dockerfile for real, runs it, and prints its size. Needs root, buildah and mmdebstrap. The
# build stage copies the program of the tests; FULL=1 compiles it there, which takes many minutes.
image-test: setup
	scripts/unit.sh compile
	scripts/image-test.sh $(TOOLS) target/debug/callgate

# Packs a release into dist/: an archive with the program, its man page, completions, schema, documentation and bill of
# materials (CycloneDX), and SHA256SUMS. Two runs of the same commit make the same archive.
dist: build
	scripts/dist.py target/release/callgate dist

# Compares Callgate with bare pingora, HAProxy, nginx with Lua, and Envoy. BENCH="--help" shows how to run parts of it, and
# HAPROXY=/path/to/haproxy compares with another version.
BENCH ?= --write
bench: build
	CARGO_TARGET_DIR=target/rig $(CARGO) build --release --manifest-path benches/rig/Cargo.toml
	python3 benches/bench.py $(BENCH)

# Measures memory and time of a million interactions, the file store beside SQLite, and a restart with a million.
bench-ledger: setup
	CARGO_TARGET_DIR=target/rig $(CARGO) build --release --manifest-path benches/rig/Cargo.toml
	scripts/bench-ledger.sh target/rig/release/ledger

# Sends RATE callbacks per second for SECONDS to a default installation, with each store. None may be denied, and the
# memory must not grow after the memory of events is full.
SECONDS ?= 1800
RATE ?= 5000
soak: build
	CARGO_TARGET_DIR=target/rig $(CARGO) build --release --manifest-path benches/rig/Cargo.toml
	python3 benches/soak.py --seconds $(SECONDS) --rate $(RATE)

# Measures nanoseconds and allocations per decision.
bench-decide: setup
	$(CARGO) bench --locked --bench decide

# Counts instructions and allocations of decisions, callbacks and requests of the agent. Compares with benches/baseline.txt.
count: setup
	scripts/count.sh $(TOOLS) $(WRITE)

# Counts only the allocations, with what the tests have compiled.
count-small: setup
	scripts/unit.sh compile
	SMALL=1 scripts/count.sh $(TOOLS)

# Kills the process under load, and cuts the power of its disk, until CALLBACKS callbacks are acknowledged in each loop.
# Afterwards all of them must exist, and none may be delivered again. The suite does the same for a few hundred.
CALLBACKS ?= 10000
crash-loop: setup
	CALLGATE_CALLBACKS=$(CALLBACKS) $(CARGO) test --locked --test suite -- --nocapture --test-threads 1 nothing_acknowledged

# Kills a process with an inbox KILLS times under load, and once at each write and each sync of its file between the
# acceptance of a callback and the end of its delivery, with and without a power cut. Compares the 202s with what the agent
# received.
crash-loop-inbox: KILLS ?= 1000
crash-loop-inbox: setup
	CALLGATE_KILLS=$(KILLS) $(CARGO) test --locked --test suite -- --nocapture --test-threads 1 inbox::crash::

# Runs three members with crashes, pauses, drains and partitions between them for DURATION seconds, once with ledgers in
# memory and once with ledgers in files, and checks the history afterwards. Then does the same with one ledger on Redis and
# on Valkey, until KILLS primaries of each were killed: a primary has two replicas, and both confirm each change. The third
# shared ledger is on a cluster of three primaries with one replica each. SEED
# selects the history. BINARY=target/release/callgate runs members of another build. A run that fails keeps its history and
# the logs of all processes in a folder in target/tmp, and names it.
DURATION ?= 300
SEED ?= 1
BINARY ?=
chaos: KILLS ?= 100
chaos: setup engines
	CALLGATE_CHAOS_SECONDS=$(DURATION) CALLGATE_CHAOS_SEED=$(SEED) CALLGATE_PRIMARY_KILLS=$(KILLS) $(if $(BINARY),CALLGATE_BINARY=$(abspath $(BINARY))) \
	  $(CARGO) test --locked --test suite -- --nocapture --test-threads 1 chaos::chaos_of

# Changes the base configurations at every place. `make test` changes them at a sample of the places.
exhaustive: setup
	CALLGATE_EXHAUSTIVE=1 $(CARGO) test --locked --test suite -- --nocapture attack_configs::

# Simulates members that share ledgers, in virtual time, with lost calls, restarts and failovers, until INTERACTIONS
# interactions have ended with each of SEEDS seeds, from SEED on. Checks the history afterwards, and prints what an
# interaction costs. A failure prints its seed and the command that repeats it. PROFILE is the profile of cargo. The unit
# tests do the same for some thousand.
N ?= 1000000
INTERACTIONS ?= $(N)
SEEDS ?= 1
PROFILE ?= release
simulate: setup
	CALLGATE_SIMULATE=$(INTERACTIONS) CALLGATE_SIMULATE_SEED=$(SEED) CALLGATE_SIMULATE_SEEDS=$(SEEDS) \
	  $(CARGO) test --locked --profile $(PROFILE) --lib simulation:: -- --nocapture --test-threads 1

# Separates three members, each in a network namespace of its own, by taking links down. Then separates the nodes, the
# sentinels and the members of a shared ledger from some of the others, also in one direction, PARTITIONS times at random
# besides the fixed partitions, and checks the history afterwards. Needs root, `ip` and `iptables`.
PARTITIONS ?= 8
partition: setup engines
	scripts/unit.sh compile
	python3 tests/partition.py target/debug/callgate
	CALLGATE_PARTITIONS=$(PARTITIONS) CALLGATE_CHAOS_SEED=$(SEED) unshare --net --mount --pid --fork --kill-child --mount-proc \
	  sh -c 'mount -t tmpfs tmpfs /run && exec $(CARGO) test --locked --test suite -- --ignored --nocapture partial_partitions'

# Measures what the hop to another replica adds to a callback.
bench-hop: setup
	$(CARGO) build --release --locked
	python3 benches/hop.py --callgate target/release/callgate

# Checks licences, sources and duplicate versions of the dependencies. Takes seconds.
dependencies:
	python3 scripts/dependencies.py Cargo.toml fuzz/Cargo.toml

# Does the same with cargo-deny, which takes minutes to build, and checks known vulnerabilities if their database can be downloaded.
deny: setup
	@scripts/deny.sh $(TOOLS)

# Runs each fuzz target, or those in TARGETS, for SECONDS_EACH. Stops at the first finding.
SECONDS_EACH ?= 60
fuzz:
	@command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked --root $(TOOLS)
	@scripts/fuzz.sh $(SECONDS_EACH) $(TARGETS)

# Changes the code at NUMBER places that SEED draws, and reports each change that no test notices. Takes hours.
NUMBER ?= 400
SEED ?= 1
MUTANTS_VERSION := 27.1.0
mutants: setup
	@command -v cargo-mutants >/dev/null || $(CARGO) install cargo-mutants --version $(MUTANTS_VERSION) --locked --root $(TOOLS)
	scripts/mutants.sh $(NUMBER) $(SEED)

# Does the same with the few mutants of scripts/mutants-sample.txt. Does not install cargo-mutants, which takes minutes.
mutants-sample: setup
	@if command -v cargo-mutants >/dev/null; then scripts/mutants.sh sample; \
	else echo "NO MUTANTS WERE TESTED: cargo-mutants is missing; make mutants installs it" >&2; fi

clean:
	$(CARGO) clean
	rm -rf $(TOOLS)
