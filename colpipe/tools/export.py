"""Write a model's folder as GGUF files for llama.cpp and Ollama, and a Modelfile beside each.

colpipe export results/gpt2/published/desnets/gpt2-xl/DesNet-220M/linit/100M --name DesNet-220M
colpipe export smollm2-135m --to gguf --types q8_0
llama-cli -m gguf/smollm2-135m-q8_0.gguf           # or: ollama create smollm2 -f gguf/smollm2-135m-q8_0.Modelfile
"""

from collections.abc import Sequence
from pathlib import Path

from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import MANIFEST
from colpipe.tools.parser import Parser

TYPES = "f16,q8_0,q4_0"
KINDS = {"desnets": 4, "chain": 2, "stacks": 1, "bridges": 1, "sft": 1}  # of a study's models → folders below


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("export", __doc__)
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="a published or any other transformers folder")
    parser.add_argument(
        "--to", type=Path, default=Path(), metavar="OUT", help="folder to write into; default: this one"
    )
    parser.add_argument("--types", default=TYPES, help=f"of {TYPES}; default: all")
    parser.add_argument(
        "--name",
        help="of the files, before their type; default: the folder's,\n"
        "of a study's model also the study, the size and the initialiser: demo-60M-fit-5100",
    )
    parser.add_argument(
        "--no-speed",
        action="store_true",
        help="do not run the files in llama.cpp, where it is installed, to say how fast",
    )
    given = parser.parse_args(arguments)
    name = given.name or name_of(given.model)
    export(given.model, given.to, given.types.split(","), name, timed=not given.no_speed)


def name_of(model: Path) -> str:
    """What files of a model are called: as its folder, which of a study's model is but the last part of what it is. Of
    `results/demo/published/desnets/gpt2-xl/60M/fit/5100`, that is `demo-60M-fit-5100`."""
    parts = model.resolve().parts
    for kind, depth in KINDS.items():
        above = [part for part in parts[:-depth] if part != "published"]
        if above[-3:-2] == ["results"] and above[-1] == kind:
            return "-".join([above[-2], *parts[-depth:][depth > 1 :]])  # as the study's own files, without the ancestor
    return parts[-1]


def export(model: Path, to: Path, types: Sequence[str], name: str, timed: bool = True) -> None:
    """Write a file of each type, and say what was written and, if `timed`, how fast it is.

    Raises:
        ColpipeError: as in `write_gguf_files`, or `to` is a result, whose content others depend on.
    """
    if (to / MANIFEST).exists():
        raise ColpipeError(f"{to}: is a result of a study, whose files decide what is made again; give another place")
    if not (model / "config.json").is_file():
        raise ColpipeError(f"{model}: has no config.json; it is no folder of a transformers model")
    import torch  # seconds, spared those who only ask for help

    from colpipe.export.files import write_gguf_files
    from colpipe.export.llama_cpp import speed

    exported = write_gguf_files(model, {type: to / f"{name}-{type}.gguf" for type in types})
    for each in exported:
        told = speed(each.path, each.vocabulary, each.positions, torch.get_num_threads())[1] if timed else ""
        parts = (f"{each.bytes:,} bytes", told, f"{each.modelfile.name} beside it")
        print(f"{each.path}: {'; '.join(filter(None, parts))}")
    for note in dict.fromkeys(note for each in exported for note in each.notes):
        print(f"note: {note}")
