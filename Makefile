# Every target sets up what it needs; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
TORCH := torch $(if $(INDEX),--index-url $(INDEX))

.PHONY: demo banner test check format bench reproduce clean fuzz kills

demo: $(STAMP)  ## Train a VAE on the embedded digits, measure it and write runs/demo/report.html
	rm -rf runs/demo
	$(BIN)/tightbound train vae --data large-digits --binarize threshold --prior vamp --components 200 \
		--latent-dim 10 --hidden 400 400 --epochs 120 --out runs/demo
	$(BIN)/tightbound evaluate runs/demo
	$(BIN)/tightbound diagnose runs/demo
	$(BIN)/tightbound report runs/demo

banner: $(STAMP)  ## Draw docs/banner.png from runs/demo (needs chromium or chrome)
	test -f runs/demo/report.html || $(MAKE) demo
	$(BIN)/python docs/banner.py runs/demo docs/banner.png

test: $(STAMP)  ## Run the tests
	$(BIN)/python -m pytest -n auto

check: $(STAMP)  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) $(PEERS_STAMP)  ## Measure speed and memory against bare loops and other libraries, and write docs/benchmarks.md
	$(BIN)/python benchmarks/diffusion_speed.py
	$(BIN)/python benchmarks/run.py $(BENCH)

reproduce: $(STAMP)  ## Rebuild published numbers, write docs/results.md, docs/two-stages.md and docs/colour.md (the data sets are downloaded if need be)
	$(BIN)/python benchmarks/reproduce.py $(REPRODUCE)
	$(BIN)/python benchmarks/two_stages.py $(TWO_STAGES)
	$(BIN)/python benchmarks/hierarchies.py $(HIERARCHIES)
	$(BIN)/python benchmarks/guidance.py $(GUIDANCE)

clean:
	rm -rf $(VENV) .venv-peers runs

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

$(PEERS_STAMP): benchmarks/requirements-peers.txt constraints.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--requirement benchmarks/requirements-peers.txt
	touch $(PEERS_STAMP)

.PHONY: kills
kills: $(STAMP)  ## Kill trainings at sixty file events each, fill their disks, and compare how they end
	rm -rf runs/kills
	OMP_NUM_THREADS=1 $(BIN)/python tests/kills.py runs/kills

fuzz: $(STAMP)  ## Read 5,000 damaged files, each in a process of its own: no traceback, no more than 1 GiB or 20 s
	PYTHONPATH=tests $(BIN)/python tests/fuzz.py $(FUZZ)
