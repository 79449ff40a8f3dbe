from pathlib import Path

import keras
import models_conv  # noqa: F401
import models_operations  # noqa: F401  (it adds its models to the registry)
import models_sequence  # noqa: F401
import pytest
from adversary import policy

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    """Strip is decided on TensorFlow: what it builds is the same Keras code elsewhere.

    Keras' float64 is in part float32 on JAX, too coarse for the decisions made here.
    """
    if keras.backend.backend() == "tensorflow":
        return
    dropped = [item for item in items if item.path.parent == HERE]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item.path.parent != HERE]


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
