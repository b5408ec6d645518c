"""The speed of a core, measured: a number that a processor of today can have."""

from colpipe.cost.processor import cores, training_rate


def test_a_processor():
    assert 1e8 < training_rate() < 1e12 and training_rate() == training_rate()
    assert cores() >= 1
