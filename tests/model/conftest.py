"""The tests of the network itself take it as wide as it is."""

import pytest


@pytest.fixture(scope="session")
def model(full_model):
    return full_model


@pytest.fixture(autouse=True, scope="module")
def _as_wide_as_it_is(full_width):
    pass
