"""Many sizes of one model: each is cut out of it, fitted to it on some text, and scored on the text's last tenth.

    colpipe scan models/smollm2 --text wikipedia.txt 110M 90M layers=20 layers=26,hidden=512

The model is run over the text once. Nothing is trained or kept; `colpipe fit` makes the one that you choose.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from colpipe import api
from colpipe.errors import ColpipeError
from colpipe.evaluation.perplexity import token_losses
from colpipe.evaluation.uniform import is_worse, uniform_guess
from colpipe.hf.finite import require_finite
from colpipe.learngene.calibration import read_file, token_batches
from colpipe.learngene.shapes import endpoint_of, parameter_count
from colpipe.learngene.weights import Weights
from colpipe.tools.cut import model_folder, shape_of
from colpipe.tools.estimate import table
from colpipe.tools.parser import Parser

SCORED = 8192  # tokens
FEWEST = 1024  # tokens of the last tenth that a loss can be measured on


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("scan", __doc__)
    parser.add_argument("model", type=model_folder, metavar="MODEL", help="model folder")
    parser.add_argument("shapes", nargs="+", metavar="SHAPE", help="parameters (90M), or axes (layers=20,hidden=512)")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="text file (UTF-8)")
    given = parser.parse_args(arguments)
    print(scan(given.model, given.shapes, given.text))


def scan(folder: Path, shapes: Sequence[str], text: Path) -> str:
    """The table, best first, the model itself above.

    Raises:
        ColpipeError: a shape does not lie within the model, or the text is too short.
    """
    fitted_on, scored_on = split(text)
    model = api.loaded(folder)
    batches = token_batches(folder, scored_on, SCORED, model.config.max_position_embeddings)
    if (tokens := sum(batch.numel() for batch in batches)) < FEWEST:
        raise ColpipeError(f"{text}: its last tenth has {tokens:,} tokens, {FEWEST:,} are needed to score on")
    whole = score(model, batches)
    models = api.fit(model, [shape_of(shape, folder) for shape in shapes], fitted_on)
    rows = [(str(folder), model, whole)]
    made = [(shape, each, score(each, batches)) for shape, each in zip(shapes, models, strict=True)]
    rows += sorted(made, key=lambda row: row[2])
    vocabulary = Weights(model).sizes["vocabulary"]
    lines = [[name, *measured(Weights(each)), f"{loss:.3f}", f"{loss - whole:+.3f}"] for name, each, loss in rows]
    broken = [name for name, _, loss in rows if is_worse(loss, vocabulary)]
    remark = f"Loss: nats per token of {tokens:,} at the end of {text}; {uniform_guess(vocabulary)}."
    if broken:
        remark += f" Broken, worse than that: {', '.join(broken)}."
    return f"{table(['asked for', 'shape', 'parameters', 'loss', 'more'], lines)}\n{remark}"


def split(path: Path) -> tuple[str, str]:
    """A text file's first nine tenths, and its last, which begins with a line.

    Raises:
        ColpipeError: it cannot be read.
    """
    text = read_file(path)
    end = text.find("\n", len(text) * 9 // 10) + 1 or len(text) * 9 // 10
    return text[:end], text[end:]


def measured(weights: Weights) -> tuple[str, str]:
    return str(endpoint_of(weights).shape), f"{parameter_count(weights):,}"


@torch.inference_mode()
def score(model, batches: Sequence[torch.Tensor]) -> float:
    """Mean loss in float32, nats per token.

    Raises:
        ColpipeError: it is not finite.
    """
    model = api.in_float32(model).eval()  # of half precision a copy
    losses = torch.cat([token_losses(model, batch).flatten() for batch in batches])
    require_finite(losses, model, "its loss on the text")
    return losses.double().mean().item()
