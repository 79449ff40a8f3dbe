"""What the tests share: seeds, and a gradient on any backend."""

import gc
import os

# Small programs run once or twice: to compile them well takes longer than to run them.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import keras  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# pytest --hypothesis-profile=nightly
for _name, _examples in (("ci", 60), ("nightly", 4000)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        derandomize=_name == "ci",
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
settings.load_profile("ci")


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """Models that tests keep are not searched for garbage again and again.

    `keras.backend.clear_session` collects, which took seconds among hundreds of them.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def reproducible():
    keras.utils.set_random_seed(20)
    yield
    keras.config.set_dtype_policy("float32")


def _gradient(function, variable):
    """d function() / d variable on the running backend, as a NumPy array."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            result = function()
        gradient = tape.gradient(result, variable.value)
    elif backend == "jax":
        import jax

        def of_value(value):
            with keras.StatelessScope(state_mapping=[(variable, value)]):
                return function()

        gradient = jax.grad(of_value)(variable.value)
    else:
        variable.value.grad = None
        function().backward()
        gradient = variable.value.grad
    return keras.ops.convert_to_numpy(gradient)


@pytest.fixture
def gradient():
    return _gradient
