# Everything a person or CI calls. `make demo` and `make test` start from nothing
# but Go and Debian; whatever else they need they install.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BINARY  := bin/kaniko-build
MIRROR  ?= 127.0.0.1:5000
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo)
REPORT  := .cache/test-report
FUZZTIME ?= 60s
ROUNDS ?= 5

# Debian packages: what the demo uses, and what the tests use beside it.
DEMO_PACKAGES := busybox-static ca-certificates uidmap
TEST_PACKAGES := $(DEMO_PACKAGES) bzip2 chromium crun debootstrap docker-registry docker.io e2fsprogs gcc git libc6-dev libcap2-bin man-db openssh-client procps \
	python3 qemu-user-static runc skopeo strace tmux umoci xz-utils zstd

.PHONY: build demo test lint check unit conformance packages-demo packages mirror mirror-stop bench golden fuzz fuzz-dockerfile property schema clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BINARY) ./cmd/kaniko-build

# Manual pages of all commands, as the program writes them.
man: build
	rm -rf bin/man1
	$(BINARY) man bin/man1 >/dev/null
.PHONY: man

# The program, its manual pages, and completion of shells; DESTDIR is for packagers.
PREFIX ?= /usr/local
install: man
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/kaniko-build
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 644 bin/man1/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	$(BINARY) completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/kaniko-build
	$(BINARY) completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_kaniko-build
	$(BINARY) completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/kaniko-build.fish
.PHONY: install

# What the images of the root manifest copy that is not in the repository.
dist: build
	mkdir -p dist/executor dist/base
	cp $(BINARY) dist/executor/kaniko-build
	cp /etc/ssl/certs/ca-certificates.crt dist/executor/ca-certificates.crt
	cp /bin/busybox dist/executor/busybox
	cp /bin/busybox dist/base/busybox
.PHONY: dist

# The executor, debug, slim and warmer images, built with this program. They lie
# in its store; where a Docker engine answers it gets them too.
images: packages-demo dist
	$(BINARY) apply executor debug slim warmer
	@if command -v docker >/dev/null && docker version >/dev/null 2>&1; then \
		for image in executor:executor:latest debug:executor:debug slim:executor:slim warmer:warmer:latest; do \
			$(BINARY) build --progress quiet --image-format docker -f images/executor/Dockerfile --target "$${image%%:*}" \
				-t "kaniko-build/$${image#*:}" -o type=docker,dest=- dist/executor | docker load; \
		done; \
	fi
.PHONY: images

demo: packages-demo dist
	$(BINARY) apply

packages-demo:
	test/install $(DEMO_PACKAGES)

packages:
	test/install $(TEST_PACKAGES)

# The emulators of clouds that ./test/clouds runs, by the versions that
# test/emulators holds. A node that is there already is used.
EMULATORS := .cache/emulators
emulators: $(EMULATORS)/fake-gcs-server $(EMULATORS)/node_modules
.PHONY: emulators

$(EMULATORS)/fake-gcs-server: test/emulators/go.mod test/emulators/go.sum
	mkdir -p $(EMULATORS)
	cd test/emulators && CGO_ENABLED=0 go build -ldflags "-s -w" -o $(CURDIR)/$@ github.com/fsouza/fake-gcs-server

$(EMULATORS)/node_modules: test/emulators/package.json test/emulators/package-lock.json
	command -v npm >/dev/null || test/install nodejs npm
	mkdir -p $(EMULATORS) && cp $^ $(EMULATORS)/
	cd $(EMULATORS) && npm ci --omit dev --ignore-scripts --no-audit --no-fund --loglevel error && touch node_modules

# Kubernetes' own code for an exec and a pod, which the runner kubernetes is tested with.
PARTS := .cache/kubernetes/parts
$(PARTS): test/k8s/go.mod test/k8s/go.sum test/k8s/parts/main.go
	mkdir -p $(dir $(PARTS))
	cd test/k8s && CGO_ENABLED=0 go build -ldflags "-s -w" -o $(CURDIR)/$@ ./parts

# The tests of single packages first, then those of the whole program, one
# package at a time: they count processes and time builds. The latter make
# accounts, so they run as root.
test: packages dist emulators $(PARTS)
	mkdir -p .cache && rm -f $(REPORT)
	KANIKO_BUILD_TEST_KUBERNETES_PARTS=$(CURDIR)/$(PARTS) go test -timeout 20m $$(go list ./... | grep -v '^kaniko-build/test')
	$(SUDO) env "PATH=$$PATH" KANIKO_BUILD_TEST_REPORT=$(CURDIR)/$(REPORT) go test -p 1 -timeout 40m ./test/...
	@cat $(REPORT)

