# Data, two models trained side by side (make -j2), and a table of both; recipes run in the directory of the call.
HERE := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
STEPS ?= 80

all: table.txt

diabetes.txt:
	$(PYTHON) -c 'import numpy as n, sklearn.datasets as s; n.savetxt("$@", n.c_[s.load_diabetes(return_X_y=True)])'

linear/weights.txt: diabetes.txt
	mkdir -p linear
	$(PYTHON) $(HERE)diabetes.py linear $(STEPS) --out linear

ridge/weights.txt: diabetes.txt
	mkdir -p ridge
	$(PYTHON) $(HERE)diabetes.py ridge $(STEPS) --out ridge --log metrics.jsonl

table.txt: linear/weights.txt ridge/weights.txt
	paste $^ > $@
	@echo "$(words $^) models"

.PHONY: all
