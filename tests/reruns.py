"""Random changes of a finished study, and the jobs that are planned then, against those that have to be.

    python -m tests.reruns HOME --count 60 --seed 0      HOME: a checkout with a finished tiny study

Each case is drawn from a number of its own, which is printed: `--only NUMBER` repeats it. It copies the study to another
place, changes up to three things, and asks Snakemake what it would run. What has to run follows from two facts that the code
under test has no part in: which results each change touches (written down here, by hand), and which jobs read which
(as Snakemake says it of a study of which nothing is there).

Snakemake runs in processes that are forked from this one, which has loaded it. It loads no colpipe: each of them loads that
of its own checkout.
"""

import argparse
import copy
import os
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.conftest import STUDY

MODELS = ["bridges/llama", *(f"chain/llama/{name}" for name in STUDY["chain"])]
DESNETS = [
    f"desnets/{parent}/{desnet}/{init}"
    for parent, init in (("llama", "nested"), ("scratch", "rand"))
    for desnet in STUDY["desnets"]
]
RECOVERED = [f"{path}/512" for path in DESNETS]
SCORES = [f"scores/{path}" for path in (*MODELS, *(f"{path}/{budget}" for path in DESNETS for budget in ("0", "512")))]


class Change(NamedTuple):
    """What is done to a copy of the study.

    Attributes:
        touches: results that are no longer what the study asks for; what follows from them is not among them.
        study: changes the study, or None.
        home: changes the copy, or None.
    """

    name: str
    touches: set[str]
    study: Callable[[dict], object] | None = None
    home: Callable[[Path], object] | None = None


# What a change touches, by hand.

SETTINGS = [
    Change("steps of a member", {"chain/llama/small"}, lambda s: s["chain"]["small"].update(distill={"steps": 5})),
    Change(
        "learning rate of distillation",
        {f"chain/llama/{name}" for name in STUDY["chain"]},
        lambda s: s["stages"]["distill"].update(learning_rate=0.0003),
    ),
    Change("alpha", {"desnets/llama/upper/nested/0"}, lambda s: s["desnets"]["upper"].update(alpha=0.123)),
    Change("recovery", {*RECOVERED}, lambda s: s["stages"]["recover"].update(learning_rate=0.001)),
    Change("fine-tuning", {"sft/llama"}, lambda s: s["stages"]["sft"].update(steps=5)),
    Change("tokens of an answer", {*SCORES}, lambda s: s["tasks"]["boolq"].update(max_new_tokens=2)),
    Change("rows", {"data/describe"}, lambda s: s["instructions"]["describe"].update(train_rows=23)),
    Change("bridge", {"bridges/llama"}, lambda s: s["stages"]["bridge"].update(steps=5)),
    Change("seed", {"tokenizer"}, lambda s: s.update(seed=7)),
    Change("types of exports", {"report"}, lambda s: s["stages"].update(export={"types": ["f16"]})),
    Change("exports reported", {"report"}, lambda s: s["stages"].update(export={"types": ["f16"], "reported": True})),
    Change("one more budget", set(), lambda s: s["budgets"].append(1024)),
    Change("one more DesNet", set(), lambda s: s["desnets"].update(more={"shape": {"layers": 3, "heads": 2, "hidden": 16}})),
    Change("one DesNet fewer", {"report"}, lambda s: s["desnets"].pop("lower")),
    Change("a title", {"report"}, lambda s: s["datasets"]["articles"].update(license="mit")),
    Change("where it runs", set(), lambda s: s.update(runtime={"micro_batch": 1, "save_minutes": 0.5})),
]  # fmt: skip


def draw(chance: random.Random, graph: dict[str, set[str]], pristine: Path) -> list[Change]:
    """Up to three changes."""
    made = [name for name in graph if name != "report"]

    def one() -> Change:
        artifact = chance.choice(made)
        place = Path(artifact if artifact.startswith("resources/") else f"results/tiny/{artifact}")
        readers = {name for name, parents in graph.items() if artifact in parents}
        files = sorted(
            path.name for path in (pristine / place).iterdir()
            if path.is_file() and not path.name.startswith(".") and not path.is_symlink()
            and path.name not in ("manifest.json", "run.json", "metrics.jsonl")
        )  # fmt: skip
        kinds = ["settings"] * 4 + [
            "manifest",
            "memory",
            "times",
            "hashes",
            "record",
            "module",
            "comment",
            "source",
            "touch",
        ]
        kinds += ["byte", "byte and its time", "same bytes", "another file"] * bool(files)
        kind = chance.choice(kinds)
        file = place / chance.choice(files or ["none"])
        module = chance.choice(["recover", "evaluate", "report"])
        match kind:
            case "settings":
                return chance.choice(SETTINGS)
            case "manifest":
                return Change(
                    f"deleted {place}/manifest.json", {artifact}, home=lambda h: (h / place / "manifest.json").unlink()
                )
            case "memory":
                return Change(
                    "no .snakemake", set(), home=lambda h: shutil.rmtree(h / ".snakemake", ignore_errors=True)
                )
            case "times":
                return Change("all times are now", set(), home=touch_all)
            case "hashes":
                return Change("no remembered hashes", set(), home=forget_hashes)
            case "record":
                return Change("no work folder", {"report"}, home=lambda h: shutil.rmtree(h / "results/tiny/work"))
            case "module":
                follows = {"recover": {*RECOVERED}, "evaluate": {*SCORES}, "report": {"report"}}[module]
                return Change(f"code of {module}", follows, home=lambda h: append(h, module, "\nCHANGED = True\n"))
            case "comment":
                return Change(
                    f"a comment in {module}", set(), home=lambda h: append(h, module, "\n# changes nothing\n")
                )
            case "source":
                # the staged file is a link to it: the job that stages it, and what reads that
                staged = next(name for name in graph if name.startswith("resources/data/questions-"))
                return Change("a row of a source", {staged}, home=change_row)
            case "touch":
                return Change("--touch", set(), home=lambda h: (h / "touch").write_text(""))
            case "byte":
                return Change(f"a byte of {file}", readers, home=lambda h: flip(h / file, keep_time=False))
            case "byte and its time":
                return Change(
                    f"a byte of {file}, its time kept", readers, home=lambda h: flip(h / file, keep_time=True)
                )
            case "same bytes":
                return Change(f"{file} written again", set(), home=lambda h: rewrite(h / file))
            case _:
                return Change(
                    f"one more file in {place}", readers, home=lambda h: (h / place / "more.txt").write_text("x")
                )

    changes = [one() for _ in range(chance.randint(1, 3))]
    return list({change.name: change for change in changes}.values())


