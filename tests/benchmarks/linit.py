"""LInit at real model sizes: seconds and memory of one assembly, beside the least that its bytes cost.

Models of real shapes and random weights are made in a temporary folder. Every measure is a fresh process, with its
inputs in the page cache:

    ours     `Weights`, `linit` and `Assembly.write`, from two model folders to a third.
    floor    read() as many bytes as the DesNet takes from each tensor, once, and write() as many as it has.
    baseline    the obvious loop: load both models, mix their state_dict()s, save_pretrained(); where a case says so.

They take turns; the lowest times and the highest memory of three count. Imports are timed apart. Memory is what comes
on top of what the imports left; resident memory is anonymous memory and the pages of mapped files together. Where
others use the machine, the ratio of processor seconds (all threads, kernel included) tells more than the clock's.

    python -m tests.benchmarks.linit            all cases; 12 minutes alone on 2 cores, 12 GB of disk, 8 GB of memory
    python -m tests.benchmarks.linit --quick    a small model, once; tells nothing

Prints a line for each and, as the last line, one JSON object: sizes in bytes, times in seconds.
Missing a goal is no failure. TMPDIR says where the models are made. Linux only (/proc).
"""

import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from colpipe.config.parts import Architecture, Shape
from colpipe.config.sizing import automatic_alpha
from tests.benchmarks.measuring import Line, measured, report

METHODS = ("paper", "nested")
REPETITIONS = 3
SLOWDOWN = 2.0  # goal: ours / floor, seconds
OVERHEAD = 1.3  # goal: peak memory / size of the output
CHUNK = 8 * 2**20  # bytes per read() and write() of the floor
QUICK = "small"


@dataclass(frozen=True)
class Case:
    """A DesNet and its two neighbours.

    Attributes:
        smaller, larger, desnet: shapes.
        dtype: of all three, as torch names it.
        files: safetensors files per source; more than one are listed in an index.
        baseline: whether the obvious loop is measured too.
    """

    architecture: Architecture
    smaller: Shape
    larger: Shape
    desnet: Shape
    dtype: str = "float32"
    files: int = 1
    baseline: bool = False

    @property
    def alpha(self) -> float:
        """Weight of the smaller neighbour."""
        return automatic_alpha(*map(self.architecture.parameters, (self.smaller, self.larger, self.desnet)))


def gpt2(layers: int, heads: int, hidden: int) -> Shape:
    return Shape(layers=layers, heads=heads, hidden=hidden)


def qwen3(hidden: int, ffn: int) -> Shape:
    return Shape(layers=28, heads=16, kv_heads=8, head_dim=128, hidden=hidden, ffn=ffn)


GPT2 = Architecture(family="gpt2", vocabulary=50257, positions=1024)
QWEN3 = Architecture(family="qwen3", vocabulary=151936, positions=40960, tied=True)
BASE, MEDIUM, LARGE = gpt2(12, 12, 768), gpt2(24, 16, 1024), gpt2(36, 20, 1280)
DESNET_138M, DESNET_380M = gpt2(14, 12, 768), gpt2(26, 16, 1024)
CASES = {
    QUICK: Case(GPT2, gpt2(2, 4, 256), gpt2(4, 6, 384), gpt2(3, 5, 320), baseline=True),
    "DesNet-138M": Case(GPT2, BASE, MEDIUM, DESNET_138M, baseline=True),
    "DesNet-138M sharded": Case(GPT2, BASE, MEDIUM, DESNET_138M, files=4),
    "DesNet-138M bf16": Case(GPT2, BASE, MEDIUM, DESNET_138M, dtype="bfloat16"),
    "DesNet-380M": Case(GPT2, MEDIUM, LARGE, DESNET_380M, baseline=True),
    "DesNet-1.09B bf16": Case(QWEN3, qwen3(1024, 3072), qwen3(2048, 6144), qwen3(1536, 4608), dtype="bfloat16"),
}


# In the measured processes


def make_sources(case: Case, folder: Path) -> None:
    """Write both neighbours with random weights."""
    import torch

    torch.manual_seed(0)
    for name, shape in (("smaller", case.smaller), ("larger", case.larger)):
        make_model(case, shape, folder / name)


