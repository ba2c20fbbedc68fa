# make demo: audit a prompt · make demo-study: compare two models · make test: all tests · make check: style and types · make bench: every figure of the docs · make docs: the site
PYTHON ?= python3
DEMO_FLAGS ?=
VENV := .venv
STAMP := $(VENV)/.stamp

.PHONY: demo demo-study test check bench bench-quick extras docs notebooks _browser

demo: $(STAMP)
	@$(VENV)/bin/raigen audit "a photo of a doctor" $(DEMO_FLAGS)

# Four prompts and two models: the bundled one, and a variant of it whose planted rates differ in known ways.
demo-study: $(STAMP)
	@$(VENV)/bin/python -m raigen.world.train.variant fairer models/fairer \
	  --professions doctor nurse farmer hairdresser --steps 80 --n-drawings 800 --n-images 0
	@$(VENV)/bin/raigen audit "a photo of a doctor" "a photo of a nurse" "a photo of a farmer" \
	  "a photo of a hairdresser" --model portraits --model models/fairer --study studies/demo \
	  --n-images 300 --n-fresh-images 100 --workers 2 $(DEMO_FLAGS)
	@$(VENV)/bin/raigen compare studies/demo --judge portraits --closed-set portraits --open-set portraits \
	  --n-asked-images 10

test: $(STAMP) _browser
	$(VENV)/bin/pytest -n auto

