# make demo   from raw data to a report on how tasks interfere, in under ten minutes
# make test   all tests
# make gallery  the demo, and its pictures into docs/images
# make clean  remove what these made
# Each makes its own environment in .venv when there is none.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# A shorter demo: make demo DEMO=short-demo STEPS=200 LIMIT=50 BATCHES=10
DEMO ?= demo
STEPS ?=
LIMIT ?=
BATCHES ?= 100
# Batches of 12, not the paper's 4: what is left of a trained model's gradients drowns in the noise of smaller ones.
BATCH_SIZE ?= 12
# Batches per dataset at every checkpoint, and where every expert is switched off; images per dataset in pictures of features.
FOLLOWED ?= 25
FEW ?= 10
SAMPLES ?= 40
WORKERS ?= 2
CMOE := $(DEMO)/runs/cmoe
RUNS := $(DEMO)/runs/mlp $(CMOE)
PROBED = --data $(DEMO)/data --batch-size $(BATCH_SIZE)
SHORTER := $(if $(STEPS),--set training.steps=$(STEPS) --set training.warmup_steps=$(shell expr $(STEPS) / 10))

.PHONY: demo gallery test lint clean
.DELETE_ON_ERROR:

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# A command, unless the file that it leaves is there already.
once = if [ -f $(1) ]; then echo "$(1) is there already"; else $(2); fi

demo: $(INSTALLED)
	$(BIN)/unimed-data sample $(DEMO)/data
	@set -e; for kind in mlp cmoe; do run=$(DEMO)/runs/$$kind; \
	  $(BIN)/unimed-train --preset tiny --set connector.kind=$$kind $(SHORTER) --data $(DEMO)/data --out $$run; \
	  $(call once,$$run/evaluation/scores.json,$(BIN)/unimed-eval $$run --data $(DEMO)/data $(if $(LIMIT),--limit $(LIMIT) )>/dev/null); \
	  $(call once,$$run/gradients/manifest.json,$(BIN)/tugofwar gradients $(PROBED) --ckpt $$run --batches $(BATCHES)); \
	  $(call once,$$run/features/manifest.json,$(BIN)/tugofwar features --ckpt $$run --data $(DEMO)/data --samples $(SAMPLES)); \
	  $(call once,$$run/dynamics/manifest.json,$(BIN)/tugofwar dynamics $$run $(PROBED) --batches $(FOLLOWED)); \
	done
	@$(call once,$(CMOE)/routing/manifest.json,$(BIN)/tugofwar routing --ckpt $(CMOE) $(PROBED) --batches $(FEW))
	@$(call once,$(CMOE)/difference/mlp/manifest.json,$(BIN)/tugofwar compare $(RUNS))
	@$(BIN)/tugofwar figures $(RUNS) --out $(DEMO)/figures >/dev/null
	@$(BIN)/tugofwar report $(RUNS) --out $(DEMO)/report.html
	@$(BIN)/python -m analyses.summary $(RUNS)
	@echo; echo "Pictures in $(DEMO)/figures, the report is $(DEMO)/report.html"

# What the README shows, made anew from the demo.
GALLERY := interference_mlp tug_of_war_indexes scores routing_weights_cmoe tokens_cmoe features_2d_task \
  dynamics_index_cmoe_task difference_maps_cmoe_minus_mlp
gallery: demo
	cp $(GALLERY:%=$(DEMO)/figures/%.png) docs/images/
	$(BIN)/python -m analyses.summary $(RUNS) > docs/images/summary.md

# Files are dealt out to workers, each with one thread: two workers are nearly twice as fast as one with two threads.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	if [ -f $(INSTALLED) ]; then rm -rf .venv; fi
