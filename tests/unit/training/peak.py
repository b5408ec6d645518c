"""One stage in a process of its own, which says what it held before its first model and at its peak.

Arguments: the stage, and what it is to be called with. The last line is JSON: bytes `before`, `peak`.
"""

import json
import runpy
import sys

from colpipe.hf import models
from colpipe.jobs.usage import peak_memory


def resident() -> int:
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def main(stage: str, arguments: list[str]) -> None:
    held = []

    def noted(make):
        def noting(*args, **named):
            held.append(resident())
            return make(*args, **named)

        return noting

    models.load_model, models.random_model = noted(models.load_model), noted(models.random_model)
    sys.argv = [stage, *arguments]
    runpy.run_module(f"colpipe.stages.{stage}", run_name="__main__")
    print(json.dumps({"before": held[0], "peak": peak_memory()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
