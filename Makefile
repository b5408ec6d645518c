# A fresh machine needs Python 3.11, pip, make and git; each target sets up .venv itself when it is missing.
PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin

.PHONY: demo smollm2 test gpu-check faults lint bench site clean initialisers ablation elastic paper-micro

demo: .venv/installed  ## make small models out of a real one, run every stage on micro ones, and print what was made
	$(BIN)/colpipe run config/bridge.yaml all --cores $(CORES)
	$(BIN)/colpipe run config/config.yaml all published --cores $(CORES)
	@$(BIN)/colpipe show results/demo

# A family of seven models out of SmolLM2-135M, and beside it what else one could do with as many tokens.
smollm2: .venv/installed  ## make and compare small models of 60M to 120M, on a processor with bfloat16
	$(BIN)/colpipe run config/smollm2.yaml all published --cores $(CORES)
	@$(BIN)/colpipe show results/smollm2

test: .venv/installed  ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(CORES) --dist loadgroup --no-loadscope-reorder

# 200 faults over all stages, drawn from SEED; the tests draw 40.
SEED ?= 0
faults: .venv/installed  ## kill, damage and starve stages at random
	FAULTS=200 FAULTS_SEED=$(SEED) $(BIN)/python -m pytest -s tests/workflow/test_faults.py

# Without the packages of .venv: `python3 -m tests.gpu`, on a machine that has torch, transformers and accelerate.
gpu-check: .venv/installed  ## check what an accelerator computes, and how fast; without one, what can be checked on a CPU
	$(BIN)/python -m tests.gpu

lint: .venv/installed  ## check style, spelling, types and workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/snakemake --lint

bench: .venv/installed  ## run all benchmarks (--quick in CI), alone on the machine
	$(BIN)/python -m tests.benchmarks --page docs/performance.md

site: .venv/installed  ## make the documentation's web site, build/site/index.html
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c envs/cpu.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# All initialisers against each other, three seeds of a micro chain and one of SmolLM2's: the numbers of docs/initialisers.md.
initialisers: .venv/installed  ## run the comparison of initialisers
	for seed in 0 1 2; do $(BIN)/snakemake --cores $(CORES) --quiet rules progress \
	    --configfile config/initialisers.yaml --config study=initialisers-$$seed seed=$$seed || exit 1; done
	$(BIN)/snakemake --cores $(CORES) --quiet rules progress --configfile config/initialisers-smollm2.yaml
	$(BIN)/python -m colpipe.tools.cuts --settings config/cuts-smollm2.yaml --output results/initialisers-smollm2/cuts \
	    --model results/initialisers-smollm2/sft/smollm2-135m --corpus results/initialisers-smollm2/data/wikipedia
	$(BIN)/python -m colpipe.tools.compare results/initialisers-[012] --output docs/initialisers/micro
	$(BIN)/python -m colpipe.tools.compare results/initialisers-smollm2 --output docs/initialisers/smollm2

# Every distillation objective, direct and stepwise, three seeds: writes docs/ablation/.
ablation: .venv/installed  ## run the comparison of distillation objectives
	for seed in 0 1 2; do $(BIN)/snakemake --cores $(CORES) --quiet rules progress \
	    --configfile config/ablation.yaml --config study=ablation-$$seed seed=$$seed \
	    -- all table3 figure5a figure5b || exit 1; done
	$(BIN)/python -m colpipe.tools.compare results/ablation-[012] --output docs/ablation

# DesNets cut out of an elastic chain against interpolated and separately distilled ones, three seeds: writes docs/elastic/.
# All twenty shapes with the first seed, two between each pair with the others.
FEW = {desnets: [5x96, 4x112, 4x80, 3x80]}
elastic: .venv/installed  ## run the comparison of elastic and plain chains
	$(BIN)/snakemake --cores $(CORES) --quiet rules progress --configfile config/elastic.yaml
	for seed in 1 2; do $(BIN)/snakemake --cores $(CORES) --quiet rules progress \
	    --configfile config/elastic.yaml --config study=elastic-$$seed seed=$$seed \
	    'ancestors={inherited: $(FEW), elastic: $(FEW), ranked: $(FEW)}' || exit 1; done
	$(BIN)/snakemake --cores $(CORES) --quiet rules progress --configfile config/elastic-smollm2.yaml
	$(BIN)/python -m colpipe.tools.compare results/elastic-[012] --reference 'inherited alone' \
	    --output docs/elastic/micro
	$(BIN)/python -m colpipe.tools.compare results/elastic-smollm2 --reference 'ranked alone' \
	    --output docs/elastic/smollm2

# Every table and figure of the paper, one seed, an hour and a half: the numbers of docs/findings.md.
paper-micro: .venv/installed  ## run the whole paper on micro models
	$(BIN)/snakemake paper --cores $(CORES) --quiet rules progress --configfile config/paper-micro.yaml
	$(BIN)/snakemake --cores $(CORES) --quiet rules progress --configfile config/paper-micro.yaml  # the page, with all of them

clean:  ## remove results, staged data and Snakemake's memory of them
	find results -mindepth 1 -not -name .gitkeep -delete
	rm -rf resources .snakemake

.venv/installed: pyproject.toml envs/cpu.txt colpipe/__init__.py
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("colpipe needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c envs/cpu.txt -e '.[test]'
	@touch $@
