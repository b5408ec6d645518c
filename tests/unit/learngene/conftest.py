"""Fixtures: neighbours of each family, made once and never changed."""

from functools import cache

import pytest
import torch

from tests.conftest import make_model
from tests.unit.learngene.tiny import FAMILIES, NAMES, Neighbours, architecture, shape


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """More threads only wait for each other on models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def neighbours_of(tmp_path_factory):
    """Function: family, tied → its neighbours."""

    @cache
    def make(family: str, tied: bool) -> Neighbours:
        folder, chain = tmp_path_factory.mktemp(family), architecture(family, tied)
        small = make_model(folder / "small", chain, shape(family, 2, 2, 20), seed=1)
        large = make_model(folder / "large", chain, shape(family, 5, 4, 40), seed=2)
        return Neighbours(chain, small, large, folder / "small", folder / "large")

    return make


@pytest.fixture(params=FAMILIES, ids=NAMES)
def neighbours(request, neighbours_of) -> Neighbours:
    """Each family, tied and untied."""
    return neighbours_of(*request.param)


@pytest.fixture
def gpt2(neighbours_of) -> Neighbours:
    return neighbours_of("gpt2", True)


@pytest.fixture
def llama(neighbours_of) -> Neighbours:
    return neighbours_of("llama", False)
