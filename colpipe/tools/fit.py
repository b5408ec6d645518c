"""One smaller model out of another, fitted to it on some text by least squares; nothing is trained.

    colpipe fit models/smollm2 90M smollm2-90m --text wikipedia.txt

Takes one to four minutes for a model of 135M parameters on two cores: it reads the text some four times. What it makes
is the start of a smaller model, worth training on: `colpipe init` writes a study that does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from colpipe import api
from colpipe.config.parts import Precision, read_number
from colpipe.config.stages import FIT_TOKENS
from colpipe.errors import ColpipeError
from colpipe.tools.cut import described, free, parser_of, shape_of


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("fit", __doc__)
    parser.add_argument("--text", required=True, type=Path, metavar="FILE", help="text file (UTF-8)")
    parser.add_argument(
        "--tokens", default=str(FIT_TOKENS), help=f"of the text that are used (default: {FIT_TOKENS:,})"
    )
    parser.add_argument(
        "--select", choices=("first", "even", "rank", "rotate"), help="what is kept (default: the best)"
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float32",
        help="of the layers' arithmetic; bfloat16 takes a third less time where the processor has it (default: float32)",
    )
    given = parser.parse_args(arguments)
    shape = shape_of(given.shape, given.model)
    tokens, out = number_of(given.tokens), free(given.out)
    api.fit(given.model, shape, given.text, given.select, tokens, precision=given.precision, out=out)
    print(described(given.out, given.model))


def number_of(text: str) -> int:
    """A number of tokens, `16k`.

    Raises:
        ColpipeError: it is none.
    """
    if (tokens := read_number(text)) is None:
        raise ColpipeError(f"--tokens {text!r}: give a number, such as 16k")
    return tokens
