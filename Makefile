# Everything that is done to this repository. It needs Go, git and make; a C compiler adds the race detector to test.

VERSION    ?= $(shell git describe --tags --always --abbrev=12 --dirty 2>/dev/null || echo dev)
REVISION   ?= $(shell git rev-parse HEAD 2>/dev/null)
IMAGE_ARCH ?= amd64
FUZZTIME   ?= 20000x
BENCH      ?= .
BENCHCOUNT ?= 1
LOAD       ?=
CA         ?= /etc/ssl/certs/ca-certificates.crt
SUITES     ?=
PLATFORMS  ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
KEY        ?=
PUBLIC     ?=
REPOSITORY ?= ghcr.io/hallmark-admission/hallmark

LDFLAGS    := -s -w -X main.version=$(VERSION)
# What a program was built from stands in it where git is there; a release needs that, whatever GOFLAGS says.
BUILDVCS   ?= auto
GOBUILD     = CGO_ENABLED=0 go build -trimpath -buildvcs=$(BUILDVCS) -ldflags "$(LDFLAGS)"
# Directories with packages of the product's module.
SOURCES    := cmd policies test webhook

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | while IFS=: read -r target text; do \
		printf '  %-15s %s\n' "$$target" "$${text##*## }"; done
	@echo; echo "Variables: VERSION IMAGE_ARCH FUZZTIME BENCH BENCHCOUNT LOAD CA SUITES PLATFORMS KEY PUBLIC REPOSITORY"

.PHONY: build
build: ## Build bin/hallmark, static
	$(GOBUILD) -o bin/hallmark ./cmd/hallmark

.PHONY: demo
demo: build ## Build it and see it work: no cluster and no network needed
	bin/hallmark demo

.PHONY: test
test: ## Run all suites and tell which ran; SUITES="vet unit" for some, SUITES="-skip e2e" for the others
	go run ./test/suites $(SUITES)

.PHONY: e2e
e2e: ## Test the webhook behind a real API server; the first time builds Kubernetes, which takes a while
	go run ./test/suites e2e

.PHONY: e2e-node
e2e-node: ## Install the chart on a real Kubernetes node, as root on Debian; apart from namespaces of its own nothing is touched
	go run ./test/suites -strict e2e-node

# The modules with code beside the product's.
MODULES := $(addprefix test/,chart cluster cosign distribution pinned release)

.PHONY: lint
lint: bin/.tools ## Build the tools of test/tools and run golangci-lint on every module, actionlint and govulncheck
	@for module in . $(MODULES); do (cd $$module && $(CURDIR)/bin/golangci-lint run ./...) || exit 1; done
	bin/actionlint
	@bin/govulncheck ./...; case $$? in \
		0) ;; \
		3) exit 1 ;; \
		*) echo "lint: vulnerabilities were NOT checked: govulncheck could not run, see above (GOVULNDB names a mirror)" ;; \
	esac

.PHONY: vulnerabilities
vulnerabilities: bin/.tools ## Run govulncheck, which has to be able to
	bin/govulncheck ./...

bin/.tools: $(wildcard test/tools/go.* test/tools/*/go.*)
	GOBIN=$(CURDIR)/bin go -C test/tools install tool
	GOBIN=$(CURDIR)/bin go -C test/tools/actionlint install tool
	@touch $@

.PHONY: fuzz
fuzz: ## Fuzz every target with FUZZTIME inputs each (20000x), or for a time (1m)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' $(SOURCES) | sort | { failed=0; \
	while IFS=: read -r file name; do \
		name=$${name#func }; echo "== $$name in $${file%/*}, $(FUZZTIME)"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$${file%/*}" </dev/null || failed=1; \
	done; exit $$failed; }

.PHONY: bench
bench: ## Run the benchmarks; BENCH=regexp for some, BENCHCOUNT=10 to compare with bin/benchstat
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCHCOUNT) ./...

.PHONY: bench-compare bench-accept bench-load bench-api
bench-compare: bin/.tools ## Run the benchmarks and compare with the accepted table by benchstat
	@mkdir -p dist
	go test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime 100x -cpu 1 -count 6 -p 1 ./cmd/... ./webhook/... >dist/bench.txt
	bin/benchstat test/bench/accepted.txt dist/bench.txt

bench-accept: ## Accept what the benchmarks allocate now: writes test/bench/accepted.txt, by which CI holds them
	go run ./test/bench/allocs -accept

bench-load: build ## Load the real binary beside a floor; LOAD="-latency 50ms cold herd", see docs/performance.md
	go run ./test/bench -binary bin/hallmark $(LOAD)

bench-api: ## Create pods through a real API server with and without Hallmark; LOAD="-pods 5000"
	go -C test/cluster run ./bench $(LOAD)

.PHONY: image
image: ## Write the container image to dist/image as an OCI layout and print its digest; IMAGE_ARCH="amd64 arm64"
	@for arch in $(IMAGE_ARCH); do \
		GOOS=linux GOARCH=$$arch $(GOBUILD) -o dist/hallmark-linux-$$arch ./cmd/hallmark || exit 1; done
	@go run ./test/image $(patsubst %,-binary dist/hallmark-linux-%,$(IMAGE_ARCH)) -ca $(CA) -out dist/image \
		-version $(VERSION) -revision "$(REVISION)"

.PHONY: release
release: ## Write dist/release: programs, image, chart, SBOMs, provenance. KEY=cosign.key signs (COSIGN_PASSWORD), PUBLIC=FILE has to be its other half
release: BUILDVCS = true
release:
	@for p in $(PLATFORMS); do GOOS=$${p%/*} GOARCH=$${p#*/} $(GOBUILD) -o dist/hallmark-$${p%/*}-$${p#*/} ./cmd/hallmark || exit 1; done
	@$(MAKE) -s image BUILDVCS=true IMAGE_ARCH="$(patsubst linux/%,%,$(filter linux/%,$(PLATFORMS)))"
	@go -C test/release run . $(patsubst %,-binary $(CURDIR)/dist/hallmark-%,$(subst /,-,$(PLATFORMS))) -image $(CURDIR)/dist/image \
		$(patsubst %/Chart.yaml,-chart $(CURDIR)/%,$(wildcard charts/hallmark/Chart.yaml)) $(if $(KEY),-key $(abspath $(KEY))) \
		$(if $(PUBLIC),-public $(abspath $(PUBLIC))) -version $(VERSION) -revision "$(REVISION)" -repository $(REPOSITORY) -out $(CURDIR)/dist/release

.PHONY: push
push: ## Copy the image of dist/release, with all that is signed about it, to REPOSITORY
	@go -C test/release run . push -layout $(CURDIR)/dist/release/hallmark-image.tar $(REPOSITORY)

.PHONY: clean
clean: ## Remove what make has made; programs that were built for tests stay in the user's cache
	rm -rf bin dist
