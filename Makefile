# make study: set up and run the digits study to its report.   make test: set up with the dev extras and run the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
OF_PYTHON := $(VENV)/.python-$(VERSION)

.PHONY: study test test-slurm lint docs clean

study: $(VENV)/.installed
	$(BIN)/dit study experiment=digits

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow and not gpu and not slurm and not network"

# The cluster path, on a SLURM of virtual nodes that is started for it (root on Debian 12).
test-slurm: $(VENV)/.installed-dev
	slurm/local-cluster start </dev/null
	$(BIN)/python -m pytest -m slurm; code=$$?; slurm/local-cluster stop; exit $$code

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# The documentation as a site: site/index.html; a warning is an error.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# An environment of another Python is made again. Nothing is made with one that is too old.
$(OF_PYTHON):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "dit needs Python 3.11 or newer; $(PYTHON) is $(or $(VERSION),not there): make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	  exit 2; }
	@$(BIN)/python -c 'import pip, sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' 2>/dev/null || { \
	  rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@rm -f $(VENV)/.python-*; touch $@

# The stamps are older than what they were made from after an edit there: then pip looks again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(OF_PYTHON)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(OF_PYTHON)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf runs latents
