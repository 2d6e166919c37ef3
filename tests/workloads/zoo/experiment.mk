# Data, two models trained side by side (make -j2), and a table of both; recipes run in the directory of the call.
HERE := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
STEPS ?= 80

all: table.txt

diabetes.csv:
	$(PYTHON) -c 'import sklearn.datasets as s; s.load_diabetes(as_frame=True).frame.to_csv("$@", index=False)'

linear/weights.txt: diabetes.csv
	mkdir -p linear
	$(PYTHON) $(HERE)diabetes.py linear $(STEPS) --out linear

ridge/weights.txt: diabetes.csv
	mkdir -p ridge
	$(PYTHON) $(HERE)diabetes.py ridge $(STEPS) --out ridge --log metrics.jsonl

table.txt: linear/weights.txt ridge/weights.txt
	paste $^ > $@
	@echo "$(words $^) models"

.PHONY: all
