# make demo: audit a prompt · make test: all tests · make check: style and types
PYTHON ?= python3
DEMO_FLAGS ?=
VENV := .venv
STAMP := $(VENV)/.stamp

.PHONY: demo test check _browser

demo: $(STAMP)
	@$(VENV)/bin/raigen audit "a photo of a doctor" $(DEMO_FLAGS)

test: $(STAMP) _browser
	$(VENV)/bin/pytest

check: $(STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/pyright

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or later is needed; name one with: make PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

# The tests open the report in a real browser.
_browser:
	@if [ -x /usr/bin/chromium ] && [ -x /usr/bin/chromedriver ]; then exit 0; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && apt-get install -y -qq chromium chromium-driver; \
	else \
	  echo 'make test needs /usr/bin/chromium and /usr/bin/chromedriver; install the packages chromium and' \
	    'chromium-driver' >&2; exit 1; \
	fi
