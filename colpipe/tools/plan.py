"""Plan a shape: from parameters or bytes to layers, heads, hidden, ffn, with its neighbours and alpha. Trains nothing.

colpipe plan --study config/gpt2.yaml 220M 440MB
colpipe plan --chain models/gpt2-medium models/gpt2 220M --precision float32
"""

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import ValidationError

from colpipe.architectures.families import family_of
from colpipe.architectures.flops import BYTES
from colpipe.architectures.widths import not_quantisable
from colpipe.config.loading import load_study, read_study
from colpipe.config.parts import Architecture, Shape, problem_lines
from colpipe.config.sizing import Budget, Endpoint, automatic_alpha, plan_shape
from colpipe.errors import ColpipeError
from colpipe.learngene.inheritance import inheritance
from colpipe.learngene.linit import METHODS
from colpipe.learngene.stored import read_config
from colpipe.tools.parser import Parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("plan", __doc__)
    chain = parser.add_mutually_exclusive_group(required=True)
    chain.add_argument("--study", type=Path, metavar="FILE", help="study whose chain the shapes lie between")
    chain.add_argument("--chain", type=Path, nargs="+", metavar="FOLDER", help="model folders of one family")
    parser.add_argument("--precision", choices=list(BYTES), default="bfloat16", help="of sizes in bytes")
    parser.add_argument(
        "--align", help="widths are multiples of this, as architecture.align; default: the study's, or 64"
    )
    parser.add_argument("size", nargs="*", help="parameters (220M) or bytes of weights (440MB)")
    given = parser.parse_args(arguments)
    try:
        take_sizes(given)
        if given.study:
            study = load_study(read_study(given.study), str(given.study))
            architecture, members = study.architecture, {name: entry.shape for name, entry in study.chain.items()}
            elastic = [name for name in members if any(study.elastic(ancestor, name) for ancestor in study.ancestors)]
        else:
            architecture, members = read_chain(given.chain)
            elastic = [str(folder) for folder in given.chain if inheritance(folder).elastic]
        if given.align:
            architecture = Architecture.model_validate({**dict(architecture), "align": given.align})
        for size in given.size:
            print(describe(architecture, members, size, given.precision, elastic))
    except ValidationError as error:
        sys.exit("\n".join(f"colpipe plan: error: {line}" for line in problem_lines(error)))
    except ValueError as error:
        raise ColpipeError(str(error)) from None


def take_sizes(arguments: argparse.Namespace) -> None:
    """Give back the sizes that `--chain`, which takes all words after it, has swallowed: those that are no folders.

    Raises:
        ColpipeError: no size is given.
    """
    folders = arguments.chain or []
    while folders and not folders[-1].exists() and re.fullmatch(r"\d[\d._]*\w*", str(folders[-1])):
        arguments.size.insert(0, str(folders.pop()))
    if not arguments.size:
        raise ColpipeError("no size is given, such as 220M or 440MB; after a folder of that name, write -- 220M")


def read_chain(folders: list[Path]) -> tuple[Architecture, dict[str, Shape]]:
    """Architecture and shapes of model folders.

    Raises:
        ColpipeError: a folder holds no model of a known family, or they are of several families.
    """
    members, families = {}, {}
    for folder in folders:
        config = read_config(folder)
        family = family_of(config, f"{folder}/config.json")
        sizes = family.sizes(config)
        families[family.name] = Architecture(
            family=family.name,
            vocabulary=sizes["vocabulary"],
            positions=sizes["position"],
            tied=family.is_tied(config),
        )
        members[str(folder)] = Shape.of(sizes)
    if len(families) > 1:
        raise ColpipeError(f"the folders are of {len(families)} families ({', '.join(families)}); a chain has one")
    return next(iter(families.values())), members


def describe(
    architecture: Architecture, members: dict[str, Shape], size: str, precision: str, elastic: Collection[str] = ()
) -> str:
    """One request and what meets it, as lines that fit into a study.

    Args:
        elastic: names of the members that DesNets can be cut out of.

    Raises:
        ColpipeError: the request lies outside the chain, or nothing comes within 1 %.
    """
    in_bytes = size.lower().endswith("b") and size[-2:-1] in "kMG"
    wanted = Budget.model_validate({"memory" if in_bytes else "params": size, "precision": precision}).parameters
    counts = {name: architecture.parameters(shape) for name, shape in members.items()}
    below = [name for name in members if counts[name] < wanted]
    above = [name for name in members if counts[name] >= wanted]
    if not below or not above:
        known = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise ColpipeError(f"{size}: {wanted:,} parameters lie outside the chain ({known})")
    smaller, larger = max(below, key=counts.get), min(above, key=counts.get)
    shape = plan_shape(architecture, Endpoint(smaller, members[smaller]), Endpoint(larger, members[larger]), wanted)
    count = architecture.parameters(shape)
    alpha = automatic_alpha(counts[smaller], counts[larger], count)
    keys = {"layers": shape.layers, "heads": shape.heads, "hidden": shape.hidden, "ffn": shape.ffn}
    if "head_dim" in architecture.table.keys:
        keys |= {"kv_heads": shape.kv_heads, "head_dim": shape.head_dim}
    written = ", ".join(f"{key}: {value}" for key, value in keys.items())
    lines = [
        f"{size}: {{shape: {{{written}}}}}",
        f"{count:,} parameters ({count / wanted - 1:+.2%}), {count * BYTES[precision] / 1e6:,.1f} MB in {precision}",
        f"between {smaller} ({members[smaller]}) and {larger} ({members[larger]}), alpha {alpha:.3f}",
        f"methods: {', '.join(('fit', *METHODS, *(['cut'] if larger in elastic else [])))}",
    ]
    return "\n    ".join(filter(None, (*lines, not_quantisable(shape.widths))))
