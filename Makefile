# Every target sets up .venv by itself. Python 3.11 or 3.12.

PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/ready
CORES ?= all
GPUS ?= 1

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: setup demo experiment recognizer pretrain test lint bench

setup: $(READY)

# fairseq builds against the installed torch, numpy and cython: first those, then fairseq without
# build isolation, then the rest.
$(READY): setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed; give it as make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	pip install -q -c constraints.txt torch torchaudio numpy cython setuptools wheel
	pip install -q -c constraints.txt --no-build-isolation fairseq-fixed
	pip install -q -c constraints.txt --no-build-isolation -e '.[test]'
	@touch $@

# A workflow of examples/: its folder, the name of its results, its settings. flock in place of Snakemake's own lock,
# which a killed run leaves behind; it also sees that no job of a killed run is still writing. What is done stays done
# where only the text of a rule has changed, as with a newer version: its command is compared, as one of the `params`.
define workflow
@case "$(2)" in *[!A-Za-z0-9._-]*|[!A-Za-z]*) echo "error: NAME=$(2): expected a letter, and letters, digits, . _ - after it"; exit 1;; esac
@mkdir -p exp && touch exp/.$(2).lock
@flock --nonblock --conflict-exit-code 75 exp/.$(2).lock \
	snakemake -s examples/$(1)/Snakefile --cores $(CORES) --resources gpu=$(GPUS) --quiet rules \
	--rerun-triggers input mtime params --nolock --rerun-incomplete $(SNAKEMAKE) --config name=$(2) $(3) $(CONFIG) \
	|| { code=$$?; [ $$code != 75 ] || echo "error: exp/$(2) is at work already, or a job of an earlier call is"; exit $$code; }
endef

# The generated corpus through all three stages and five folds; ends with the table. Fewer updates
# than the nano size has by itself, for minutes on two cores.
DEMO := stage1=[optimization.max_update=80] stage2=[optimization.max_update=60,lr_scheduler.warmup_updates=6] \
	stage3=[optimization.max_update=80]
demo: $(READY)
	@test -f data/toy/README.txt || python manifest_tools/make_toy_corpus.py --out data/toy --force
	@$(MAKE) --no-print-directory experiment NAME=toy CORPUS=iemocap ROOT=data/toy CONFIG='$(DEMO) $(CONFIG)'

# make experiment CORPUS=iemocap ROOT=IEMOCAP_full_release CHECKPOINT=hubert_base_ls960.pt
# Also: NAME, SEEDS=1,2,3, ABLATIONS=table3,layer_-1 (examples/iemocap/ablations.yaml), CORES, GPUS,
# SNAKEMAKE="-n" for a dry run, or any setting of examples/iemocap/workflow.yaml as
# CONFIG="scales=32,128 only_folds=1".
given_name = $(if $(filter environment,$(origin NAME)),,$(NAME))# in the environment it is another's, under WSL the machine's
name = $(or $(given_name),$(CORPUS))
corpus = corpus=$(CORPUS) root="$(ROOT)" $(if $(CHECKPOINT),checkpoint="$(CHECKPOINT)") $(if $(SEEDS),seeds=$(SEEDS)) \
	$(if $(ABLATIONS),ablations=$(ABLATIONS))
given = @test -n "$(CORPUS)" -a -n "$(ROOT)" || { echo "error: make $@ CORPUS=iemocap|emodb|ravdess|csv ROOT=DIR"; exit 1; }
experiment: $(READY)
	$(given)
	$(call workflow,iemocap,$(name),$(corpus))

# After `make experiment`, with the same settings: a model of all of the corpus's speakers, for gmp-ser, into
# exp/NAME_recognizer/recognizer. Its card and its calibration are those of the experiment's folds.
# make recognizer CORPUS=emodb ROOT=EMODB CONFIG="licence=CC-BY-4.0"
recognizer: override SNAKEMAKE := recognizer $(SNAKEMAKE)
recognizer: override CONFIG += folds=none tested=$(name)
recognizer: $(READY)
	$(given)
	$(call workflow,iemocap,$(name)_recognizer,$(corpus))

# A small HuBERT from recordings without labels, into exp/pretrain_small/weights:
# make pretrain SPEECH=LibriSpeech
# Also: SIZE=small (for a GPU; nano is for CPUs), CORES, SNAKEMAKE="-n", CONFIG="clusters=100".
pretrain: $(READY)
	@test -n "$(SPEECH)" || { echo "error: make pretrain SPEECH=DIR"; exit 1; }
	$(call workflow,pretrain_small,$(or $(given_name),pretrain_small),speech="$(SPEECH)" $(if $(SIZE),size=$(SIZE)))

test: $(READY)
	OMP_NUM_THREADS=1 pytest -q -n 2 --durations 15

lint: $(READY)
	ruff check .
	ruff format --check .

bench: $(READY)
	@for script in $(filter-out %/long_audio.py %/baselines.py,$(wildcard benchmarks/*.py)); do echo "$$script"; python $$script || exit 1; done
