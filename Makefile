# Caravan. `make` alone lists what can be made.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(wildcard services/*/pyproject.toml infra/*/pyproject.toml)
IMAGES := cli delivery edge edge-manager feeder model-server monitor shopper training
EDGE_PACKAGES := services/shopper/pyproject.toml services/edge-manager/pyproject.toml \
	services/monitor/pyproject.toml infra/model-server/pyproject.toml
SOURCES := services infra tests
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-emit-package caravan-common \
	--no-emit-package caravan-local
SUBSET := $(COMPILE) -c requirements/all.txt --no-annotate
NO_TENSORFLOW := --overrides requirements/no-tensorflow.in

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z.-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up -----------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/installed ## Install everything into .venv, pinned and hash-checked

$(BIN)/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Caravan needs Python 3.11 or later; say which: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt

$(VENV)/installed: $(BIN)/uv requirements/all.txt $(PACKAGES)
	@echo "Installing Caravan and what it needs (TensorFlow is large: a few minutes on a slow line)"
	@$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/all.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation \
		$(foreach p,$(PACKAGES),-e $(dir $(p)))
	@touch $@

.PHONY: lock
lock: $(BIN)/uv ## Pin the requirements again, with hashes: all.txt, and of it what each image has
	@$(COMPILE) $(PACKAGES) requirements/dev.in -o requirements/all.txt
	@for i in $(filter-out edge shopper,$(IMAGES)); do $(SUBSET) */$$i/pyproject.toml -o requirements/$$i.txt || exit 1; done
	@$(SUBSET) $(NO_TENSORFLOW) services/shopper/pyproject.toml -o requirements/shopper.txt
	@$(SUBSET) $(NO_TENSORFLOW) $(EDGE_PACKAGES) requirements/edge.in -o requirements/edge.txt
	@$(SUBSET) --no-deps requirements/stubs.in -o requirements/stubs.txt
	@for n in manifests docs release; do $(SUBSET) requirements/$$n.in -o requirements/$$n.txt || exit 1; done
	@for c in requirements/clients/*.in; do $(COMPILE) $$c --no-annotate -o $${c%.in}.txt; done

PROTO := model_server/open_inference.proto

.PHONY: protos
protos: setup ## Write the Python modules of the gRPC messages that are our own to make
	@cd infra/model-server && ../../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. $(PROTO)

# --- the stack on this machine ------------------------------------------------------------------

STACK := $(BIN)/python -m local_stack
LAB := $(BIN)/python -m lab

.PHONY: up start stop status clean demo
up: setup ## Run the whole stack here, with a live table (EDGES="edge1 edge2" for two edges)
	@$(STACK) up

start: setup ## Start the stack in the background, and wait until all of it is ready
	@$(STACK) start

stop: ## Stop the stack; what it stored stays
	@$(STACK) stop

status: ## Show every part of the stack
	@$(STACK) status

clean: ## Stop the stack and remove all that it stored
	@$(STACK) clean

demo: setup ## Watch it learn a product that it did not know (your photos: DATA=first.zip NEW=new.zip)
	@$(LAB) demo $(if $(DATA),--data '$(DATA)') $(if $(NEW),--new '$(NEW)')

.PHONY: edge
edge: setup ## Run an edge alone in little memory, until Ctrl-C (EDGES=edge1, central by S3_CENTRAL_ENDPOINT …)
	@CARAVAN_HOME=$${CARAVAN_HOME:-.caravan/edge} $(BIN)/python -m local_stack.small_edge

# --- other people's brokers and stores --------------------------------------------------------------

ENGINES := infra/local/engines

KAFKA_JARS := $(ENGINES)/kafka/jars
VERSITYGW := $(ENGINES)/versitygw/versitygw
CHOSEN := $(if $(KAFKA),$(KAFKA_JARS)) $(if $(filter versitygw,$(S3)),$(VERSITYGW))
FETCHED := $(if $(or $(KAFKA),$(MQTT),$(S3)),$(CHOSEN),$(KAFKA_JARS) $(VERSITYGW))

.PHONY: engines
engines: $(FETCHED) ## Fetch Apache Kafka and build versitygw, or only those chosen (KAFKA=apache S3=versitygw)

$(KAFKA_JARS): $(ENGINES)/kafka/pom.xml
	@command -v mvn >/dev/null || { echo "KAFKA=apache is fetched with Maven (Debian: apt-get install maven)"; exit 1; }
	@mvn -q -B -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=jars.new
	@cd $(@D) && rm -rf jars && mv jars.new jars && touch jars

$(VERSITYGW): $(ENGINES)/versitygw/go.mod
	@command -v go >/dev/null || { echo "S3=versitygw is built with Go 1.25 or later"; exit 1; }
	@cd $(@D) && go build -o $(@F) github.com/versity/versitygw/cmd/versitygw

# --- TLS and cameras ------------------------------------------------------------------------------

.PHONY: certs
certs: setup ## Make certificates for MQTT over TLS (HOSTS="shop.example.org" CLIENTS="till-3")
	@$(STACK) certs $(foreach h,$(HOSTS),--host '$(h)') $(foreach c,$(CLIENTS),--client '$(c)')

COUNT ?= 10
RATE ?= 2
DURATION ?= 60
OVER ?= mqtt

.PHONY: cameras
cameras: setup ## Film with simulated cameras; compare with the hub (COUNT RATE DURATION OVER DATA EDGE TLS=1)
	@$(LAB) cameras --count $(COUNT) --rate $(RATE) --seconds $(DURATION) --over $(OVER) \
		$(if $(DATA),--data '$(DATA)') $(if $(EDGE),--edge $(EDGE)) $(if $(TLS),--tls)

# --- data to try it on ----------------------------------------------------------------------------

.PHONY: digits.zip
digits.zip: setup ## Write scikit-learn's handwritten digits as a training ZIP
	@$(LAB) samples digits --out $@

.PHONY: fashion.zip apparel-score
fashion.zip: setup ## Train a small Keras convnet on Fashion-MNIST, as a model to send (FASHION_MNIST=folder)
	@$(LAB) samples apparel --out $@ $(if $(FASHION_MNIST),--data '$(FASHION_MNIST)')

apparel-score: setup ## Ask the stack about Fashion-MNIST's 10,000 test pictures over MQTT (EDGE TLS=1)
	@$(LAB) samples apparel-score $(if $(FASHION_MNIST),--data '$(FASHION_MNIST)') \
		$(if $(EDGE),--edge $(EDGE)) $(if $(TLS),--tls)

# --- operating it -------------------------------------------------------------------------------

EDGE ?= edge1
MODEL ?= tea_model_b64
AS_STACK := $(STACK) exec --edge $(EDGE) -- $(BIN)/python -m

.PHONY: account origin quarantine release replay report rollback trace which withdraw
account: setup ## Account for every image of an edge (EDGE=edge1)
	@$(AS_STACK) caravan account

quarantine: setup ## Batches that wait for a person, as their labels are probably wrong (EDGE=edge1; BATCH=id DO=show or release)
	@$(AS_STACK) caravan quarantine $(if $(BATCH),$(or $(DO),show) '$(BATCH)')

withdraw: setup ## Take an image or a batch out of an edge's data for good (EDGE=edge1 IMAGE=images/tea/a.jpg or BATCH=id REASON=… LABEL_ONLY=1)
	@$(AS_STACK) caravan withdraw '$(or $(BATCH),$(IMAGE),$(error say which: make withdraw IMAGE=images/tea/a.jpg or BATCH=id))' \
		--reason '$(REASON)' $(if $(LABEL_ONLY),--label-only)

which: setup ## Name every version that saw an image, by the SHA-256 of its content or its key (IMAGE=…)
	@$(AS_STACK) caravan which '$(or $(IMAGE),$(error say which: make which IMAGE=<SHA-256>))'

replay: setup ## Send a topic's dead letters on their way again (TOPIC=trigger)
	@$(AS_STACK) caravan replay $(or $(TOPIC),$(error say which: make replay TOPIC=trigger))

report: setup ## Write a version's training report to a file (EDGE=edge1 MODEL=tea_model_b64 VERSION=3)
	@$(AS_STACK) caravan report $(MODEL) $(if $(VERSION),--version $(VERSION)) $(if $(OUT),--out '$(OUT)')

origin: setup ## Tell where a version comes from, and who vouches for that (EDGE=edge1 MODEL=tea_model_b64 VERSION=3)
	@$(AS_STACK) caravan origin $(MODEL) $(if $(VERSION),--version $(VERSION))

rollout: setup ## How far a version has come at a group's edges (EDGE=north; DO=hold, promote or stop REASON=… MODEL=tea_model_b64)
	@$(AS_STACK) caravan rollout $(DO) $(if $(MODEL),--model $(MODEL)) $(if $(REASON),--reason '$(REASON)')

trace: setup ## Draw what the last upload or detection did in all services (TRACE=id UPLOAD=batch)
	@$(BIN)/python -m caravan trace $(TRACE) $(if $(UPLOAD),--upload $(UPLOAD),$(if $(TRACE),,--last))

rollback: setup ## Serve an older version again, and no other until make release (EDGE=edge1 MODEL=tea_model_b64 TO=1)
	@$(AS_STACK) training rollback --edge $(EDGE) --model $(MODEL) \
		--to $(or $(TO),$(error say which: make rollback TO=1))

release: setup ## Let newer versions serve again after a rollback (EDGE=edge1 MODEL=tea_model_b64)
	@$(AS_STACK) training release --edge $(EDGE) --model $(MODEL)

# --- quality ----------------------------------------------------------------------------------

.PHONY: check
check: setup ## Format, lint and types
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy $(SOURCES)

.PHONY: format
format: setup ## Put the sources into shape
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

.PHONY: test
test: setup ## Run all tests; the stack tests start the real embedded stack on free ports
	@$(BIN)/pytest -n 3 tests/unit tests/loop tests/faults tests/stack

.PHONY: test-unit
test-unit: setup ## Run the tests that need no other process
	@$(BIN)/pytest tests/unit

.PHONY: test-stack
test-stack: setup ## Run the tests against the stack (KAFKA=apache MQTT=mosquitto S3=versitygw)
	@$(BIN)/pytest tests/stack tests/loop

.PHONY: test-faults
test-faults: setup ## Kill processes of a running stack and see the promises hold
	@$(BIN)/pytest tests/faults

.PHONY: test-sites
test-sites: setup ## Run central and an edge on networks of their own, and cut the link between them
	@$(BIN)/pytest tests/sites

.PHONY: web
web: ## Fetch what the app can use and its tests need, out of npm
	@command -v npm >/dev/null || { echo "make web needs npm (Debian: apt-get install npm)"; exit 1; }
	@cd services/shopper/npm && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

.PHONY: test-browser
test-browser: setup ## Drive the app with Chromium, before the real embedded stack
	@$(BIN)/pytest tests/browser

.PHONY: screenshots
screenshots: setup ## Take pictures of every page into docs/screenshots
	@cd tests && ../$(BIN)/python -m support.screenshots ../docs/screenshots

# --- documentation and release ------------------------------------------------------------------

$(VENV)/docs: $(VENV)/installed requirements/docs.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes -r requirements/docs.txt
	@touch $@

.PHONY: docs
docs: $(VENV)/docs ## Write the pages that are made from the code, and build the site of all pages into build/site
	@cd tests && ../$(BIN)/python -m support.written ../build/site-source
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict 2>build/site.log || { cat build/site.log; exit 1; }
	@! grep -rlE '(src=|<link [^>]*href=)"?https?:' build/site --include='*.html' || \
		{ echo "these pages load something from elsewhere"; exit 1; }
	@echo "The site is in build/site: open build/site/index.html, or, for its search too, what this shows:"
	@echo "  $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site"

$(VENV)/release: $(VENV)/installed requirements/release.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes -r requirements/release.txt
	@touch $@

.PHONY: hooks
hooks: $(VENV)/release ## Have git run the checks before each commit, by the project's own tools
	@$(BIN)/python -m pre_commit install

SBOM := dist/sbom

.PHONY: sbom
sbom: $(VENV)/release ## Write what each image contains as CycloneDX, out of the locks, into dist/sbom
	@cd tests && ../$(BIN)/python -m support.sbom ../$(SBOM)
	@ls $(SBOM)

.PHONY: wheels
wheels: setup ## Build a wheel and an sdist of each package into dist/
	@for p in $(PACKAGES); do \
		$(BIN)/uv build --quiet --python $(BIN)/python --no-build-isolation -o dist $$(dirname $$p) || exit 1; done
	@ls dist

.PHONY: cut-release
cut-release: setup ## Check everything, build wheels, sdists and SBOMs into dist/, and tag VERSION; not on a dirty tree
	@sh .ci/may-release $(RELEASE)
	@rm -rf dist
	@$(MAKE) --no-print-directory check manifests test docs wheels sbom
	@sh .ci/may-release $(RELEASE)
	@git tag -a v$(RELEASE) -m "Caravan $(RELEASE)"
	@echo "v$(RELEASE) is tagged and in dist/; nothing was sent anywhere: git push origin v$(RELEASE)"

# --- images and manifests -----------------------------------------------------------------------

ENGINE ?= docker
RELEASE := $(shell cat VERSION)
TAG ?= $(RELEASE)

.PHONY: images
images: ## Build the container images (ENGINE=podman REGISTRY=registry.example.org/ TAG=1.2.3 IMAGES="shopper edge")
	@for i in $(IMAGES); do $(ENGINE) build -f infra/Dockerfile --build-arg SERVICE=$$i \
		--build-arg VERSION=$(RELEASE) -t $(REGISTRY)caravan/$$i:$(TAG) . || exit 1; done

$(VENV)/manifests: $(VENV)/installed requirements/manifests.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes -r requirements/manifests.txt
	@touch $@

.PHONY: manifests
manifests: $(VENV)/manifests ## Check images, Compose and Kubernetes manifests, without an engine or a cluster
	@$(BIN)/pytest -q tests/manifests

.PHONY: test-images
test-images: setup ## Do the steps of each image in a clean virtual environment, and start what is built
	@$(BIN)/pytest tests/images

.PHONY: soak
soak: setup ## Carry 200,000 messages on each topic that grows, and see that the next one comes at once (COUNT=2000)
	@PYTHONPATH=tests $(if $(filter command%,$(origin COUNT)),COUNT=$(COUNT),COUNT=) $(BIN)/python tests/soak/soak_broker.py

.PHONY: bench
bench: setup ## Measure each part beside its limit and its peers, into docs/performance.md (BEFORE=checkout ONLY="bench_detect.py")
	@PYTHONPATH=tests $(BIN)/python tests/bench/performance.py $(BEFORE) $(if $(ONLY),--only '$(ONLY)')

.PHONY: scaling
scaling: setup ## Tell from what was measured what 10, 1,000 and 100,000 edges need
	@PYTHONPATH=tests $(BIN)/python tests/bench/scaling.py

.PHONY: study
study: setup ## Measure what is learnt, by a build before and by this one, into docs/learning.md (DATA=../shared/data)
	@PYTHONPATH=tests $(BIN)/python -m study.study $(DATA)

.PHONY: bench-delivery
bench-delivery: setup ## Measure what a new version costs the link to an edge, on this machine alone
	@PYTHONPATH=tests $(BIN)/python tests/bench/bench_delivery.py

.PHONY: bench-hostile
bench-hostile: setup ## Measure what slow and costly senders cost the others, on this machine alone
	@$(BIN)/python tests/bench/bench_hostile.py
