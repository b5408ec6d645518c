"""What models write, as the page has it: each beginning of a text with what the models of the study make of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from colpipe.config.constants import CONTINUED_TEMPERATURE
from colpipe.config.layout import Layout
from colpipe.config.study import Study
from colpipe.reporting.continuations import ORIGINS, WAYS, Written, one_line, read_written
from colpipe.reporting.recovery import method_label
from colpipe.reporting.tables import Cell, Table, number, tokens

TOLD = 12  # models whose texts are shown at once


def how(study: Study) -> str:
    """How texts are continued, in words."""
    return (
        f"each beginning by up to {study.stages.evaluate.continued_tokens} tokens, as plain text: greedily, and sampled at "
        f"temperature {CONTINUED_TEMPERATURE} with the study's seed ({study.seed})"
    )


class Passages(NamedTuple):
    """Continuations of one prompt: the models that tell most, and the others."""

    prompt: str
    told: Table
    more: Table | None


def passages(study: Study, results: Path) -> list[Passages]:
    """What all models of a study make of each prompt: ancestors first, then members, then DesNets by size.

    Shown at once are, of many, the ancestors and the best of each DesNet by held-out loss; of many DesNets, sizes evenly
    spaced.
    """
    models = Layout(study).models
    by_size = sorted(models, key=lambda path: -(models[path]["params"] or 0))
    kinds = (*ORIGINS, "chain", "desnets")
    written = read_written(results, [path for kind in kinds for path in by_size if path.startswith(f"{kind}/")])
    chosen = written if len(written) <= TOLD else telling(written)
    others = [each for each in written if each not in chosen]
    return [
        Passages(
            prompt, _table(study, chosen, models, prompt), _table(study, others, models, prompt) if others else None
        )
        for prompt in dict.fromkeys(text["prompt"] for each in written for text in each.texts)
    ]


def telling(written: Sequence[Written], most: int = TOLD) -> list[Written]:
    """The few models that tell most, in their order: what the chains descend from, and the best of each DesNet."""
    origins = [each for each in written if each.parts[0] in ORIGINS][:most]
    best: dict[str, Written] = {}
    for each in written:
        if each.parts[0] == "desnets":
            best[each.parts[2]] = min(best.get(each.parts[2], each), each, key=lambda one: one.loss)
    desnets, room = list(best.values()), most - len(origins)
    if len(desnets) > room:
        spaced = [round(place * (len(desnets) - 1) / max(1, room - 1)) for place in range(room)]
        desnets = [desnets[place] for place in spaced]
    return [*origins, *desnets]


def _table(study: Study, written: Sequence[Written], models: Mapping[str, dict], prompt: str) -> Table:
    rows = []
    for columns, text in ((models[each.path], text) for each in written for text in each.texts):
        if text["prompt"] == prompt:
            made = method_label(study, columns["init"], columns["ancestor"])
            problem = f"not continued: {text['problem']}" if "problem" in text else ""
            ways = [problem, ""] if problem else [one_line(text[way]) for way in WAYS]
            name = [Cell(columns["desnet"]), Cell(made), tokens(columns.get("tokens"))]
            rows.append([*name, *map(Cell, ways), number(columns["params"])])
    return Table(["model", "made by", "tokens", *WAYS, "parameters"], rows)
