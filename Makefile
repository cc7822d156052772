# make demo   environment, then the main job on the shipped pool; report in runs/demo/report.html
# make test   the whole test suite, but for what runs vLLM; on PostgreSQL too where that is installed
# make test-vllm  those, in .venv-vllm
# make check  lint, types, import contracts, doctests
# make docker-check  the steps of the Dockerfile as shell: build, install, serve, health check
# make bench  the speed ratios and the calibration of the statistics; make bench-vllm that of label scoring by vLLM

# One thread a process: two BLAS threads on shared cores are slower than one. Tests never ask a model hub.
TEST_ENV = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
PY = .venv/bin/python

# run in place of run-if-there: without PostgreSQL there is no test run.
POSTGRES = run-if-there

.PHONY: demo setup test test-vllm check doctest bench bench-vllm wheel-check docker-check clean

demo:
	@scripts/setup.sh demo
	@HF_HUB_OFFLINE=1 .venv/bin/icl-select demo

setup:
	@scripts/setup.sh dev

test: setup
	$(TEST_ENV) scripts/postgres.sh $(POSTGRES) $(PY) -m pytest tests -n 2 --dist loadfile

# Only the files that have such tests; those of one file share an engine, so they stay in one process.
test-vllm:
	@scripts/setup.sh test,vllm
	$(TEST_ENV) .venv-vllm/bin/python -m pytest -m vllm -n 2 --dist loadfile $$(grep -rlE --include='test_*.py' 'mark\.vllm' tests | sort)

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy -p icl_select
	$(PY) -m mypy eval
	$(PY) -m mypy service
	.venv/bin/lint-imports
	.venv/bin/shellcheck scripts/*.sh .ci/run
	.venv/bin/hadolint Dockerfile
	$(MAKE) doctest

# Alembic alone can load the migrations.
doctest: setup
	$(TEST_ENV) $(PY) -m pytest --doctest-modules icl_select eval service README.md docs --doctest-glob='*.md' -p no:cacheprovider \
	  --ignore=service/store/migrations

wheel-check: setup
	scripts/check_wheel.sh

docker-check:
	scripts/docker_steps.sh

bench: 
	@scripts/setup.sh dev,bench
	$(PY) benchmarks/import_time.py
	$(PY) benchmarks/select_speed.py
	$(PY) benchmarks/select_scale.py
	$(PY) benchmarks/calibration.py
	$(PY) benchmarks/calibration_real.py
	$(PY) benchmarks/calibration_labels.py

bench-vllm:
	@scripts/setup.sh test,vllm
	HF_HUB_OFFLINE=1 .venv-vllm/bin/python benchmarks/label_scoring.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
