# The two commands a newcomer needs are `make demo` and `make test`. Each installs what it lacks into
# .tools/, or says what that is.

SHELL := /bin/bash
TOOLS := $(CURDIR)/.tools
export PATH := $(TOOLS)/bin:$(PATH)
CARGO ?= cargo

.PHONY: demo test fmt lint core unit doc interop deploy-test observability page page-test bench bench-ledger bench-decide count crash-loop deny fuzz build setup clean

demo: setup
	$(CARGO) build --release --locked
	python3 tests/demo/play.py --callgate target/release/callgate

test: setup fmt lint core unit doc interop deploy-test observability page count deny
	@echo "all tests passed"

# cmake, which pingora's zlib needs to build.
setup:
	@scripts/setup.sh $(TOOLS)

fmt:
	$(CARGO) fmt --check

lint: setup
	$(CARGO) clippy --locked --all-targets -- -D warnings

# The deciding core compiles without pingora and tokio.
core:
	$(CARGO) check --locked --no-default-features --lib

unit: setup
	$(CARGO) test --locked

doc: setup
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --lib

# The providers' own client libraries sign, Callgate verifies.
interop: setup
	$(CARGO) build --locked
	scripts/interop.sh $(TOOLS) target/debug/callgate

# What is in deploy/, rendered and held against the program.
deploy-test: setup
	$(CARGO) build --locked
	scripts/deploy-test.sh $(TOOLS) target/debug/callgate

# Rules, dashboard and metrics against one another, and an incident with a real Prometheus.
observability: setup
	$(CARGO) build --locked
	scripts/observability.sh $(TOOLS) target/debug/callgate

# The page of the admin listener, in a real browser; brings a headless Chromium into .tools/ where there is none.
page-test: setup
	$(CARGO) build --locked
	@browser=$$(scripts/browser.sh $(TOOLS)) && python3 tests/page/run.py --callgate target/debug/callgate --browser "$$browser"

# The same as a part of `make test`: where a browser is lacking and cannot be had, that is said, and no failure.
page: setup
	$(CARGO) build --locked
	@if browser=$$(timeout 60 scripts/browser.sh $(TOOLS)); then \
	    python3 tests/page/run.py --callgate target/debug/callgate --browser "$$browser"; \
	else echo "THE PAGE WAS NOT LOOKED AT: no browser" >&2; fi

build: setup
	$(CARGO) build --release --locked

# Beside bare pingora, HAProxy, nginx with Lua and Envoy in one run; BENCH="--help" tells how to run parts of it.
BENCH ?= --write
bench: build
	CARGO_TARGET_DIR=target/rig $(CARGO) build --release --manifest-path benches/rig/Cargo.toml
	python3 benches/bench.py $(BENCH)

# Memory and time of a million interactions; the file store beside SQLite, in turns; a restart with a million.
bench-ledger: setup
	CARGO_TARGET_DIR=target/rig $(CARGO) build --release --manifest-path benches/rig/Cargo.toml
	scripts/bench-ledger.sh target/rig/release/ledger

# Nanoseconds and allocations per decision.
bench-decide: setup
	$(CARGO) bench --locked --bench decide

# Instructions and allocations of one decision and one delivered callback, against benches/baseline.txt.
count: setup
	scripts/count.sh $(TOOLS) $(WRITE)

# Kills the process under load, and cuts the power of its disk, until CALLBACKS callbacks are acknowledged each way: all
# must be there afterwards, and none may be delivered again. The suite does the same for a few hundred.
CALLBACKS ?= 10000
crash-loop: setup
	CALLGATE_CALLBACKS=$(CALLBACKS) $(CARGO) test --locked --test suite -- --nocapture --test-threads 1 nothing_acknowledged

# Licences, sources and banned crates, and the known vulnerabilities where the database of them can be had.
deny: setup
	@scripts/deny.sh $(TOOLS)

# Each fuzz target for SECONDS_EACH, or those that TARGETS names; the first finding stops. Needs a nightly compiler.
SECONDS_EACH ?= 60
fuzz:
	@command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked --root $(TOOLS)
	@scripts/fuzz.sh $(SECONDS_EACH) $(TARGETS)

clean:
	$(CARGO) clean
	rm -rf $(TOOLS)