def make_model(case: Case, shape: Shape, folder: Path) -> None:
    """A model folder with random weights, tensor by tensor, its layers spread evenly over the files."""
    import torch

    from colpipe.learngene.assembly import Assembly
    from colpipe.learngene.weights import write_model

    dtype = getattr(torch, case.dtype)
    table, sizes, tied = case.architecture.table, case.architecture.sizes(shape), case.architecture.is_tied
    config = case.architecture.configure(shape, end_of_text=0)
    shapes = Assembly(table, sizes, tied, config, dtype, value=None).shapes()
    names, weight_map = list(shapes), {}
    for number in range(case.files):
        own = names[len(names) * number // case.files : len(names) * (number + 1) // case.files]
        random = ((name, torch.empty(shapes[name], dtype=dtype).normal_(std=0.02)) for name in own)
        write_model({name: shapes[name] for name in own}, random, config, dtype, folder)
        if case.files > 1:
            file = f"model-{number + 1:05}-of-{case.files:05}.safetensors"
            (folder / "model.safetensors").rename(folder / file)
            weight_map.update(dict.fromkeys(own, file))
    if weight_map:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def prepare(case: Case, method: str, folder: Path):
    """Both neighbours and the DesNet, not yet computed."""
    from colpipe.learngene.linit import linit
    from colpipe.learngene.weights import Weights

    smaller, larger = Weights(folder / "smaller"), Weights(folder / "larger")
    target = case.architecture.sizes(case.desnet)
    return smaller, larger, linit(smaller, larger, target, case.alpha, method)


def ours(case: Case, method: str, folder: Path) -> dict:
    """One assembly from folders to a folder."""
    return measured(lambda: prepare(case, method, folder)[2].write(folder / "out"))


def floor(case: Case, method: str, folder: Path) -> dict:
    """Plain reading of the needed bytes and writing of as many bytes as the output has."""
    smaller, larger, assembly = prepare(case, method, folder)
    maps = assembly.details["index_maps"]
    needed = [*byte_ranges(smaller, maps["smaller"]), *byte_ranges(larger, maps["larger"])]
    out_bytes = assembly.parameters * assembly.dtype.itemsize
    (folder / "out").mkdir()
    result = measured(lambda: (read_ranges(needed), write_bytes(folder / "out" / "model.safetensors", out_bytes)))
    return {**result, "input_bytes": sum(length for _, _, length in needed)}


def byte_ranges(source, maps: Mapping[str, object]) -> Iterator[tuple[Path, int, int]]:
    """(file, offset, length) in bytes of what is taken from each tensor of a source.

    A column subset is counted as if its columns lay side by side: no reading can be cheaper than that.

    Args:
        source: `Weights`.
        maps: axis → indices, or how many leading ones.
    """
    taken = {axis: set(range(kept) if isinstance(kept, int) else kept) for axis, kept in maps.items()}
    places = dict(stored_places(source.folder))
    for name, tensor in source.family.table(source.tied):
        length = source.dtype.itemsize
        for axis in tensor.names:
            length *= len(taken[axis]) if axis in taken else source.sizes[axis]
        for layer in taken["layer"] - {None} if "{layer}" in name else [None]:
            yield *places[name.format(layer=layer)], length


def stored_places(folder: Path) -> Iterator[tuple[str, tuple[Path, int]]]:
    """(tensor name, (file, offset in bytes)) of a model folder."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        for name, entry in header.items():
            if name != "__metadata__":
                yield name, (path, 8 + size + entry["data_offsets"][0])


def read_ranges(ranges: list[tuple[Path, int, int]]) -> None:
    """Read (file, offset, length) one after the other into one buffer."""
    buffer = memoryview(bytearray(CHUNK))
    files = {path: open(path, "rb", buffering=0) for path, _, _ in ranges}
    for path, offset, length in ranges:
        files[path].seek(offset)
        while length:
            length -= files[path].readinto(buffer[: min(length, CHUNK)])
    for file in files.values():
        file.close()


def write_bytes(path: Path, length: int) -> None:
    """Write a file of `length` bytes."""
    buffer = memoryview(bytearray(b"x" * CHUNK))  # zeros would all lie in one page
    with open(path, "wb", buffering=0) as file:
        while length:
            length -= file.write(buffer[: min(length, CHUNK)])


def baseline(case: Case, method: str, folder: Path) -> dict:
    """The loop over two loaded models; it knows the paper's method and GPT-2 only."""
    return measured(lambda: rival_loop(case, folder))


def rival_loop(case: Case, folder: Path) -> None:
    """Load, mix, save. The model that takes the result starts empty, which spares it a random initialisation."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config

    smaller = AutoModelForCausalLM.from_pretrained(folder / "smaller").state_dict()
    larger = AutoModelForCausalLM.from_pretrained(folder / "larger").state_dict()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(GPT2Config(**case.architecture.configure(case.desnet, 0)))
    mixed, alpha = {}, case.alpha
    for name, empty in model.state_dict().items():
        if name != "lm_head.weight":  # tied
            small = fit(name, smaller[origin(name, case)], empty.shape)
            mixed[name] = alpha * small + (1 - alpha) * fit(name, larger[name], empty.shape)
    model.load_state_dict(mixed, strict=False, assign=True)
    model.tie_weights()
    model.save_pretrained(folder / "out")


def origin(name: str, case: Case) -> str:
    """Name of the smaller's tensor: the last layers are there twice."""
    added = case.desnet.layers - case.smaller.layers

    def source(match: re.Match) -> str:
        layer = int(match[1])
        return f".h.{layer if layer < case.smaller.layers else layer - added}."

    return re.sub(r"\.h\.(\d+)\.", source, name)


def fit(name: str, value, shape: tuple[int, ...]):
    """The leading indices, then the last ones again, in every dimension; queries, keys, values each by themselves."""
    import torch

    if "c_attn" in name:
        part = (*shape[:-1], shape[-1] // 3)
        return torch.cat([fit("", piece, part) for piece in value.chunk(3, -1)], -1)
    for dimension, size in enumerate(shape):
        have = value.shape[dimension]
        value = value.narrow(dimension, 0, min(size, have))
        if size > have:
            value = torch.cat([value, value.narrow(dimension, 2 * have - size, size - have)], dimension)
    return value


KINDS = {"ours": ours, "floor": floor, "baseline": baseline}


# In the process that starts them; it imports no torch and stays small


def child(*arguments: object) -> dict | None:
    """What a process of this module reports."""
    command = [sys.executable, "-m", "tests.benchmarks.linit", "--child", *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed")
    return json.loads(result.stdout.splitlines()[-1])


def run_child(kind: str, case: str, method: str, folder: str) -> None:
    """Measure one thing and print it."""
    if kind == "make":
        make_sources(CASES[case], Path(folder))
        print("null")
        return
    start = time.perf_counter()
    imports(kind, CASES[case].architecture.family)
    seconds = time.perf_counter() - start
    claim_memory(CASES[case], Path(folder))
    print(json.dumps({**KINDS[kind](CASES[case], method, Path(folder)), "import_seconds": seconds}))


def imports(kind: str, family: str) -> None:
    """What a kind needs, before its clock starts and its memory is counted: what is imported at first use as well."""
    import_module("colpipe.learngene.linit")
    import_module("colpipe.learngene.stored").complete_config({"model_type": family}, family)
    if kind == "baseline":
        for name in ("auto.modeling_auto", "gpt2.modeling_gpt2"):  # transformers imports a family on first use
            import_module(f"transformers.models.{name}")
        import_module("transformers.utils.logging").disable_progress_bar()


def claim_memory(case: Case, folder: Path) -> None:
    """Write as much as the output will have, and delete it.

    A virtual machine gets memory from its host page by page at first use, which takes several times longer than writing
    to it and hits whoever comes first. What was just freed is handed out next.
    """
    import torch

    path = folder / "claimed"
    write_bytes(path, case.architecture.parameters(case.desnet) * getattr(torch, case.dtype).itemsize)
    path.unlink()


def warm(folder: Path) -> None:
    """Bring the sources into the page cache, and what was written before to the disk."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    os.sync()
    buffer = bytearray(CHUNK)
    for path in folder.glob("*/*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def measure(name: str, method: str, folder: Path, repetitions: int) -> dict:
    """One row: the best time and the highest memory of each kind."""
    kinds = [kind for kind in KINDS if kind != "baseline" or (CASES[name].baseline and method == "paper")]
    runs = {kind: [] for kind in kinds}
    for _ in range(repetitions):
        for kind in kinds:
            warm(folder)
            runs[kind].append(child(kind, name, method, folder))
            out_bytes = (folder / "out" / "model.safetensors").stat().st_size
    return {"case": name, "method": method, "output_bytes": out_bytes, **{kind: best(runs[kind]) for kind in kinds}}


def best(runs: list[dict]) -> dict:
    """Of several runs, the lowest time and the highest memory of any."""
    return {key: (max if "peak" in key else min)(run[key] for run in runs) for key in runs[0]}


def lines_of(row: Mapping) -> list[Line]:
    """Ours beside the floor, what its memory may be, and that it never holds both inputs."""
    ours, name = row["ours"], f"LInit, {row['case']}, {row['method']}"
    peak, whole, inputs = (value / 1e6 for value in (ours["peak"], row["output_bytes"], row["floor"]["input_bytes"]))
    return [
        Line(name, "s", ours["seconds"], "reading and writing", row["floor"]["seconds"], SLOWDOWN),
        Line(name, "s of processors", ours["processor_seconds"], "the same", row["floor"]["processor_seconds"]),
        Line(name, "MB", peak, "the output", whole, OVERHEAD),
        Line(name, "MB", peak, "what is taken of the inputs", inputs, 1),
        *([Line(name, "s", ours["seconds"], "the loop", row["baseline"]["seconds"])] if "baseline" in row else []),
    ]


def run(quick: bool) -> list[dict]:
    """Measure and print row by row; each case's models are deleted before the next are made."""
    rows = []
    for name in [QUICK] if quick else [name for name in CASES if name != QUICK]:
        with tempfile.TemporaryDirectory(prefix="linit-") as folder:
            child("make", name, "-", folder)
            for method in METHODS:
                rows.append(measure(name, method, Path(folder), 1 if quick else REPETITIONS))
                print(f"{name}, {method}: {rows[-1]['ours']['seconds']:.2f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, once")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return run_child(*arguments.child)
    rows = run(arguments.quick)
    report([line for row in rows for line in lines_of(row)], rows=rows)


if __name__ == "__main__":
    main()
