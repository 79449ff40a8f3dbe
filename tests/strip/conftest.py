from pathlib import Path

import keras
import models_conv  # noqa: F401
import models_operations  # noqa: F401  (it adds its models to the registry)
import models_sequence  # noqa: F401
import pytest
from adversary import policy

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    """On JAX, what differs by backend: the outputs and the cost function.

    What strip decides and builds is the same Keras code on every backend; all of it is
    tested on TensorFlow.
    """
    if keras.backend.backend() == "tensorflow":
        return
    kept = []
    for item in items:
        here = item.path.parent == HERE
        name = item.nodeid
        if (
            here
            and "test_cost" not in name
            and not ("outputs_are_equal" in name and "-keep]" in name)
        ):
            continue
        kept.append(item)
    config.hook.pytest_deselected(items=[i for i in items if i not in set(kept)])
    items[:] = kept


@pytest.fixture(autouse=True)
def float64():
    """Correctness is decided in float64: rounding cannot hide a mistake there."""
    with policy("float64"):
        if keras.backend.backend() != "jax":
            yield
            return
        import jax

        wide = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
        yield
        jax.config.update("jax_enable_x64", wide)
