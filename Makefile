# make demo   environment, then the main job on the shipped pool; report in runs/demo/report.html
# make test   the whole test suite, but for what runs vLLM
# make test-vllm  those, in .venv-vllm
# make check  lint, types, import contracts, doctests
# make bench  the speed ratios and the calibration of the statistics; make bench-vllm that of label scoring by vLLM

# One thread a process: two BLAS threads on shared cores are slower than one. Tests never ask a model hub.
TEST_ENV = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
PY = .venv/bin/python

.PHONY: demo setup test test-vllm check doctest bench bench-vllm wheel-check clean

demo:
	@scripts/setup.sh demo
	@HF_HUB_OFFLINE=1 .venv/bin/icl-select demo

setup:
	@scripts/setup.sh dev

test: setup
	$(TEST_ENV) $(PY) -m pytest tests -n 2 --dist loadfile

# Only the files that have such tests; those of one file share an engine, so they stay in one process.
test-vllm:
	@scripts/setup.sh test,vllm
	$(TEST_ENV) .venv-vllm/bin/python -m pytest -m vllm -n 2 --dist loadfile $$(grep -rlE --include='test_*.py' 'mark\.vllm' tests | sort)

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy -p icl_select
	$(PY) -m mypy eval
	.venv/bin/lint-imports
	$(MAKE) doctest

doctest: setup
	$(TEST_ENV) $(PY) -m pytest --doctest-modules icl_select eval README.md docs --doctest-glob='*.md' -p no:cacheprovider

wheel-check: setup
	scripts/check_wheel.sh

bench: 
	@scripts/setup.sh dev,bench
	$(PY) benchmarks/import_time.py
	$(PY) benchmarks/select_speed.py
	$(PY) benchmarks/calibration.py
	$(PY) benchmarks/calibration_real.py

bench-vllm:
	@scripts/setup.sh test,vllm
	HF_HUB_OFFLINE=1 .venv-vllm/bin/python benchmarks/label_scoring.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
