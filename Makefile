# Each target makes the virtual environment it needs. A change to setup.cfg or
# pyproject.toml refreshes it; "make clean" forgets it.

PYTHON ?= python3
# The oldest Python that the oldest dependencies are tried under.
OLDEST_PYTHON ?= python3.11
# The CPU build of torch that the tests run against is made for Python 3.11.
TORCH_PYTHON ?= python3.11
TORCH ?= torch==2.13.0
DEMO_ARGS ?=
PYTEST_ARGS ?=
# What the oldest dependencies are tried on: a file of each part of the package.
OLDEST_TESTS ?= tests/test_package.py tests/test_gate.py tests/test_convert.py \
	tests/test_callbacks.py tests/test_report.py tests/test_cli.py tests/test_page.py \
	tests/strip/test_plan.py tests/strip/test_conv.py tests/export/test_commands.py \
	tests/export/test_tflite.py

VENV := .venv
VENV_TORCH := .venv-torch
VENV_OLDEST := .venv-oldest
VENV_WHEEL := .venv-wheel
PACKAGING := setup.cfg pyproject.toml
# -qq: errors only.
PIP_INSTALL := -m pip install -qq --disable-pip-version-check

# What the wheel has to do: hold its types, and run the first example of the README, on
# a few images, up to the .tflite file and a page.
define TRY_WHEEL
import os, pathlib, re, keras, keras_l0, numpy
assert "site-packages" in keras_l0.__file__, keras_l0.__file__
assert pathlib.Path(keras_l0.__file__).with_name("py.typed").exists()
x = numpy.random.default_rng(0).integers(256, size=(256, 28, 28)).astype("uint8")
images = x, numpy.arange(256) % 10
keras.datasets.mnist.load_data = lambda: (images, images)
example = re.search("```python\n(.*?)```", os.environ["README"], re.DOTALL)[1]
assert "epochs=20" in example
exec(example.replace("epochs=20", "epochs=1"))
assert pathlib.Path("small.tflite").stat().st_size > 1000
keras_l0.html_report(model, "small.html")
small.save("small.keras")
endef
export TRY_WHEEL

# TensorFlow logs errors only.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-torch test-oldest nightly lint docs wheel notebooks venv clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile
	@echo
	@echo 'PYTHON=python3.12 picks the interpreter, DEMO_ARGS="..." goes to the demo,'
	@echo 'PYTEST_ARGS="-k name" to pytest.'

demo: $(VENV)/.demo ## train, strip and export a small network
	@$(VENV)/bin/keras-l0 demo $(DEMO_ARGS)

test: $(VENV)/.test ## all tests on TensorFlow, then those that hold on any backend on JAX
	@echo "running the tests on the TensorFlow backend"
	@KERAS_BACKEND=tensorflow $(VENV)/bin/python -m pytest -n 2 $(PYTEST_ARGS)
	@echo "running the tests on the JAX backend"
	@KERAS_BACKEND=jax $(VENV)/bin/python -m pytest -n 2 -m "not tensorflow" $(PYTEST_ARGS)

test-torch: $(VENV_TORCH)/.test ## the tests that hold on any backend, on Torch
	@echo "running the tests on the Torch backend"
	@KERAS_BACKEND=torch $(VENV_TORCH)/bin/python -m pytest -m "not tensorflow" $(PYTEST_ARGS)

test-oldest: $(VENV_OLDEST)/.test ## a part of the tests, with the oldest dependencies that are supported
	@echo "running $(words $(OLDEST_TESTS)) files of tests with the dependencies of tests/oldest.txt"
	@KERAS_BACKEND=tensorflow $(VENV_OLDEST)/bin/python -m pytest $(OLDEST_TESTS) $(PYTEST_ARGS)

nightly: $(VENV)/.test ## thousands of random graphs through strip, all topologies through TFLite, hours
	@KERAS_BACKEND=tensorflow $(VENV)/bin/python -m pytest -m thorough $(PYTEST_ARGS)
	@KERAS_BACKEND=tensorflow $(VENV)/bin/python -m pytest --hypothesis-profile=nightly tests/strip/test_property.py $(PYTEST_ARGS)

