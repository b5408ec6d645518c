"""Preparing a corpus: speed beside datasets' map, memory as the corpus grows, and whether a kill leaves a trace.

The text is made here: pseudo-words of a Zipf distribution in paragraphs, documents of log-normal length, as JSON lines; the
tokenizer is a byte-level BPE trained on its beginning. Every measure is a fresh process.

    speed    10 MB of text to packed ids on disk, on two processes: ours (`write_shards`: reading, splitting, tokenising,
             packing), against `datasets.map(batched=True, num_proc=2)` with the tokenizer and another with `group_texts`,
             as transformers' run_clm.py has them; its text is in Arrow files before the clock starts. In turns, the lowest
             of three counts. Processor seconds, of all processes, tell more where others use the machine.
    memory   highest memory of the stage's processes together (pages that they share count once) at 10 MB and 200 MB.
    kill     10 MB: the stage is killed (SIGKILL) after a third and after two thirds, and started again.

    python -m tests.benchmarks.corpus            6 minutes alone on 2 cores, 1 GB of disk
    python -m tests.benchmarks.corpus --quick    a tenth of the sizes, once; tells nothing about speed

Prints one line per measure and, as the last line, one JSON object. Missing a goal is no failure. Linux only (/proc).
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from colpipe.data.shard_writing import documents_of, tokens_of, write_shards
from colpipe.jobs.state import read_record
from tests.benchmarks.measuring import Line, report
from tests.conftest import make_tokenizer, open_job

PROCESSES = 2
BLOCK = 1024  # tokens, of the baseline's group_texts
LEXICON, VOCABULARY = 50_000, 16_000
FASTER = 1.5  # goal: seconds of datasets / ours
GROWTH = 1.1  # goal: memory at the large size / at the small one
SETTINGS = {"source": {"path": "."}, "reader": "text", "validation": 0.03, "test": 0.03}
SAMPLING = 0.02  # seconds between looks at the memory


def documents(size: int) -> Iterator[str]:
    """Documents of `size` bytes in all; a smaller size gives the beginning of a larger one."""
    random = np.random.default_rng(0)
    consonants, vowels = [*"bcdfghjklmnprstvwz", "st", "tr", "ch", "th"], [*"aeiou", "ea", "ou"]
    syllables = np.array([first + second for first in consonants for second in vowels])
    lengths = 1 + random.poisson(1.1, LEXICON)
    lexicon = np.array(["".join(random.choice(syllables, length)) for length in lengths], dtype=object)
    weights = np.cumsum(1 / (np.arange(LEXICON) + 3))
    while size > 0:
        paragraphs = []
        for length in 5 + random.lognormal(4, 0.8, 1 + random.geometric(0.3)).astype(int):
            words = lexicon[np.searchsorted(weights, random.random(length) * weights[-1])]
            words[random.random(length) < 0.1] += ","
            words[random.random(length) < 0.06] += "."
            paragraphs.append(" ".join(words).capitalize() + ".")
        document = "\n\n".join(paragraphs)
        size -= len(document)
        yield document


def write_texts(folder: Path, size: int) -> Path:
    folder.mkdir()
    with open(folder / "texts.jsonl", "w") as file:
        file.writelines(json.dumps({"text": document}) + "\n" for document in documents(size))
    return folder


def ours(texts: Path, tokenizer: Path, output: Path) -> dict:
    """Our stage without its start and its end: no model library is loaded, no checksum taken."""
    from colpipe.config.parts import Dataset, Runtime
    from colpipe.data.records import read
    from colpipe.data.tokenising import tokenise
    from colpipe.hf.tokenizers import load_tokenizer

    settings = Dataset.model_validate(SETTINGS)
    job = open_job("prepare_corpus", output, output.with_name("work"), settings, Runtime(), {}, 0)
    loaded = load_tokenizer(tokenizer)

    def work() -> int:
        found = ((record["split"], record["text"]) for record in read(settings, texts))
        return tokens_of(write_shards(job, lambda done: tokenise(islice(found, done, None), loaded, PROCESSES)))

    return timed(work)


def baseline(texts: Path, tokenizer: Path, output: Path) -> dict:
    """datasets' map, twice."""
    import datasets

    from colpipe.hf.tokenizers import load_tokenizer

    datasets.disable_progress_bars()
    loaded = load_tokenizer(tokenizer)
    cache = str(output.with_name("cache"))
    raw = datasets.load_dataset("json", data_files=str(texts / "texts.jsonl"), split="train", cache_dir=cache)

    def tokenise(examples: dict) -> dict:
        return loaded(examples["text"], add_special_tokens=False)

    def group_texts(examples: dict) -> dict:
        joined = {name: list(chain(*values)) for name, values in examples.items()}
        total = len(joined["input_ids"]) // BLOCK * BLOCK
        blocks = {
            name: [values[start : start + BLOCK] for start in range(0, total, BLOCK)] for name, values in joined.items()
        }
        return {**blocks, "labels": blocks["input_ids"].copy()}

    def work() -> int:
        ids = raw.map(tokenise, batched=True, num_proc=PROCESSES, remove_columns=["text"])
        return len(ids.map(group_texts, batched=True, num_proc=PROCESSES)) * BLOCK

    return timed(work)


CONTENDERS = {"ours": ours, "datasets": baseline}


def timed(work) -> dict:
    """Seconds by the clock and of the processors, this process and its children; what `work` gives is its tokens."""

    def processor() -> float:
        uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(use.ru_utime + use.ru_stime for use in uses)

    start, used = time.perf_counter(), processor()
    tokens = work()
    return {"seconds": time.perf_counter() - start, "processor_seconds": processor() - used, "tokens": tokens}


