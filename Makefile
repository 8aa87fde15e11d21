# Every target makes the environment it needs. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
OUT ?= $@

.PHONY: help setup demo test test-fast pythons versions check bench bench-peers bench-frontier wheel man clean
help:  ## list the targets
	@grep -hE '^[a-z%-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(if $(wildcard /etc/nv_tegra_release),--system-site-packages) .venv  # JetPack's TensorRT lies outside
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: .venv/ready  ## make .venv with everything in it

demo: .venv/ready  ## handwritten digits, from scratch to an INT8 bundle for this CPU
	$(BIN)/python benchmarks/digits.py $(DEMO)/digits
	$(BIN)/edgeeff fit --target host-cpu --latency 3 --size-mb 10 --resolution 64 --variant lite0 b0 b4 --epochs 12 --no-flip --max-drop 1 \
	  --train $(DEMO)/digits/train --val $(DEMO)/digits/val --out $(DEMO)/bundle
	@echo
	@echo "Next, your own photos in DIR/CLASS/*.jpg:"
	@echo "  $(BIN)/edgeeff fit --target host-cpu --latency 10 --photos DIR --weights auto --out my-model"

# NVIDIA's Python API without its libraries, in the versions of JetPack 6.1 to 7.2 and the newest; what a Python lacks, a test skips.
.venv/bindings: | .venv/ready
	mkdir -p $@
	for version in 10.3.0 10.13.3.9 10.16.1.11 11.4.0.106; do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@/$$version \
	    tensorrt-cu12-bindings==$$version || echo "no bindings of TensorRT $$version for this Python" >&2; \
	done

test: .venv/ready .venv/bindings  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: .venv/ready  ## run the tests that neither compute with whole networks nor start anything, in less than a minute
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not medium"

pythons:  ## run all but the slow tests on every Python from 3.10 to 3.13 that is found, and at the lowest versions of the dependencies
	$(PYTHON) tests/pythons.py

versions:  ## make .venv-pythons/lowest and /newest: the lowest and the newest versions of the dependencies that are allowed
	$(PYTHON) tests/pythons.py --no-tests lowest newest

check: .venv/ready  ## formatting, lint, types and layers of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: .venv/ready  ## measure docs/benchmarks.md again (needs the photos and weights of benchmarks/data.md in ../shared/data)
	$(BIN)/python benchmarks/run.py

bench-peers: .venv/ready  ## measure other tools beside edgeeff again, each in an environment of its own
	$(BIN)/python benchmarks/run.py peers-v2-b0 peers-lite0 $(addprefix peers-cpu-,v2-b0 lite0 flowers12 trashnet digits mnist)
	$(BIN)/python benchmarks/readme.py

bench-frontier: .venv/ready  ## time other networks beside EfficientNets again, twice, an hour apart
	$(BIN)/python benchmarks/run.py frontier
	$(BIN)/python benchmarks/readme.py

wheel: .venv/ready  ## dist/edgeeff-*.whl, for a device
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

man: .venv/ready  ## write docs/edgeeff.1, the manual page, from the command line's own help
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt argparse-manpage
	$(BIN)/argparse-manpage --module edgeeff.cli.options --function parser --prog edgeeff --project-name edgeeff \
	  --description "the largest EfficientNet within a device's budget, in INT8" --manual-title "edgeeff manual" \
	  --format single-commands-section --output docs/edgeeff.1

cpu-%: .venv/ready FORCE  ## fit a variant to this CPU: make cpu-b0 WEIGHTS=b0.safetensors CALIB=photos VAL=val (or TRAIN=train VAL=val)
	@test -n "$(VAL)" && test -n "$(WEIGHTS)$(TRAIN)" || \
	  { echo "make $@ needs VAL=DIR, and WEIGHTS=FILE CALIB=DIR or TRAIN=DIR, or all of them" >&2; exit 2; }
	$(BIN)/edgeeff fit --target host-cpu --variant $* --val $(VAL) --out $(OUT) $(if $(LATENCY),--latency $(LATENCY)) \
	  $(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(CALIB),--calib $(CALIB)) $(if $(TRAIN),--train $(TRAIN))

JETSON ?= jetson-orin-nano-8gb

jetson-%: .venv/ready FORCE  ## fit a variant to a Jetson: make jetson-b2 WEIGHTS=hf-hub:timm/efficientnet_b2.ra_in1k DATA=photos
	@test -n "$(DATA)$(VAL)" && test -n "$(WEIGHTS)$(DATA)$(TRAIN)" || { echo "make $@ needs photos, and weights unless it trains them:" \
	  "DATA=DIR with train/ and val/ in it; WEIGHTS=FILE or hf-hub:owner/name; JETSON=one of edgeeff targets ($(JETSON));" \
	  "ON=USER@HOST to go on to the engine there" >&2; exit 2; }
	$(BIN)/edgeeff fit --target $(JETSON) --variant $* --val $(or $(VAL),$(DATA)/val) --out $(OUT) \
	  $(if $(LATENCY),--latency $(LATENCY)) $(if $(WEIGHTS),--weights $(WEIGHTS)) \
	  $(if $(CALIB),--calib $(CALIB),$(if $(and $(WEIGHTS),$(DATA)),--calib $(DATA)/train)) \
	  $(if $(TRAIN),--train $(TRAIN),$(if $(WEIGHTS),,--train $(DATA)/train)) $(if $(ON),--on $(ON))

FORCE:

clean:  ## remove the environments, the demo and caches
	rm -rf .venv .venv-pythons $(DEMO) dist .mypy_cache .ruff_cache .import_linter_cache .pytest_cache
