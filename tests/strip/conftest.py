import pathlib

import models_conv  # noqa: F401
import models_decided  # noqa: F401
import models_granular  # noqa: F401
import models_heads  # noqa: F401
import models_operations  # noqa: F401  (it adds its models to the registry)
import models_sequence  # noqa: F401
import models_streams  # noqa: F401
import models_topologies  # noqa: F401
import models_topologies_sequence  # noqa: F401
import pytest
from adversary import PRECISION, policy


def pytest_collection_modifyitems(items):
    """What is not marked for any backend is decided on TensorFlow, in float64."""
    for item in items:
        here = item.path.is_relative_to(pathlib.Path(__file__).parent)
        if here and not item.get_closest_marker("any_backend"):
            item.add_marker("tensorflow")


@pytest.fixture(autouse=True)
def precision():
    with policy(PRECISION):
        yield
