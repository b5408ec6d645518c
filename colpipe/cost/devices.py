"""How fast accelerators are: by published figures, as is assumed, and as was measured (no torch here)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from colpipe.errors import ColpipeError

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


def device_rates(measured: Measured | None = None) -> dict[str, dict[str, float]]:
    """Device → precision → FLOP/s that a training reaches: as is assumed on those of `PEAKS`, and as was measured.

    A precision that was not measured has what is assumed, where the device is known, and else none.
    """
    rates = {name: _assumed(peaks) for name, peaks in PEAKS.items()}
    if measured:
        known = next((peaks for key, peaks in {**PEAKS, **OTHERS}.items() if key in measured.device), {})
        rates[measured.device] = {**_assumed(known), **measured.rates}
    return rates


def _assumed(peaks: Mapping[str, float]) -> dict[str, float]:
    return {precision: UTILISATION * peak for precision, peak in peaks.items()}


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


def find_measurements(results: Path, file: Path | None) -> Measured | None:
    """What was measured on an accelerator: in a file or, where none is given, in that of `results`, if it is there.

    Raises:
        ColpipeError: the file cannot be read, or the one that is given is of a machine without an accelerator.
    """
    if file is None:
        there = results / MEASUREMENTS
        return read_measurements(there) if there.is_file() else None
    if (measured := read_measurements(file)) is None:
        raise ColpipeError(f"{file}: no training was timed on an accelerator there; give a file of a machine with one")
    return measured


def seconds_on(device: str, flops: dict[str, float], rates: Mapping[str, Mapping[str, float]] | None = None) -> float:
    """Of one such device.

    Args:
        rates: of `device_rates`; None: as is assumed.

    Raises:
        ColpipeError: what is known of the device is of another precision.
    """
    known = (rates or device_rates())[device]
    if lacking := [precision for precision, count in flops.items() if count and precision not in known]:
        raise ColpipeError(
            f"{device}: was measured in {', '.join(known)} alone, the study has {', '.join(lacking)}; give a file of "
            "measurements in that: `make gpu-check` measures both"
        )
    return sum(count / known[precision] for precision, count in flops.items() if count)


def measured_text(measured: Measured | None) -> str:
    """What was measured, in a line that ends; nothing where nothing was."""
    if measured is None:
        return ""
    parts = []
    for precision, rate in measured.rates.items():
        peak = peak_of(measured.device, precision)
        share = f" ({rate / peak:.0%} of its peak)" if peak else ""
        parts.append(f"{rate / 1e12:.3g} TFLOP/s in {precision}{share}, {measured.trained[precision]}")
    return f"{measured.device}, as measured ({measured.file}): {'; '.join(parts)}.\n"
