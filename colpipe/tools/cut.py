"""One smaller model out of another: its most important part, or of an elastic member a submodel as it was trained.

    colpipe cut models/smollm2 90M smollm2-90m
    colpipe cut results/demo/chain/smollm2/large layers=22 22-layers

A shape that is given in part is the model's in the rest. `colpipe fit` also fits what it cuts to the model, on a text,
which is worth much to what was cut out of a really trained one.
"""

from collections.abc import Sequence
from pathlib import Path

from colpipe import api
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import read_manifest
from colpipe.learngene.inheritance import inheritance
from colpipe.learngene.shapes import parameter_count
from colpipe.learngene.weights import Weights
from colpipe.tools.parser import Parser

AXES = ("layers", "heads", "kv_heads", "head_dim", "hidden", "ffn")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("cut", __doc__)
    parser.add_argument(
        "--select", choices=("first", "even", "rank", "rotate"), help="what is kept (default: the best)"
    )
    given = parser.parse_args(arguments)
    known = inheritance(given.model)
    if known.elastic and given.select is None:
        shape = shape_of(given.shape, given.model)
        api.linit(given.model, given.model, shape, method="cut", out=free(given.out))
    else:
        select = given.select or ("rank" if known.ranking else "even")
        api.initialise("subset", given.model, shape_of(given.shape, given.model), select=select, out=free(given.out))
    print(described(given.out, given.model))


def parser_of(command: str, text: str) -> Parser:
    """What `cut` and `fit` both take."""
    parser = Parser(command, text)
    parser.add_argument("model", type=model_folder, metavar="MODEL", help="model folder")
    parser.add_argument("shape", metavar="SHAPE", help=f"parameters (90M), or {'=…,'.join(AXES)}=…")
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder for the smaller model")
    return parser


def model_folder(text: str) -> Path:
    """A folder that holds a model.

    Raises:
        ColpipeError: it does not.
    """
    folder = Path(text)
    if not (folder / "config.json").is_file():
        raise ColpipeError(f"{folder}: is no model folder: no config.json in it")
    return folder


def shape_of(text: str, model: Path) -> dict[str, int] | str:
    """`90M` as it is; `layers=20,hidden=480` with the model's size of every axis that it leaves out.

    Raises:
        ColpipeError: an axis is unknown, or its size is no number.
    """
    if "=" not in text:
        return text
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    for name, size in pairs:
        if name not in AXES or not size.isdecimal():
            raise ColpipeError(f"SHAPE {text!r}: {name}={size}; axes are {', '.join(AXES)}, as in layers=20,hidden=480")
    sizes = Weights(model).sizes
    whole = {"layers": sizes["layer"], "heads": sizes["head"], "hidden": sizes["hidden"]}
    given = {name: int(size) for name, size in pairs}
    if given.get("hidden", whole["hidden"]) == whole["hidden"]:
        whole |= {"ffn": sizes["ffn"]}  # otherwise in proportion to the channels
    return {**whole, **given}


def free(out: Path) -> Path:
    """A folder that nothing lies in.

    Raises:
        ColpipeError: something does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ColpipeError(f"{out}: is there already; give a new folder")
    return out


def described(out: Path, model: Path) -> str:
    """A line on a folder that was made."""
    count, whole = read_manifest(out)["parameters"], parameter_count(Weights(model))
    return f"{out}: {count:,} parameters, {count / whole:.0%} of {model}"
