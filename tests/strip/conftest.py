import keras
import models_conv  # noqa: F401
import models_operations  # noqa: F401  (it adds its models to the registry)
import models_sequence  # noqa: F401
import pytest
from adversary import policy


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
