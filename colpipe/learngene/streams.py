"""A model's residual stream on calibration tokens, at every place that a fitted cut may aim at; kept in files.

Places are named by the source's layers: `before(l)` is the stream that enters layer l (l = the number of layers: what leaves
the last one), `middle(l)` the stream between attention and feed-forward of layer l, where these follow each other.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from colpipe.architectures.family import Family
from colpipe.config.parts import Precision
from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import require_space
from colpipe.jobs.device import require_precision
from colpipe.jobs.processor import lacks_bfloat16
from colpipe.learngene.stored import complete_config, is_finite
from colpipe.learngene.weights import Weights

logger = logging.getLogger(__name__)


class RowFile:
    """A matrix (rows, width) of float32 in a file: read and written some rows at a time, never mapped or held whole."""

    def __init__(self, path: Path, width: int):
        self.path, self.width = path, width
        self.path.touch()

    def write(self, start: int, rows: Tensor) -> None:
        with open(self.path, "r+b") as file:
            file.seek(start * self.width * 4)
            file.write(rows.detach().to("cpu", torch.float32).contiguous().numpy())

    def read(self, start: int, stop: int) -> Tensor:
        values = np.fromfile(self.path, np.float32, (stop - start) * self.width, offset=start * self.width * 4)
        return torch.from_numpy(values).view(-1, self.width)


class Streams:
    """What `gather` found; a context manager, whose files are gone when it is closed, unless they are shared.

    Attributes:
        weights: the model that was run.
        batches: the token ids, each (rows, tokens).
        tokens: how many.
        parallel: whether attention and feed-forward read the same stream, so that there is none between them.
        precision: of the arithmetic inside layers, `float32` or `bfloat16`; streams and sums are in float32.
        folder: of the files.
        scratch: where others that use them may put their own.
    """

    def __init__(
        self,
        weights: Weights,
        batches: list[Tensor],
        device: torch.device,
        scratch: Path | None = None,
        before_batch: Callable[[], object] = lambda: None,
        shared: Path | None = None,
        precision: Precision = "float32",
    ):
        self.weights, self.batches, self.device, self._before_batch = weights, batches, device, before_batch
        _require_arithmetic(device, precision)
        self.precision = precision
        self.tokens = sum(ids.numel() for ids in batches)
        self.parallel = is_parallel(weights)
        depth, width = weights.sizes["layer"], weights.sizes["hidden"]
        self.scratch = Path(scratch or tempfile.gettempdir())
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._is_shared = shared is not None
        self.folder = shared or Path(tempfile.mkdtemp(prefix="colpipe-streams-", dir=self.scratch))
        self.before = [RowFile(self.folder / f"before-{layer}", width) for layer in range(depth + 1)]
        self.middle = [
            RowFile(self.folder / f"middle-{layer}", width) for layer in range(0 if self.parallel else depth)
        ]

    def spans(self) -> Iterator[tuple[int, int, Tensor]]:
        """(first row, end, ids) of each batch."""
        start = 0
        for ids in self.batches:
            self._before_batch()
            yield start, start + ids.numel(), ids
            start += ids.numel()

    def computing(self) -> torch.autocast:
        """What layers compute in: in bfloat16, as in trainings, weights and streams stay in float32. Copies of weights are
        not kept: each is used once in such a context."""
        half = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False)

    def close(self) -> None:
        if not self._is_shared:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Streams":
        return self

    def __exit__(self, *_) -> None:
        self.close()


@torch.no_grad()
def gather(
    model,
    batches: Iterable[Tensor],
    scratch: Path | None = None,
    before_batch: Callable[[], object] = lambda: None,
    shared: Path | None = None,
    precision: Precision = "float32",
) -> Streams:
    """Run a model over token ids and keep its residual stream at every place.

    Args:
        model: a loaded transformers model of a known family.
        batches: (rows, tokens) of ids.
        scratch: where the files are put, in a folder of their own; None: where temporary files are.
        before_batch: called before each batch of every pass, of those of a fit too; what it raises ends the pass.
        shared: a folder for the files that stays, so that others may read them.
        precision: of the model's products, and of those of the layers that are fitted to it.

    Raises:
        ColpipeError: no tokens, ids outside the vocabulary, more tokens in a row than positions, activations that are not
            finite, no space for the files (4 bytes for each token, channel and place), or a precision that is unknown, or
            that the device does not have.
    """
    weights = Weights(model)
    batches = [torch.as_tensor(ids).cpu() for ids in batches]
    require_ids(weights.name, weights.sizes, batches)
    batches = [ids for ids in batches if ids.numel()]
    _require_space_for(weights, batches, shared or Path(scratch or tempfile.gettempdir()))
    streams = Streams(weights, batches, model.device, scratch, before_batch, shared, precision)
    try:
        with evaluating(model):
            _fill(streams, model)
    except BaseException:
        streams.close()
        raise
    return streams


def _require_arithmetic(device: torch.device, precision: Precision) -> None:
    if precision not in get_args(Precision):
        raise ColpipeError(f"precision {precision!r}: known are {', '.join(get_args(Precision))}")
    require_precision(device, precision)
    if precision == "bfloat16" and device.type == "cpu" and lacks_bfloat16():
        logger.warning("this CPU has no arithmetic in bfloat16: a fit in it takes tens of times as long as in float32")


@contextmanager
def evaluating(model) -> Iterator[None]:
    """Have a model drop nothing out for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _require_space_for(weights: Weights, batches: list[Tensor], folder: Path) -> None:
    places = weights.sizes["layer"] + 1 + (0 if is_parallel(weights) else weights.sizes["layer"])
    size = 4 * places * sum(ids.numel() for ids in batches) * weights.sizes["hidden"]
    require_space(folder, size, "the residual streams of the calibration tokens")


