# Two commands set everything up by themselves: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# SIZE=smallest: a demo of a few steps, to see that everything runs.
SIZE ?= full
DEMO_RUNS ?= runs/demo
SHAPES ?= tests/unit tests/property

ifeq ($(SIZE),smallest)
DEMO_TRAIN := scheduler.total_steps=6 scheduler.warmup_steps=2 train.val_chunk_size=4 trainer.log_every_n_steps=2
DEMO_SECONDS := 0.5
DEMO_HITS := 2
else
DEMO_TRAIN :=
DEMO_SECONDS := 5
DEMO_HITS := 8
endif

.PHONY: help
help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	# What is imported is compiled then: all of torch before the first command would take a minute more.
	$(RUN) -m pip install --quiet --no-compile --editable '.[dev]'
	touch $@

.PHONY: install
install: $(VENV)/.installed ## make the virtual environment

.PHONY: demo
demo: install ## the whole way on 6 seconds of real stereo music: prepare, train, generate, report; and drums to hear
	$(RUN) preprocess/musdb18stereo_wav.py --sample
	$(RUN) train.py experiment=audio/sashimi-sample trainer=cpu paths.runs=$(DEMO_RUNS) $(DEMO_TRAIN)
	$(RUN) generate.py paths.runs=$(DEMO_RUNS) seconds=$(DEMO_SECONDS) device=cpu
	$(RUN) generate.py checkpoint=drums temperature=0.9 top_p=0.95 n_samples=$(DEMO_HITS) paths.runs=$(DEMO_RUNS) device=cpu overwrite=true
	$(RUN) -m stereo_sashimi report run=$(DEMO_RUNS) sounds=$(DEMO_RUNS)/drums/samples

.PHONY: lint
lint: install ## style and types; the direction of imports is a test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

.PHONY: test
test: lint ## lint, then the test suite (3 to 6 minutes on 2 cores)
	$(RUN) -m pytest

.PHONY: shapes
shapes: install ## unit and property tests with the shapes of all annotated arguments checked
	$(RUN) -m pytest --shapes $(SHAPES)

.PHONY: slow
slow: install ## the slow tests that CI runs as well
	$(RUN) -m pytest --dist loadfile --no-loadscope-reorder -m "slow and not gpu and not long"

.PHONY: long
long: install ## the tests that take minutes each and are not part of CI: compile=true, the table of the stereo proof
	$(RUN) -m pytest -n 0 -m "long and not gpu"

.PHONY: gpu
gpu: install ## the tests that need a CUDA device
	$(RUN) -m pytest -n 0 -m gpu

.PHONY: docs
docs: install ## the site in site/, from docs/, README.md, configs/ and docstrings; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

.PHONY: clean
clean: ## remove caches, the site and the virtual environment; data and runs stay
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
