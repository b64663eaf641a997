# `make serve` sets everything up and serves on port 8000; `make test` sets up and tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= serve_config.yaml
URL ?= http://127.0.0.1:8000
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.installed-dev
ENGINES_INSTALLED := $(VENV)/.installed-engines
START_RAY := tests/e2e tests/chaos tests/bulk/cluster
IN_BROWSER := tests/browser
START_NO_RAY := $(addprefix --ignore=,$(START_RAY) $(IN_BROWSER))
SIDE_BY_SIDE := --numprocesses=auto --maxprocesses=4

.PHONY: serve test quick check format docs e2e-page hostile chaos soak fuzz sdk parity bench bench-sweeps bench-encoder bench-text bench-gpu bench-autoscale bench-bulk bench-embed lock clean

serve: $(INSTALLED)
	$(BIN)/raylens serve $(CONFIG)

test: $(DEV_INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(START_NO_RAY)
	$(BIN)/python -m pytest $(START_RAY)

# The tests that start no Ray, without those marked slow.
quick: $(DEV_INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(START_NO_RAY) -m "not slow"

check: $(DEV_INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(DEV_INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site in .site, with the tables that are made from the code.
docs: $(DEV_INSTALLED) requirements-docs.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --requirement requirements-docs.txt
	$(BIN)/python -m docs.tables
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pages in Chromium ($CHROMIUM, or the one in the PATH). Writes docs/images.
e2e-page: $(DEV_INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --requirement requirements-browser.txt
	$(BIN)/python -m pytest $(IN_BROWSER)

# Malformed images, addresses, paths and requests against a service of its own.
hostile: $(DEV_INSTALLED) .pngsuite
	$(BIN)/python -m tests.hostile

# Kills, stops and floods services of its own, and says what callers saw. Close to an hour.
chaos: $(DEV_INSTALLED)
	$(BIN)/python -m tests.chaos

# Twenty minutes of traffic with a kill every two. Writes soak.json and soak.png.
soak: $(DEV_INSTALLED)
	$(BIN)/python -m tests.chaos.soak

# PngSuite, from one of Debian's packages. Elsewhere: unpack it into .pngsuite/pngsuite.
.pngsuite:
	rm -rf $@.new && mkdir $@.new
	cd $@.new && apt-get --quiet=2 -o APT::Sandbox::User=root download libsixel-examples && dpkg-deb --extract *.deb .
	mv $@.new $@

# Coverage-guided fuzzing of decoding and of URLs, FUZZ_S seconds each.
FUZZ_S ?= 600
fuzz: $(DEV_INSTALLED)
	$(BIN)/pip install --quiet --requirement requirements-fuzz.txt
	$(BIN)/python -m tests.hostile.fuzz url .fuzz/url -artifact_prefix=.fuzz/ -max_total_time=$(FUZZ_S)
	$(BIN)/python -m tests.hostile.fuzz decode .fuzz/decode -artifact_prefix=.fuzz/ -max_total_time=$(FUZZ_S) -rss_limit_mb=4096

# Other services' own clients against a service of its own. SDK=openai runs those of that name alone.
sdk: $(DEV_INSTALLED) .venv-sdk/.installed .venv-sdk-cohere5/.installed
	$(BIN)/python -m tests.sdk $(SDK)

# How far the vectors are from those of transformers, family by family.
parity: $(DEV_INSTALLED)
	$(BIN)/python -m benchmarks.parity

# raylens, infinity and the bare model side by side.
bench: $(ENGINES_INSTALLED) .venv-infinity/.installed
	$(BIN)/python -m benchmarks.serving --out benchmarks/results $(BENCH)

# How raylens's cost grows with images, requests, batches and replicas.
bench-sweeps: $(DEV_INSTALLED)
	$(BIN)/python -m benchmarks.sweeps --out benchmarks/results $(BENCH)

# raylens bulk, map_batches by hand and sentence-transformers, on the same photos.
bench-bulk: $(DEV_INSTALLED)
	$(BIN)/python -m benchmarks.bulk $(BENCH)

# raylens embed beside the bare model, and killed ten times.
bench-embed: $(ENGINES_INSTALLED)
	$(BIN)/python -m benchmarks.embed $(BENCH)

# The bare model in every engine that could run it on this processor.
bench-encoder: $(ENGINES_INSTALLED)
	$(BIN)/python -m benchmarks.encoder $(BENCH)

# Text latency beside 64 image callers, of the service at URL.
bench-text: $(DEV_INSTALLED)
	$(BIN)/python -m benchmarks.text_latency $(URL)

# Scaling policies on four traces, simulated; BENCH=--real measures a small one, BENCH=--plan what raylens plan says.
bench-autoscale: $(DEV_INSTALLED)
	$(BIN)/python -m benchmarks.autoscale $(BENCH)

# A GPU in eight minutes. Writes benchmarks/results/gpu.json.
bench-gpu: $(DEV_INSTALLED)
	$(BIN)/python -m benchmarks.gpu --json benchmarks/results/gpu.json $(BENCH)

# Every version that `make` installs. With other indexes or a proxy, as uv's own variables say.
lock: $(VENV)/bin/python
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
		--no-annotate --custom-compile-command 'make lock' --output-file constraints.txt \
		pyproject.toml requirements-dev.txt requirements-docs.txt requirements-browser.txt \
		benchmarks/requirements-engines.txt

clean:
	rm -rf $(VENV) .venv-infinity .venv-sdk .venv-sdk-cohere5 .site .fuzz .pngsuite .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"raylens needs Python 3.11 to 3.13, not {v[0]}.{v[1]}; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[server]'
	touch $@

$(DEV_INSTALLED): $(INSTALLED) requirements-dev.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[server,timm,openclip,bulk,int8,lance,s3,parquet,dedupe,map,plot,otlp]' --requirement requirements-dev.txt
	touch $@

$(ENGINES_INSTALLED): $(DEV_INSTALLED) benchmarks/requirements-engines.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --requirement benchmarks/requirements-engines.txt
	touch $@

# The peer in `make bench`, in an environment of its own: it needs older versions of much.
.venv-infinity/.installed: benchmarks/requirements-infinity.txt
	$(PYTHON) -m venv .venv-infinity
	.venv-infinity/bin/pip install --quiet --requirement $<
	touch $@

# The clients of `make sdk`.
.venv-sdk/.installed .venv-sdk-cohere5/.installed: .venv-%/.installed: requirements-%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --requirement $<
	touch $@
