"""Which device is taken, and what is asked of it; an NPU is stood in for by a module that has torch_npu's names alone."""

import importlib.machinery
import subprocess
import sys
import types

import pytest
import torch

from colpipe.errors import ColpipeError
from colpipe.jobs import device, usage
from colpipe.jobs.kinds import KINDS
from tests.conftest import CHECKOUT


class FakeNpu(types.ModuleType):
    """`torch.npu`, as far as torch_npu documents it; asking it for anything else fails, as on a machine with NPUs."""

    def __init__(self, count: int = 2, half: bool = True):
        super().__init__("torch.npu")
        self.calls: list[str] = []
        self.is_available = lambda: count > 0
        self.device_count = lambda: count
        self.is_initialized = lambda: True
        self.is_bf16_supported = lambda: half
        self.get_device_name = lambda place=None: "Ascend910B3"
        self.get_device_properties = lambda place: types.SimpleNamespace(total_memory=64 * 10**9)
        self.memory_allocated = lambda place=None: 5
        self.max_memory_allocated = lambda place=None: 7
        for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
            setattr(self, name, lambda place=None, name=name: self.calls.append(name))


@pytest.fixture
def npu(monkeypatch):
    """Stands in for an NPU; a function that changes how many there are, and whether they have bfloat16."""
    package = types.ModuleType("torch_npu")
    package.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None)
    monkeypatch.setitem(sys.modules, "torch_npu", package)
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def there(count: int = 2, half: bool = True) -> FakeNpu:
        fake = FakeNpu(count, half)
        monkeypatch.setattr(torch, "npu", fake, raising=False)
        return fake

    there()
    real = torch.device

    def taken(kind, index=None):
        """torch takes the word `npu` for a device once torch_npu has registered it."""
        return NpuDevice(index) if "npu" in str(kind) else real(kind)

    monkeypatch.setattr(device.torch, "device", taken)
    return there


class NpuDevice:
    """What `torch.device("npu", 1)` gives where torch_npu is loaded."""

    def __init__(self, index: int | None):
        self.type, self.index = "npu", index

    def __str__(self) -> str:
        return "npu"


def test_an_npu_is_taken_first(npu, monkeypatch):
    assert device.why_not("npu") is None
    for wanted in ("auto", "npu"):
        assert (device.pick_device(wanted).type, device.pick_device(wanted).index) == ("npu", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.pick_device("auto").index == 1
    assert device.pick_device("cpu").type == "cpu"


def test_all_that_is_asked_of_one(npu, capsys):
    fake, place = npu(), NpuDevice(0)
    assert device.device_name(place) == "Ascend910B3" and device.memory_of(place) == 64 * 10**9
    assert device.start_peak(place) == 5 and device.peak_memory_of(place) == 7
    device.wait_for(place)
    assert fake.calls == ["empty_cache", "reset_peak_memory_stats", "synchronize"]
    device.require_precision(place, "bfloat16")
    assert usage._accelerator() == ("Ascend910B3", 7)
    device.main()
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["used: npu", *[f"npu: {index} Ascend910B3, 64 GB, bfloat16" for index in (0, 1)]]


def test_what_it_lacks_is_said(npu, monkeypatch):
    npu(half=False)
    with pytest.raises(ColpipeError, match="bfloat16 is not supported by Ascend910B3; use float32"):
        device.require_precision(NpuDevice(0), "bfloat16")
    device.require_precision(NpuDevice(0), "float32")
    npu(count=0)
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "")
    said = r"npu cannot be used: torch_npu finds no device \(ASCEND_RT_VISIBLE_DEVICES is ''"
    with pytest.raises(ColpipeError, match=said):
        device.pick_device("npu")


def test_a_package_that_is_missing_is_said_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    assert device.why_not("npu") == "torch_npu is not installed (pip install 'colpipe[npu]')"


def test_libraries_that_are_missing_are_said(npu, monkeypatch):
    def broken(name):
        raise OSError("libascendcl.so: cannot open shared object file")

    monkeypatch.setattr(device.importlib, "import_module", broken)
    assert device.why_not("npu") == "torch_npu cannot be loaded: libascendcl.so: cannot open shared object file"
    assert device.pick_device("auto").type == "cpu"


def test_float64_is_computed_on_the_cpu_where_the_device_has_none(npu):
    moved = []

    class OnNpu:
        device = NpuDevice(0)

        def cpu(self):
            moved.append("cpu")
            return torch.ones(2)

    assert device.float64(OnNpu()).dtype == torch.float64 and moved == ["cpu"]
    value = torch.ones(2)
    assert device.float64(value).device.type == "cpu" and not KINDS["npu"].float64 and KINDS["cuda"].float64


def test_the_cpu_has_no_memory_of_its_own():
    place = torch.device("cpu")
    device.wait_for(place)
    assert (device.backend(place), device.start_peak(place), device.peak_memory_of(place)) == (None, 0, 0)
    assert device.device_name(place).startswith("CPU, ")
    device.require_precision(place, "bfloat16")


def test_kinds_need_no_torch():
    program = "import sys; import colpipe.jobs.launch; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=CHECKOUT)
    assert done.stdout.strip() == "False", done.stderr
