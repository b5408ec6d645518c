"""Write a study for your own model and text: a chain, models of the sizes that you name, settings that fit into some hours.

colpipe init models/smollm2-135m --text notes.txt --sizes 60M,90M,110M --hours 2
"""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from colpipe.config.parts import read_number
from colpipe.cost.devices import PEAKS
from colpipe.errors import ColpipeError
from colpipe.jobs.processor import cores
from colpipe.tools.given import read_instructions, read_model, read_text
from colpipe.tools.parser import Parser
from colpipe.tools.proposal import Asked, label, propose, told


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("init", __doc__)
    parser.add_argument("model", metavar="MODEL", help="model folder, or owner/name in the Hugging Face cache")
    parser.add_argument(
        "--text", type=Path, required=True, metavar="FILE", help=".txt with blank lines, or {text} rows"
    )
    parser.add_argument("--instructions", type=Path, metavar="FILE", help="rows of {instruction, input, output}")
    parser.add_argument("--sizes", required=True, metavar="60M,90M", help="parameters of the models to make")
    parser.add_argument("--hours", type=float, default=2.0, help="that a run may take (default: 2)")
    parser.add_argument("--device", choices=list(PEAKS), help="it runs on one of these instead of this machine's cores")
    parser.add_argument(
        "--license", metavar="NAME", help="of the model (apache-2.0), for the cards of what is made of it"
    )
    parser.add_argument("--name", help="of the study (default: the model's)")
    parser.add_argument("--out", type=Path, metavar="FILE.yaml", help="to write (default: <name>.yaml)")
    given = parser.parse_args(arguments)
    out, asked = understand(given)
    proposal = propose(asked)
    write_new(out, proposal.text)
    print(f"{out}: {told(proposal)}")
    print(f"\ncolpipe run {shlex.quote(str(out))} all published --cores {cores()}")


def understand(given: argparse.Namespace) -> tuple[Path, Asked]:
    """(file to write, what the study is to be of), everything checked that can be before it runs.

    Raises:
        ColpipeError: names the option or file, what is wrong with it, and what would be right.
    """
    sizes = read_sizes(given.sizes)
    if not 0 < given.hours < float("inf"):
        raise ColpipeError(f"--hours {given.hours:g}: give a number above 0")
    model = read_model(given.model)
    name = given.name or model.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ColpipeError(f"--name {name!r}: letters, digits, dots, dashes and underscores make a name")
    out = given.out or Path(f"{name}.yaml")
    if out.exists():
        raise ColpipeError(f"{out}: exists already; give another --out, or another --name")
    text = read_text(given.text, model.folder)
    rows = read_instructions(given.instructions, text.bytes_a_token) if given.instructions else None
    return out, Asked(name, model, text, rows, sizes, given.hours, given.device, given.license)


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet.

    Raises:
        ColpipeError: it does, or cannot be written.
    """
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ColpipeError(f"{path}: exists already; give another --out, or another --name") from None
    except OSError as error:
        raise ColpipeError(f"{path}: cannot be written ({error.strerror})") from None


def read_sizes(text: str) -> dict[int, str]:
    """Parameters → label, the largest first.

    Raises:
        ColpipeError: a size does not parse, is no whole number above 0, or is there twice.
    """
    sizes: dict[int, str] = {}
    for word in text.replace(",", " ").split():
        size = read_number(word)
        if not size:
            raise ColpipeError(f"--sizes {word}: is no number of parameters; write 60M, 1.5B or 60000000")
        if size in sizes:
            raise ColpipeError(f"--sizes {word}: is there twice")
        sizes[size] = label(size) if word.isdecimal() else word
    if not sizes:
        raise ColpipeError("--sizes: names none; write 60M,90M")
    return dict(sorted(sizes.items(), reverse=True))
