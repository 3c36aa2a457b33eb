# Short names for the everyday commands; the logic lives in CMakePresets.json, pyproject.toml and .ci/run.
SOURCES = $(shell git ls-files --cached --others --exclude-standard \
            '*.h' '*.cpp' '*.inl' '*.cu' '*.cuh')

dev:  ## editable install into the current environment; run again after a change to C++
	pip install -q scikit-build-core pybind11 cmake ninja
	pip install --no-build-isolation -Cbuild-dir=build/editable -e '.[test,dev]'

test:
	pytest

asan:
	.ci/sanitize address

fmt:
	ruff format . && ruff check --fix . && clang-format -i $(SOURCES)

check:
	ruff check . && ruff format --check . && mypy && clang-format --dry-run -Werror $(SOURCES)

.PHONY: dev test asan fmt check
