"""How fast accelerators are: by published figures, as is assumed, and as was measured (no torch here)."""

import json
from pathlib import Path
from typing import NamedTuple

from colpipe.errors import ColpipeError

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
MEASUREMENTS = "gpu-check.json"  # under the folder of all studies' results: what `make gpu-check` writes there
# FLOP/s by published figures, dense (H100: SXM; of the 910B several versions are sold, which differ by a fifth). Change them
# here.
PEAKS = {
    "H100": {"bfloat16": 989e12, "float32": 67e12},
    "Ascend 910B": {"bfloat16": 320e12, "float32": 75e12},
}
OTHERS = {  # that are known by their names, and that no estimate shows unless they were measured
    "H200": PEAKS["H100"],
    "A100": {"bfloat16": 312e12, "float32": 19.5e12},
    "910B": PEAKS["Ascend 910B"],
}
UTILISATION = 0.4  # that trainings are assumed to reach


class Measured(NamedTuple):
    """What trainings reached on a device, by `make gpu-check`."""

    device: str
    """as its maker calls it"""
    rates: dict[str, float]
    """precision → FLOP/s"""
    trained: dict[str, str]
    """precision → what was trained"""
    file: Path


def peak_of(name: str, precision: str) -> float | None:
    """FLOP/s of a device, by its name; None where it is not known."""
    return next((peaks[precision] for key, peaks in {**PEAKS, **OTHERS}.items() if key in name), None)


def rate_on(device: str, precision: str) -> float:
    """FLOP/s that a training is assumed to reach on a device of `PEAKS`."""
    return UTILISATION * PEAKS[device][precision]


def read_measurements(file: Path) -> Measured | None:
    """What was measured; None where the file is of a machine without an accelerator.

    Raises:
        ColpipeError: it cannot be read, or is no such file.
    """
    try:
        found = json.loads(file.read_text())["measured"]
        if found is None:
            return None
        rates = {precision: float(entry["flops_per_second"]) for precision, entry in found["training"].items()}
        trained = {precision: str(entry["of"]) for precision, entry in found["training"].items()}
        if not rates or not set(rates) <= {"bfloat16", "float32"} or min(rates.values()) <= 0:
            raise ValueError(f"rates {rates}")
        return Measured(str(found["device"]), rates, trained, file)
    except OSError as error:
        raise ColpipeError(f"{file}: {error.strerror}; `make gpu-check` writes it on a machine with a GPU") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ColpipeError(f"{file}: no measurements of `make gpu-check`: {type(error).__name__} {error}") from None