unit: $(PARTS)
	KANIKO_BUILD_TEST_KUBERNETES_PARTS=$(CURDIR)/$(PARTS) go test -timeout 20m $$(go list ./... | grep -v '^kaniko-build/test')

# The runner kubernetes, and the Jobs of the examples, with a real cluster of one node: API server, scheduler, kubelet.
# To build it takes 15 to 25 minutes on two CPUs, once on a machine; the tests take one.
test-kubernetes: packages emulators
	test/install containerd containernetworking-plugins iproute2 runc
	program=$$(test/k8s/hyper/build) && $(SUDO) env "PATH=$$PATH" KANIKO_BUILD_TEST_KUBERNETES=$$program \
		go test -timeout 15m -count=1 -v ./test/kubernetes
.PHONY: test-kubernetes

conformance: packages
	mkdir -p .cache && rm -f $(REPORT)
	$(SUDO) env "PATH=$$PATH" KANIKO_BUILD_TEST_REPORT=$(CURDIR)/$(REPORT) go test -timeout 40m ./test/conformance
	@cat $(REPORT)

# The house rules (who may import whom, who may print, exit, change the process)
# are a Go test.
lint:
	@bad=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$bad" ]; then echo "not formatted by gofmt:"; echo "$$bad"; exit 1; fi
	go vet ./...
	go test -count=1 ./test/house

check: lint test

# Base images under the names of a hub, in a registry at $(MIRROR).
mirror: packages
	go build -o bin/mirror ./test/cmd/mirror
	$(SUDO) env "PATH=$$PATH" bin/mirror -addr $(MIRROR)

mirror-stop:
	$(SUDO) bin/mirror -addr $(MIRROR) -stop

bench: packages build
	go build -o bin/bench ./test/cmd/bench
	$(SUDO) unshare --mount env "PATH=$$PATH" bin/bench -binary $(BINARY)
	$(SUDO) env "PATH=$$PATH" go test -timeout 30m -run '^$$' -bench . -benchtime 11x ./test/watch
	$(MAKE) bench-container

# watch through 2,000 saves: what it holds does not grow.
soak: packages
	$(SUDO) env "PATH=$$PATH" KANIKO_BUILD_SOAK=2000 go test -timeout 60m -count=1 -v -run TestNothingGrows ./test/watch
.PHONY: soak

# The executor image in Docker's default container, with the cache off and on.
# KANIKO names a static executor of kaniko's, built elsewhere: it takes turns with
# ours, and the ratio of their times is judged. WORKLOADS chooses.
bench-container: packages build
	go build -o bin/bench ./test/cmd/bench
	$(SUDO) unshare --mount env "PATH=$$PATH" bin/bench -container -binary $(BINARY) $(if $(KANIKO),-peer $(KANIKO)) -n $(ROUNDS) $(WORKLOADS)
.PHONY: bench-container

# The JSON Schema of manifests, made of the tables in schema/language.go. A test
# fails while it is stale.
schema:
	go test ./schema -run TestJSONSchemaIsPublished -update
	git --no-pager diff --stat -- schema/kaniko-build.schema.json

# Rewrites golden files; read the difference before you commit it.
golden:
	@packages=$$(git grep -l 'flag.Bool("update"' -- '*_test.go' | xargs -r -n1 dirname | sort -u | sed 's,^,./,'); \
	if [ -n "$$packages" ]; then go test $$packages -update; fi
	UPDATE_SCRIPTS=1 go test ./cmd/kaniko-build
	git --no-pager diff --stat

# Every fuzz target of every package for $(FUZZTIME).
fuzz:
	@git grep -hn '^func Fuzz' -- '*_test.go' >/dev/null || { echo "no fuzz target"; exit 1; }
	@git grep -o '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | while IFS=: read -r file func; do \
		echo "$$(dirname $$file) $${func#func }"; \
		go test "./$$(dirname $$file)" -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME); \
	done

# Random Dockerfiles, built cold, warm and in another order; with BUILDCTL set
# they are compared with BuildKit too. SEEDS=FROM-TO chooses, FUZZTIME ends it.
fuzz-dockerfile: packages build
	$(SUDO) env "PATH=$$PATH" KANIKO_BUILD_FUZZ_TIME=$(FUZZTIME) BUILDCTL="$${BUILDCTL:-}" SEEDS="$${SEEDS:-}" \
		go test -timeout 0 -count=1 -v -run TestRandomDockerfiles ./test/fuzz

# Random edits to random monorepos, each state built warm and cold. ROUNDS and
# SEED choose; what fails prints both.
property: packages build
	$(SUDO) env "PATH=$$PATH" SEED="$${SEED:-1}" ROUNDS="$${ROUNDS:-500}" go test -timeout 0 -count=1 -v -run TestRandomEdits ./test/property

clean:
	rm -rf bin dist .cache
