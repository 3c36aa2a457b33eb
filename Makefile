# Short names for the everyday commands; the logic lives in CMakePresets.json, pyproject.toml and .ci/run.
SOURCES = $(shell git ls-files --cached --others --exclude-standard \
            '*.h' '*.cpp' '*.inl' '*.cu' '*.cuh')

dev:  ## editable install into the current environment; run again after a change to C++
	pip install -q scikit-build-core pybind11 cmake ninja
	pip install --no-build-isolation -Cbuild-dir=build/editable -e '.[test,dev]'

test:
	pytest

asan:
	.ci/sanitize

fmt:
	ruff format . && ruff check --fix . && clang-format -i $(SOURCES)

check:
	ruff check . && ruff format --check . && mypy && clang-format --dry-run -Werror $(SOURCES)

docs:  ## the site, in build/docs; needs pip install '.[docs]'
	sphinx-build -W -q docs build/docs

cuda-wheel:  ## dist/fastbp_cuda13-*.whl; needs nvcc on PATH or in CUDACXX, and takes minutes
	pip wheel --no-deps --wheel-dir dist packaging/cuda13

sanitize-gpu:  ## compute-sanitizer's four tools over the tests that need a GPU
	for tool in memcheck racecheck initcheck synccheck; do \
	  compute-sanitizer --tool $$tool --target-processes all --error-exitcode 9 \
	    python -m pytest -q -m gpu || exit; \
	done

.PHONY: dev test asan fmt check docs cuda-wheel sanitize-gpu