# How it is done.


def flip(path: Path, keep_time: bool) -> None:
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-7 % len(content)] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rewrite(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def touch_all(home: Path) -> None:
    for path in home.rglob("*"):
        if path.is_file():
            path.touch()


def forget_hashes(home: Path) -> None:
    for name in (".fingerprint.json", ".source.json"):
        for path in home.rglob(name):
            path.unlink()


def append(home: Path, module: str, text: str) -> None:
    with open(home / "colpipe" / "stages" / f"{module}.py", "a") as file:
        file.write(text)


def change_row(home: Path) -> None:
    path = home / "inputs" / "boolq" / "combined.jsonl"
    path.write_text(path.read_text().replace("true", "false", 1))


# What Snakemake says.


def snakemake(home: Path, *arguments: str) -> str:
    """What a Snakemake says that is forked from this process."""
    log = home.parent / "said.log"
    process = os.fork()
    if not process:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = 1
        try:
            os.chdir(home)
            from snakemake.cli import main

            sys.argv = ["snakemake", "--cores", "2", "--configfile", "my-study.yaml", *arguments]
            main()
            status = 0
        except SystemExit as exit_:
            status = int(bool(exit_.code))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    said = log.read_text()
    if status:
        raise SystemExit(f"snakemake {' '.join(arguments)} in {home} failed:\n{said}")
    return said


def name_of(path: str) -> str:
    """A job by the first file that it makes."""
    name = path.split(", ")[0].removeprefix("results/tiny/").removesuffix("/manifest.json")
    return "report" if name == "report.html" else name


def planned(home: Path) -> set[str]:
    return {name_of(line) for line in re.findall(r"^ +output: (.+)$", snakemake(home, "-n"), re.MULTILINE)}


def graph_of(home: Path) -> dict[str, set[str]]:
    """Job → jobs whose results it reads, of all that a study has."""
    found = {}
    for job in re.split(r"\n\[", snakemake(home, "--forceall", "-n")):
        output, read = (re.search(rf"^ +{word}: (.+)$", job, re.MULTILINE) for word in ("output", "input"))
        if output:
            found[name_of(output[1])] = {name_of(path) for path in (read[1].split(", ") if read else [])}
    return found


def expected(graph: dict[str, set[str]], touched: set[str]) -> set[str]:
    """What has to run: what was touched, and all that reads it."""
    found = touched & graph.keys()
    while more := {name for name, parents in graph.items() if name not in found and parents & found}:
        found |= more
    return found


def run_case(number: int, home: Path, graphs: dict[tuple, dict[str, set[str]]]) -> str:
    """One case; what is wrong with it, or nothing."""
    chance = random.Random(number)
    changes = draw(chance, graphs[()], home)
    copied = home.parent / f"case-{number}"
    shutil.copytree(home, copied, symlinks=True, copy_function=chance.choice([shutil.copy, shutil.copy2]))
    study = copy.deepcopy(STUDY)
    for change in changes:
        if change.study:
            change.study(study)
    (copied / "my-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    names = tuple(sorted(change.name for change in changes if change.study))
    if names not in graphs:  # before the copy is damaged
        graphs[names] = graph_of(copied)
    for change in changes:
        if change.home:
            change.home(copied)
    if (copied / "touch").exists():
        snakemake(copied, "--touch")
    graph = graphs[names]
    new = set(graph) - set(graphs[()])
    want = expected(graph, new.union(*(change.touches for change in changes)))
    got = planned(copied)
    shutil.rmtree(copied)
    print(f"{number}: {'; '.join(change.name for change in changes)}: {len(got)} jobs", flush=True)
    if got == want:
        return ""
    return f"case {number}: too many {sorted(got - want)}, too few {sorted(want - got)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reruns", description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    arguments = parser.parse_args()
    import snakemake.cli  # noqa: F401  # once, for all forks

    assert "colpipe" not in sys.modules
    home = arguments.home.resolve()
    graphs = {(): graph_of(home)}
    numbers = (
        [arguments.only] if arguments.only is not None else range(arguments.seed, arguments.seed + arguments.count)
    )
    wrong = [said for number in numbers if (said := run_case(number, home, graphs))]
    print(f"{len(numbers)} cases, seed {arguments.seed}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