check: $(STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/pyright

bench: $(STAMP)
	$(VENV)/bin/python -m benchmarks.autoencoder.toy_tree
	$(VENV)/bin/python -m benchmarks.autoencoder.synthetic
	$(VENV)/bin/python -m benchmarks.discovery
	$(VENV)/bin/python -m benchmarks.discovery.misses
	$(VENV)/bin/python -m benchmarks.discovery --model portraits-transformer --name discovery_transformer \
		--work bench-work/transformer --generation-seeds 1 --prompts "a photo of a doctor" "a photo of a nurse" \
		"a photo of a farmer" "a photo of a sheriff"
	$(VENV)/bin/python -m benchmarks.discovery.false_alarms
	$(VENV)/bin/python -m benchmarks.discovery.looking --n-seeds 2
	$(VENV)/bin/python -m benchmarks.discovery.looking --n-seeds 2 --world emblems --name looking_emblems \
		--work bench-work/looking-emblems
	$(VENV)/bin/python -m benchmarks.discovery.reach
	$(VENV)/bin/python -m benchmarks.discovery.loosely
	$(VENV)/bin/python -m benchmarks.discovery.labels
	$(VENV)/bin/python -m benchmarks.discovery.names
	$(VENV)/bin/python -m benchmarks.rates.clip
	$(VENV)/bin/python -m benchmarks.autoencoder.dead
	$(VENV)/bin/python -m benchmarks.discovery.ablations
	$(VENV)/bin/python -m benchmarks.discovery.shared_sae
	$(VENV)/bin/python -m benchmarks.discovery.suppression
	$(VENV)/bin/python -m benchmarks.amplification.contrast
	$(VENV)/bin/python -m benchmarks.amplification
	$(VENV)/bin/python -m benchmarks.amplification.steering_overhead
	$(VENV)/bin/python -m benchmarks.amplification.paper_protocol
	$(VENV)/bin/python -m benchmarks.discovery.hookpoint_search
	$(VENV)/bin/python -m benchmarks.discovery.hookpoint_search --model portraits-transformer \
		--default transformer.transformer_blocks.4 --name hookpoint_search_transformer \
		--work bench-work/hookpoint_search_transformer --prompts "a photo of a doctor" "a photo of a nurse" \
		"a photo of a farmer" "a photo of a sheriff" "a photo of a CEO" "a photo of a cleaner"
	$(VENV)/bin/python -m benchmarks.rates
	$(VENV)/bin/python -m benchmarks.rates.sampled
	$(VENV)/bin/python -m benchmarks.cost.full_size
	$(VENV)/bin/python -m benchmarks.tables

# The same, much smaller: it shows that every part runs, and measures nothing.
bench-quick: $(STAMP)
	$(VENV)/bin/python -m benchmarks.autoencoder.toy_tree --seeds 1 --n-samples 20000 --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.autoencoder.synthetic --n-features 256 --d-in 64 --d-sae 192 --n-images 256 \
	  --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery --prompts "a photo of a doctor" --n-images 150 --generation-seeds 1 \
	  --work bench-work/quick --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.misses --prompts "a photo of a doctor" --n-images 150 --generation-seeds 1 \
	  --work bench-work/quick --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.false_alarms --prompts "a photo of a doctor" --n-images 75 --n-splits 2 \
	  --work bench-work/quick --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.looking --prompts "a photo of a doctor" --n-images 200 --arms watched looked \
	  --work bench-work/quick/looking --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.loosely --prompts "a photo of a doctor" --n-images 60 \
	  --work bench-work/quick/loosely --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.rates.sampled --rates 0.05 --n-images 200 --n-judged 50 --n-audits 4 --n-calibrated 1 \
	  --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.labels --prompts "a photo of a doctor" --n-images 150 --work bench-work/quick \
	  --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.names --prompts "a photo of a doctor" --models portraits --n-images 150 \
	  --n-fresh-images 100 --work bench-work/quick/names --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.rates.clip --prompts "a photo of a doctor" --models portraits --n-images 150 \
	  --n-fresh-images 100 --work bench-work/quick/names --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.autoencoder.dead --prompts "a photo of a doctor" --n-images 150 --work bench-work/quick \
	  --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.ablations --prompts "a photo of a doctor" --n-images 150 --generation-seeds 1 \
	  --curves k views --work bench-work/quick --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.shared_sae --prompts "a photo of a doctor" "a photo of a nurse" --n-images 150 \
	  --larger 2 --timed 1 --work bench-work/quick --own bench-work/quick/shared-sae --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.discovery.suppression --n-images 8 --n-named 1 --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.amplification.contrast --prompts "a photo of a doctor" --n-discovered 150 --n-images 4 \
	  --work bench-work/quick --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.amplification --prompts "a photo of a doctor" --n-audited 150 --n-attributes 1 \
	  --n-images 8 --n-selected 2 --most-per-selected 10 --n-fresh-images 20 --source bench-work/quick \
	  --work bench-work/quick/amplification --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.paper --table 6 --prompts "a photo of a doctor" --n-images 150 --n-fresh-images 20 \
	  --work bench-work/quick/paper --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.rates --n-images 300 --n-audits 2 --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.amplification.steering_overhead --batch-size 2 --rounds 2 --results bench-work/quick
	$(VENV)/bin/python -m benchmarks.amplification.paper_protocol --prompts "a photo of a doctor" --n-audited 150 --n-attributes 1 \
	  --n-images 8 --n-likely 2 --n-angles 8 --n-fresh-images 20 --source bench-work/quick \
	  --work bench-work/quick/amplification --results bench-work/quick

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or later is needed; name one with: make PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

# The tests that need an extra (SAELens, Ray, pyarrow, datasets, mlcroissant), in an environment of its own. What SAELens brings along wants a
# torchvision that fits the torch it finds, and does without any. Gradio wants an older pillow and an older tomlkit.
extras: _browser .venv-docs/.stamp
	$(PYTHON) -m venv .venv-extras
	.venv-extras/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,neighbours,ray,export,readers]'
	.venv-extras/bin/python -m pip uninstall --quiet --yes torchvision
	.venv-extras/bin/pytest tests/sae/test_interchange.py tests/auditing/test_sweep.py tests/report/test_exports.py tests/report/test_amplified.py \
	  tests/dossier
	$(PYTHON) -m venv .venv-studio
	grep -v -i -e '^pillow==' -e '^tomlkit==' constraints.txt >.venv-studio/constraints.txt
	.venv-studio/bin/python -m pip install --quiet --constraint .venv-studio/constraints.txt --editable '.[dev,studio]'
	.venv-studio/bin/pytest tests/studio
	.venv-docs/bin/pytest tests/house/test_site.py

# The site, in build/site: built strictly, and it fetches nothing. Its search needs a server: python -m http.server -d build/site
docs: .venv-docs/.stamp
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

# Executes the notebooks and writes their outputs.
notebooks: .venv-docs/.stamp
	.venv-docs/bin/python -m website.execute

.venv-docs/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

# The tests open the report in a real browser.
_browser:
	@if [ -x /usr/bin/chromium ] && [ -x /usr/bin/chromedriver ]; then exit 0; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && apt-get install -y -qq chromium chromium-driver; \
	else \
	  echo 'make test needs /usr/bin/chromium and /usr/bin/chromedriver; install the packages chromium and' \
	    'chromium-driver' >&2; exit 1; \
	fi
