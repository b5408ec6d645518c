"""The study that `colpipe init` writes: which sizes are members of the chain, and how many steps fit into the hours."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml
from jinja2 import Environment, FileSystemLoader

from colpipe.config.cutting import plan_cut
from colpipe.config.loading import load_study, remarks
from colpipe.config.parts import Shape, tokens_label
from colpipe.config.sizing import Endpoint, plan_shape
from colpipe.config.study import Study
from colpipe.errors import ColpipeError
from colpipe.jobs.processor import cores, has_bfloat16
from colpipe.pipeline.plan import Plan
from colpipe.tools.estimate import cpu_rates, disk_bytes, hour, number, run_seconds, stages
from colpipe.tools.given import Model, Rows, Text, name_of

NEAR = 0.75  # of a member's parameters: smaller sizes than that are cut out of a member of their own
LEAST_STEPS = 10
MOST_STEPS = 4000  # more tokens are more of them in each step
LONGEST_ROW = 512  # of instructions, tokens; longer ones are left out
PASSES = 3  # over the text, at most; more would learn it by heart
RECOVERED = 0.5  # of the tokens that a member is distilled on


@dataclass(frozen=True)
class Asked:
    """What a study is to be of; its sizes are parameters → label, the largest first."""

    name: str
    model: Model
    text: Text
    instructions: Rows | None
    sizes: dict[int, str]
    hours: float
    device: str | None = None
    license: str | None = None
    """of the model, which the cards of what is made of it state"""


class Settings(NamedTuple):
    """Of the trainings."""

    steps: int
    batch_size: int
    max_length: int
    budget: int
    """tokens of recovery"""


@dataclass(frozen=True)
class Proposal:
    """A study, and what is to be told of it."""

    text: str
    study: Study
    seconds: float
    notes: list[str]
    asked: Asked


def propose(asked: Asked) -> Proposal:
    """The study with as many steps as fit into the hours.

    Raises:
        ColpipeError: a size is more than the model has or far less, or two are too close to each other.
    """
    shapes = _shapes(asked)
    rates = {} if asked.device else cpu_rates(Path("results"), platform.node())

    def at(tokens: int, fits: bool = True) -> tuple[str, Study, float]:
        """The study whose members are distilled on so many tokens, and how long it takes."""
        text = write(asked, shapes, _settings(asked, tokens), fits)
        study = load_study(yaml.safe_load(text), asked.name)
        return text, study, run_seconds(Plan(study), rates, cores(), asked.device)

    length = _length(asked)
    least = LEAST_STEPS * 4 * length
    tokens, most = least, max(least, int(PASSES * asked.text.train))
    limit, notes = 3600 * asked.hours, []
    shortest = at(least)[2]
    if shortest > limit:
        notes.append(
            f"{asked.hours:g} h are too few: {LEAST_STEPS} steps for each member, the fewest, take about "
            f"{hour(shortest / 3600)} h, and such models are hardly trained"
        )
    elif at(most)[2] <= limit:
        tokens = most
        notes.append(
            f"the text is short: {PASSES} passes over it take less than {asked.hours:g} h, and more would not help"
        )
    else:
        low, high = least, most
        while high > 1.03 * low:
            tokens = (low * high) ** 0.5
            low, high = (tokens, high) if at(int(tokens))[2] <= limit else (low, tokens)
        tokens = int(low)
    text, study, seconds = at(tokens, shortest <= limit)
    return Proposal(text, study, seconds, notes, asked)


def _shapes(asked: Asked) -> dict[int, Shape]:
    """Size → shape of the sizes that are members; the largest, the smallest, and those far below the member before them."""
    found: dict[int, Shape] = {}
    for size in asked.sizes:
        shape = _cut(asked, size, found[min(found)] if found else None)
        if not found or size < NEAR * min(found) or size == min(asked.sizes):
            found[size] = shape
    return found


def _between_members(asked: Asked, members: dict[int, Shape]) -> dict[int, Shape | None]:
    """Size → shape of those that are no members; None where it is planned between its neighbours, as in any study."""
    found: dict[int, Shape | None] = {}
    architecture = asked.model.architecture
    for size in (size for size in asked.sizes if size not in members):
        larger = members[min(each for each in members if each > size)]
        smaller = members[max(each for each in members if each < size)]
        try:
            plan_shape(architecture, Endpoint("smaller", smaller), Endpoint("larger", larger), size)
            found[size] = None
        except ColpipeError:
            found[size] = _cut(asked, size, larger)
    return found


def _cut(asked: Asked, size: int, within: Shape | None) -> Shape:
    try:
        return plan_cut(asked.model.architecture, asked.model.whole, size, within)
    except ColpipeError as error:
        raise ColpipeError(f"--sizes {asked.sizes[size]}: {error}") from None


def _length(asked: Asked) -> int:
    """Of a block, tokens."""
    return min(512 if asked.device else 256, asked.model.architecture.positions)


def _settings(asked: Asked, tokens: int) -> Settings:
    length, batch = _length(asked), 16 if asked.device else 4
    while tokens / (batch * length) > MOST_STEPS and batch < 256:
        batch *= 2
    steps = max(LEAST_STEPS, tokens // (batch * length))
    budget = min(int(RECOVERED * steps * batch * length), int(0.9 * asked.text.train))
    return Settings(steps, batch, length, _rounded(max(budget, batch * length)))


def _rounded(tokens: int) -> int:
    """Two digits, in thousands where there are some."""
    unit = 10 ** max(0, len(str(tokens)) - 2)
    return max(tokens // unit * unit, 1)


def write(asked: Asked, members: dict[int, Shape], settings: Settings, fits: bool) -> str:
    """The study as commented YAML; `fits`: more than the fewest steps are in the hours."""
    model, rows, positions = asked.model, asked.instructions, asked.model.architecture.positions
    corpus = _data_name(asked.text.path, model.name)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
    environment.filters |= {"flow": _flow, "anchor": lambda label: label.replace(".", "-")}  # PyYAML's have no dots
    return environment.get_template("study.yaml.j2").render(
        **vars(asked) | {"sizes": list(asked.sizes.values()), "hours": f"{asked.hours:g}"},
        architecture=model.architecture,
        members={asked.sizes[size]: shape for size, shape in members.items()},
        planned={asked.sizes[size]: shape for size, shape in _between_members(asked, members).items()},
        another=label(_between(list(asked.sizes))),
        corpus=corpus,
        rows=_data_name(rows.path, corpus) if rows else None,
        longest=min(rows.longest, LONGEST_ROW, positions // 2) if rows else 0,
        answer=min(rows.answer, LONGEST_ROW // 4, positions // 8) if rows else 0,
        tuned=max(LEAST_STEPS, settings.steps // 4),
        ranked=all(shape.hidden == model.whole.hidden for shape in members.values()),
        settings=settings,
        fits=fits,
        budget=tokens_label(settings.budget),
        half=asked.device is not None or has_bfloat16(),
        fits_in_half=has_bfloat16(),
    )


def _data_name(path: Path, taken: str) -> str:
    name = name_of(Path(path.name.partition(".")[0]), "text")
    return f"{name}-data" if name == taken else name


def label(size: int) -> str:
    """A size as people write it, and never as a bare number."""
    short = tokens_label(size)
    return short if not short.isdecimal() else f"{size / 10**6:.6g}M" if size >= 10**6 else f"{size / 1000:.6g}k"


def _flow(value: Shape | dict | str) -> str:
    """In one line, as YAML and as people write it."""
    if isinstance(value, str):
        return value if yaml.safe_load(value) == value else json.dumps(value)
    pairs = value.model_dump(exclude_none=True) if isinstance(value, Shape) else value
    return yaml.safe_dump(
        pairs, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    ).strip()


def _between(sizes: list[int]) -> int:
    """A size that a study could have too."""
    return _rounded((sizes[0] + sizes[-1]) // 2 if len(sizes) > 1 else sizes[0] * 9 // 10)


def told(proposal: Proposal) -> str:
    """What it costs, and what was noticed."""
    plan, asked = Plan(proposal.study), proposal.asked
    found = stages(plan)
    where = f"one {asked.device}" if asked.device else f"{cores()} cores"
    jobs = sum(stage.jobs for stage in found) + 1 + len(plan.cards())  # these, the report, and what is published
    memory = max(stage.memory for stage in found)
    lines = [
        f"{jobs} jobs, about {hour(proposal.seconds / 3600)} h on {where}, {number(memory, 'B')} of memory for the largest, "
        f"{number(disk_bytes(plan), 'B')} of disk",
        *(
            f"  {name}: {desnet.shape}, {proposal.study.parameters(desnet.shape):,} parameters"
            for name, desnet in proposal.study.desnets.items()
        ),
        *(f"note: {note}" for note in proposal.notes),
        *remarks(proposal.study),
    ]
    return "\n".join(lines)