def speed(texts: Path, tokenizer: Path, repetitions: int) -> dict[str, dict]:
    """The fastest run of each contender, in processes of their own."""
    runs: dict[str, list[dict]] = {name: [] for name in CONTENDERS}
    for _ in range(repetitions):
        for name, found in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", __spec__.name, "--measure", name]
                places = [str(texts), str(tokenizer), f"{folder}/output"]
                told = subprocess.run([*command, *places], env=environment(), check=True, stdout=subprocess.PIPE)
                found.append(json.loads(told.stdout.splitlines()[-1]))
    return {
        name: {
            "seconds": min(run["seconds"] for run in found),
            "processor_seconds": min(run["processor_seconds"] for run in found),
            "tokens": found[0]["tokens"],
        }
        for name, found in runs.items()
    }


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(PROCESSES), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def start(texts: Path, tokenizer: Path, output: Path) -> subprocess.Popen:
    """The stage, as its command; every batch is a saved state."""
    command = [sys.executable, "-m", "colpipe.stages.prepare_corpus", "--dataset", texts, "--tokenizer", tokenizer]
    settings = ["--settings", json.dumps(SETTINGS), "--runtime", '{"save_minutes": 0}']
    arguments = [*map(str, command), "--output", str(output), *settings]
    return subprocess.Popen(arguments, env=environment(), stderr=subprocess.DEVNULL)


def tree(process: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in tree(int(child)))]


def tree_memory(process: int) -> int:
    """Bytes of a process and its descendants; a page that n of them share counts as an n-th in each (PSS).

    0 where one began or ended meanwhile: the others' shares of its pages changed, and the sum would be of two moments.
    """
    try:
        before = tree(process)
        rollups = [Path(f"/proc/{each}/smaps_rollup").read_text() for each in before]
        if tree(process) != before:
            return 0
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = (line for rollup in rollups for line in rollup.splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def peak_memory(texts: Path, tokenizer: Path, output: Path) -> int:
    """Highest memory of a run of the stage, bytes."""
    process, peak = start(texts, tokenizer, output), 0
    while process.poll() is None:
        peak = max(peak, tree_memory(process.pid))
        time.sleep(SAMPLING)
    finished(process)
    return peak


def finished(process: subprocess.Popen) -> None:
    if process.wait():
        raise RuntimeError(f"the stage ended with status {process.returncode}: {process.args}")


def killed_and_resumed(texts: Path, tokenizer: Path, output: Path, total: int) -> list[int]:
    """Documents that were counted at each kill; the output is finished afterwards."""
    counted = []
    for after in (total // 3, 2 * total // 3):
        process = start(texts, tokenizer, output)
        while saved(output) < after:
            if process.poll() is not None:
                raise RuntimeError(f"the stage ended before it could be killed, after {saved(output)} documents")
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        counted.append(saved(output))
    finished(start(texts, tokenizer, output))
    return counted


def saved(output: Path) -> int:
    """Documents that the saved state counts."""
    for kept in output.with_name(f"{output.name}.work").glob("state-*/counts.json"):
        counts, _ = read_record(kept) or ({}, {})
        return documents_of(counts)
    return 0


def hashes(output: Path) -> dict:
    return json.loads((output / "manifest.json").read_text())["files"]


def compare(folder: Path, quick: bool) -> None:
    small, large = (10**6, 5 * 10**6) if quick else (10**7, 2 * 10**8)
    texts = {"small": write_texts(folder / "small", small), "large": write_texts(folder / "large", large)}
    tokenizer = folder / "tokenizer"
    make_tokenizer(list(islice(documents(large), 2000)), VOCABULARY).save_pretrained(tokenizer)

    speeds = speed(texts["small"], tokenizer, 1 if quick else 3)
    for name, found in speeds.items():
        print(
            f"speed   {name:<10}{found['seconds']:8.2f} s {found['processor_seconds']:8.2f} processor s "
            f"{speeds['ours']['tokens'] / found['seconds']:12,.0f} tokens/s",
            flush=True,
        )
    peaks = {name: peak_memory(texts[name], tokenizer, folder / f"whole-{name}") for name in texts}
    for name, peak in peaks.items():
        print(f"memory  {name:<10}{peak / 1e6:8.0f} MB", flush=True)
    whole = hashes(folder / "whole-small")
    total = sum(
        count["documents"]
        for count in json.loads((folder / "whole-small/manifest.json").read_text())["counts"].values()
    )
    kills = killed_and_resumed(texts["small"], tokenizer, folder / "cut", total)
    equal = hashes(folder / "cut") == whole
    print(f"kill    after {kills} of {total} documents: {'the same bytes' if equal else 'OTHER BYTES'}", flush=True)

    seconds, processors = ({name: run[key] for name, run in speeds.items()} for key in ("seconds", "processor_seconds"))
    first, second = peaks["large"] / 1e6, peaks["small"] / 1e6
    lines = [
        Line(
            f"{small / 1e6:.0f} MB of text to tokens", "s", seconds["ours"], "datasets", seconds["datasets"], 1 / FASTER
        ),
        Line("the same, of processors", "s", processors["ours"], "datasets", processors["datasets"]),
        Line(f"memory for {large / 1e6:.0f} MB of text", "MB", first, f"for {small / 1e6:.0f} MB", second, GROWTH),
        Line("killed twice and resumed: other bytes", "", 0 if equal else 1, limit=0),
    ]
    report(lines, speed=speeds, memory=peaks, kills=kills)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, once")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)  # a contender and its three folders
    arguments = parser.parse_args()
    if arguments.measure:
        name, *places = arguments.measure
        print(json.dumps(CONTENDERS[name](*map(Path, places))))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments.quick)


if __name__ == "__main__":
    main()
