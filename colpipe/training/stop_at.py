"""Where a recovery ends: at the loss that `stop_at` asks for, and what the manifest says of it."""

from math import ceil
from typing import NamedTuple

from torch.utils.data import Dataset

from colpipe.config.stages import Recover
from colpipe.errors import ColpipeError
from colpipe.evaluation.perplexity import losses_of
from colpipe.hf.models import load_frozen, require_positions
from colpipe.jobs.device import pick_device
from colpipe.jobs.job import Job
from colpipe.jobs.state import read_record, write_record
from colpipe.learngene.tokenizers import require_same_tokenizer
from colpipe.training.resumable import reached


class Goal(NamedTuple):
    """The validation loss that is good enough, nats per token; of a share, with the ancestor's."""

    target: float
    ancestor: float | None = None


def find_goal(job: Job[Recover], validation: Dataset | None) -> Goal | None:
    """Where the settings say that a recovery ends; None where they do not.

    Raises:
        ColpipeError: a share has no ancestor, or an ancestor no share; the ancestor has another tokenizer, fewer positions
            than a block has tokens, or no finite loss.
    """
    stop_at, shared = job.settings.stop_at, job.settings.stops_by_ancestor
    if shared and "ancestor" not in job.parents:
        raise ColpipeError(f"settings: stop_at {stop_at:g} is a share of the ancestor's quality: it needs --ancestor")
    if not shared and "ancestor" in job.parents:
        raise ColpipeError(
            f"settings: stop_at {stop_at or 'null'} looks at no --ancestor: leave it out, or give a share of up to 1"
        )
    if stop_at is None:
        return None
    if not shared:
        return Goal(stop_at)
    loss = ancestor_loss(job, validation)
    return Goal(loss / stop_at, loss)


def ancestor_loss(job: Job[Recover], validation: Dataset) -> float:
    """The ancestor's validation loss, nats per token: measured once, with the weights in the training's precision, as a
    teacher has them. Of several processes, each measures it."""
    path, folder = job.state / "ancestor.json", job.parents["ancestor"]
    if (known := read_record(path)) is not None:
        return known
    require_same_tokenizer(folder, job.parents["model"], "a share of its quality says nothing then", special_too=False)
    ancestor = load_frozen(folder, job.settings.precision, pick_device(job.runtime.device))
    length = job.settings.max_length
    require_positions(ancestor, length, "max_length: a block")
    loss = float(losses_of(ancestor, validation, length, f"{job.parents['corpus']} (validation)").mean())
    if job.is_main:
        job.state.mkdir(exist_ok=True)
        write_record(path, loss)
    job.say(f"the ancestor's validation loss {loss:.4f} ({folder})")
    return loss


def stopped(job: Job[Recover], goal: Goal | None, blocks: int) -> dict:
    """What the manifest says of where a recovery ended, said in the log too; nothing where it has no goal.

    Args:
        blocks: of the training data.

    Returns:
        `stopped`: `at`, `target`, the `ancestor`'s loss, whether it was `reached`, the `loss` that did, or the best one;
        `tokens` that were learnt from, `of` those of the whole training.
    """
    if goal is None:
        return {}
    evaluated = [record for record in job.metrics() if record["split"] == "validation"]
    found = reached(evaluated, goal.target)
    loss = (found or min(evaluated, key=lambda record: record["loss"]))["loss"]
    tokens, of = (found or max(evaluated, key=lambda record: record["step"]))["tokens"], whole(job.settings, blocks)
    asked = f"{goal.target:.4f}"
    if goal.ancestor is not None:
        asked += f" = the ancestor's {goal.ancestor:.4f} / {job.settings.stop_at:g}"
    if found:
        job.say(f"stop_at {asked}: reached with {loss:.4f} after {tokens:,} of {of:,} tokens")
    else:
        job.say(f"stop_at {asked}: not reached within {tokens:,} tokens; the best validation loss is {loss:.4f}")
    entry = {"at": job.settings.stop_at, "target": goal.target, "ancestor": goal.ancestor, "reached": bool(found)}
    return {"stopped": {**entry, "loss": loss, "tokens": tokens, "of": of}}


def whole(settings: Recover, blocks: int) -> int:
    """Tokens that a training learns from if nothing ends it early: the last batch of a pass may be smaller."""
    batches = ceil(blocks / settings.batch_size)
    passes, rest = divmod(settings.steps or ceil(settings.epochs * batches), batches)
    return settings.max_length * (passes * blocks + rest * settings.batch_size)