def _fill(streams: Streams, model) -> None:
    """Write every place, batch after batch."""
    family = streams.weights.family
    start = 0

    def keep(place: RowFile, where: str):
        def hook(module, inputs):  # returns nothing: a returned value would replace the input
            rows = inputs[0].flatten(0, 1)
            if not is_finite(rows):
                raise ColpipeError(f"{streams.weights.name}: the residual stream {where} is not finite")
            place.write(start, rows)

        return hook

    with ExitStack() as hooks:

        def watch(module, place: RowFile, where: str) -> None:
            hooks.enter_context(module.register_forward_pre_hook(keep(place, where)))

        for layer, block in enumerate(layers_of(model, family)):
            watch(block, streams.before[layer], f"before layer {layer}")
        for layer, place in enumerate(streams.middle):
            watch(model.get_submodule(second_reader(family, layer)), place, f"after the attention of layer {layer}")
        watch(model.get_submodule(family.final_gain.rpartition(".")[0]), streams.before[-1], "after the last layer")
        spans = tqdm(streams.spans(), "reading text", len(streams.batches), disable=None)  # None: no terminal, no bar
        for start, _, ids in spans:  # noqa: B007  # the hooks read it
            with streams.computing():
                run(model, ids.to(streams.device))


def run(model, ids: Tensor) -> None:
    """A model without its head; every token counts, nothing is cached."""
    model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def enter(model, layers: Sequence, ids: Tensor) -> tuple[Tensor, list[tuple]]:
    """What a model's own forward gives its layers: (rows · tokens, hidden) for the first, and for each all other arguments.

    These are masks and positions, and depend on the shape of `ids` alone. The layers themselves do not run.
    """
    calls = []

    def record(stream: Tensor, *arguments, **named) -> Tensor:
        calls.append((stream, arguments, named))
        return stream

    with replaced(layers, record):
        run(model, ids)
    return calls[0][0].flatten(0, 1), [call[1:] for call in calls]


def run_layer(layer, stream: Tensor, call: tuple, watched: Sequence) -> tuple[Tensor, Tensor]:
    """One layer on a stream (rows, tokens, hidden): its output and, side by side, what the watched modules in it read; both
    (rows · tokens, …)."""
    inputs = {}

    def keep(module, given):
        inputs[module] = given[0].flatten(0, -2)

    with ExitStack() as hooks:
        for module in watched:
            hooks.enter_context(module.register_forward_pre_hook(keep))
        output = layer(stream, *call[0], **call[1])
    output = output[0] if isinstance(output, tuple) else output
    return output.flatten(0, 1), torch.cat([inputs[module] for module in watched], 1)


def token_weights(target: Tensor) -> Tensor:
    """1 / root mean square of what each token's stream (tokens, hidden) should be.

    A few tokens, often the first of a row, have streams a hundred times as large as all others; unweighted, they decide.
    """
    return target.square().mean(1).clamp_min(1e-12).rsqrt()


def require_ids(name: str, sizes, batches: list[Tensor]) -> None:
    """Refuse what a model cannot be run on.

    Raises:
        ColpipeError: no tokens, ids outside the vocabulary, more tokens in a row than positions.
    """
    if not sum(ids.numel() for ids in batches):
        raise ColpipeError(f"{name}: no tokens to measure it on")
    for ids in batches:
        if ids.ndim != 2 or ids.dtype.is_floating_point:
            raise ColpipeError(
                f"{name}: a batch of shape {tuple(ids.shape)}, {str(ids.dtype).removeprefix('torch.')}, was given; batches "
                "are (rows, tokens) of token ids"
            )
        if not ids.numel():
            continue
        low, high = ids.min().item(), ids.max().item()
        if low < 0 or high >= sizes["vocabulary"]:
            raise ColpipeError(
                f"{name}: token id {low if low < 0 else high} is outside its vocabulary of {sizes['vocabulary']:,}; "
                "tokenise the text with the model's own tokenizer"
            )
        if ids.shape[1] > sizes["position"]:
            raise ColpipeError(
                f"{name}: rows of {ids.shape[1]} tokens, the model has {sizes['position']} positions; give shorter rows"
            )


def is_parallel(weights: Weights) -> bool:
    """Whether attention and feed-forward read the same stream and are added together (GPT-NeoX); not where a file has the
    key and the family's class does not, which then reads nothing of it."""
    key, name = "use_parallel_residual", weights.family.name
    return bool(weights.config.get(key)) and key in complete_config({"model_type": name}, name)


def layers_of(model, family: Family) -> list:
    """The layers of a loaded model."""
    return list(
        model.get_submodule(next(name for name in family.tensors if "{layer}" in name).partition(".{layer}")[0])
    )


def second_reader(family: Family, layer: int) -> str:
    """The module that reads the stream behind the attention: the norm of the feed-forward part, or this part itself."""
    name, after = next(
        (name, tensor.after)
        for name, tensor in family.tensors.items()
        if tensor.role == "read" and "ffn" in tensor.names
    )
    return (after.rpartition(".")[0] or name.rsplit(".", 2)[0]).format(layer=layer)


@contextmanager
def replaced(modules: Iterable, forward):
    """Have modules compute something else for a while."""
    before = [(module, module.__dict__.get("forward")) for module in modules]
    for module, _ in before:
        module.forward = forward
    try:
        yield
    finally:
        for module, own in before:
            if own is None:
                del module.forward
            else:
                module.forward = own
