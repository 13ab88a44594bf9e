# make demo   from raw data to the first interference map, in a few minutes
# make test   all tests
# make clean  remove what these made
# Each makes its own environment in .venv when there is none.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# A shorter demo: make demo DEMO=short-demo STEPS=200 BATCHES=10
DEMO ?= demo
STEPS ?=
BATCHES ?= 100
# Batches of 12, not the paper's 4: what is left of a trained model's gradients drowns in the noise of smaller ones.
BATCH_SIZE ?= 12
WORKERS ?= 2
RUNS := $(DEMO)/runs/mlp $(DEMO)/runs/cmoe
SHORTER := $(if $(STEPS),--set training.steps=$(STEPS) --set training.warmup_steps=$(shell expr $(STEPS) / 10))

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/unimed-data sample $(DEMO)/data
	@set -e; for kind in mlp cmoe; do \
	  run=$(DEMO)/runs/$$kind; \
	  $(BIN)/unimed-train --preset tiny --set connector.kind=$$kind $(SHORTER) --data $(DEMO)/data --out $$run; \
	  if [ -f $$run/evaluation/scores.json ]; then echo "$$run: already evaluated"; \
	  else $(BIN)/unimed-eval $$run --data $(DEMO)/data >/dev/null; fi; \
	  if [ -f $$run/gradients/manifest.json ]; then echo "$$run: gradients already measured"; \
	  else $(BIN)/tugofwar gradients --ckpt $$run --data $(DEMO)/data --out $$run/gradients \
	      --batches $(BATCHES) --batch-size $(BATCH_SIZE); fi; \
	done
	@$(BIN)/tugofwar figures $(RUNS) --out $(DEMO)/figures >/dev/null
	@$(BIN)/python -m analyses.summary $(RUNS)
	@echo; echo "Pictures in $(DEMO)/figures:"; ls $(DEMO)/figures/*.png

# Files are dealt out to workers, each with one thread: two workers are nearly twice as fast as one with two threads.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	if [ -f $(INSTALLED) ]; then rm -rf .venv; fi
