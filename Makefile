# make demo    install into .venv, upscale the demo images with the shipped weights, compare with bicubic
# make test    install, then lint, types and tests
# make slow    the tests that take longer
# make fuzz    thousands of mutated option files, pictures and weight files; make fuzz FUZZ="--n 200 --seed 1" for less
# make torture a hundred kills of runs, and a disk that fills up; counts of both in docs/robustness.md
# make gpu     measure a GPU and test on it, in 8 minutes; figures/gpu.sh says how without a network
# make figures redraw the pictures and rewrite the tables of the README and docs
# make install only install

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

FUZZ ?=

.PHONY: demo test slow fuzz torture gpu figures install clean

demo: .venv/installed
	$(BIN)/python drct/test.py -opt options/test/DRCT-XS_SRx4_demo.yml

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy drct figures
	$(BIN)/lint-imports
	$(BIN)/python figures/options_docs.py --check
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

slow: .venv/installed-dev
	$(BIN)/pytest -m slow

fuzz: .venv/installed-dev
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ)

torture: .venv/installed-dev
	PYTHONPATH=tests $(BIN)/python -m fuzz.torture $(FUZZ)

gpu: .venv/installed-dev
	PYTHON=$(BIN)/python figures/gpu.sh

figures: ASTRONAUT := datasets/demo/LRbicx4/astronaut.png
figures: demo .venv/installed-dev
	cp results/DRCT-XS_SRx4_demo/comparison_demo.png figures/demo.png
	$(BIN)/python drct/curves.py experiments/pretrained_models/DRCT-XS_SRx4/stage[1-3] -o figures/DRCT-XS_training.png
	$(BIN)/python figures/training.py -o figures/training.png
	$(BIN)/python figures/screenshot.py figures/web.png
	$(BIN)/python figures/photographs.py -o figures/photographs.png
	$(BIN)/python -m drct bench --show figures/speed.json --chart figures/speed.png
	$(BIN)/python -m drct bench --show figures/speed_gpu.json --chart figures/speed_gpu.png
	$(BIN)/python figures/architecture.py DRCT -o figures/architecture.png
	$(BIN)/python figures/tradeoff.py figures/results/DRCT-XS_SRx4 -o figures/tradeoff.png
	$(BIN)/python -m drct analyze features DRCT-XS_SRx4 --input $(ASTRONAUT) --map normalized -o results/features
	cp results/features/features.gif figures/features.gif
	$(BIN)/python -m drct analyze features --show figures/features.json -o results/features
	cp results/features/features.png figures/features.png
	$(BIN)/python -m drct analyze lam DRCT-XS_SRx4 --input $(ASTRONAUT) -o results/lam
	cp results/lam/lam.png figures/lam.png
	$(BIN)/python -m drct complexity -o figures/complexity.json
	$(BIN)/python figures/tables.py

install: .venv/installed

# PyTorch comes first and BasicSR is built without isolation, because its isolated build downloads PyTorch once more.
.venv/installed: setup.py requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13) and \
	  'Python 3.10, 3.11 or 3.12 is needed, this is %d.%d: make PYTHON=python3.11 ...' % sys.version_info[:2])"
	@echo "Installing into .venv: PyTorch and what else is needed, a few minutes the first time"
	$(PYTHON) -m venv .venv
	$(PIP) $(shell grep -E "^(torch|torchvision|numpy)>" requirements.txt | sed "s/.*/'&'/")
	$(PIP) setuptools wheel cython
	$(PIP) --no-build-isolation $(shell grep "^basicsr" requirements.txt | sed "s/.*/'&'/")
	$(PIP) --editable .
	@echo done > $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	@echo done > $@

clean:
	rm -rf .venv
