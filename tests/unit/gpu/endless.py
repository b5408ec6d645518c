"""A check that does not end."""

import time

from tests.gpu.finding import found


def check(world):
    yield found(world.device.type == "cpu", "first", f"on {world.device.type}")
    time.sleep(3600)