lint: $(VENV)/.dev ## ruff (rules and formatting) and mypy
	@echo "checking with ruff and mypy"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

# The page of layers asks the package, which runs on the smallest backend here.
docs: $(VENV)/.docs ## build the documentation into site/, any warning is an error
	@echo "building site/"
	@KERAS_BACKEND=jax NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "site/index.html is the start page"

# The wheel is made of the sdist. Nothing of the checkout is there when it is tried.
wheel: $(VENV)/.dev ## build sdist and wheel into dist/, and try the wheel in an empty environment
	@rm -rf dist build $(VENV_WHEEL)
	@echo "building dist/"
	@$(VENV)/bin/python -m build . > /dev/null
	@$(PYTHON) -m venv $(VENV_WHEEL)
	@echo "installing the wheel into $(VENV_WHEEL)"
	@$(VENV_WHEEL)/bin/python $(PIP_INSTALL) "$$(ls $(CURDIR)/dist/*.whl)[tensorflow-cpu]"
	@echo "running the first example of the README"
	@cd $(VENV_WHEEL) && README="$$(cat ../README.md)" bin/python -I -c "$$TRY_WHEEL"
	@cd $(VENV_WHEEL) && bin/keras-l0 --version && bin/keras-l0 plan small.keras
	@rm -r $(VENV_WHEEL)

# --update keeps the identifiers of cells that did not change, so that a second run
# writes nothing.
notebooks: $(VENV)/.test ## regenerate tutorials/*.ipynb from tutorials/*.py
	@$(VENV)/bin/jupytext --update --to ipynb tutorials/*.py

venv: $(VENV)/.test $(VENV)/.dev ## fill .venv with all that work on the package needs

clean: ## remove the environments, the caches and what was built
	rm -rf $(VENV) $(VENV_TORCH) $(VENV_OLDEST) $(VENV_WHEEL) build dist site *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo: $(VENV)/.made $(PACKAGING)
	@echo "installing TensorFlow and friends into $(VENV), about 2 minutes ..."
	@$(VENV)/bin/python $(PIP_INSTALL) -e ".[tensorflow-cpu,demo]"
	@touch $@

$(VENV)/.test: $(VENV)/.made $(PACKAGING)
	@echo "installing TensorFlow, JAX and the test tools into $(VENV), about 2 minutes ..."
	@$(VENV)/bin/python $(PIP_INSTALL) -e ".[tensorflow-cpu,demo,test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(PACKAGING)
	@echo "installing ruff and mypy into $(VENV) ..."
	@$(VENV)/bin/python $(PIP_INSTALL) -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.made $(PACKAGING)
	@echo "installing MkDocs and its plugins into $(VENV) ..."
	@$(VENV)/bin/python $(PIP_INSTALL) -e ".[docs]"
	@touch $@

$(VENV)/.made:
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV_TORCH)/.test: $(VENV_TORCH)/.made $(PACKAGING)
	@echo "installing $(TORCH) and the test tools into $(VENV_TORCH), a few minutes ..."
	@$(VENV_TORCH)/bin/python $(PIP_INSTALL) "$(TORCH)" -e ".[test]"
	@touch $@

$(VENV_TORCH)/.made:
	@echo "creating $(VENV_TORCH) with $(TORCH_PYTHON)"
	@$(TORCH_PYTHON) -m venv $(VENV_TORCH)
	@touch $@

$(VENV_OLDEST)/.test: $(VENV_OLDEST)/.made $(PACKAGING) tests/oldest.txt
	@echo "installing the dependencies of tests/oldest.txt into $(VENV_OLDEST), about 2 minutes ..."
	@$(VENV_OLDEST)/bin/python $(PIP_INSTALL) -c tests/oldest.txt -e ".[tensorflow-cpu,demo]" pytest hypothesis
	@touch $@

$(VENV_OLDEST)/.made:
	@echo "creating $(VENV_OLDEST) with $(OLDEST_PYTHON)"
	@$(OLDEST_PYTHON) -m venv $(VENV_OLDEST)
	@touch $@
