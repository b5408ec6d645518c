"""The report page: one self-contained HTML file, put together from a study and its results."""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import jinja2
import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup

from colpipe.architectures.widths import not_quantisable
from colpipe.config.parts import Shape, tokens_label
from colpipe.config.study import Study
from colpipe.evaluation.uniform import uniform_guess
from colpipe.pipeline.graph import count_by_rule
from colpipe.pipeline.graph import lineage as lineage_of
from colpipe.pipeline.plan import Plan
from colpipe.pipeline.rules import RULES
from colpipe.reporting import charts, history, passages, recovery, sizes, tables
from colpipe.reporting.cost import readable
from colpipe.reporting.exports import refusals
from colpipe.reporting.family_chart import family
from colpipe.reporting.flow import workflow
from colpipe.reporting.lineage import fetched, lineage, manifests
from colpipe.reporting.many_sizes import recorded_sizes
from colpipe.reporting.summary_text import kept_remarks, remarks

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")  # an image would be fetched
WIDE = '<div class="wide tall" role="region" aria-label="Table" tabindex="0">'  # scrolls by itself


def page(study: Study, results: Path, summary: pd.DataFrame, cost: pd.DataFrame) -> str:
    """The page as HTML text.

    Args:
        results: `results/<study>/`.
        summary: of `summary.summarise`.
        cost: of `cost.estimate_and_fact`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plan, root = Plan(study), results.parents[1]
    jobs = lineage_of(RULES, plan, plan.results)
    known = manifests(root, jobs)
    panels, by_size = recovery.recovery_curves(study, results), recovery.loss_by_size(study, summary)
    ended = recovery.stops(study, results)
    levels = {_titled(study, name): marks for name, marks in recovery.levels(study, ended).items()}
    random = [name for name, entry in study.initialisers.items() if entry.kind == "rand"]
    sources = fetched(jobs, known)
    sizes_cost = recorded_sizes(plan, root)
    vocabulary = study.architecture.vocabulary
    comparisons, events = recovery.compare_with_random(study, panels, ended), history.read_events(results)
    return environment.get_template("page.html.j2").render(
        study=study,
        home=f"{plan.results}/",
        family=family(summary),
        asked=tables.describe_study(study),
        short=[
            *remarks(study, summary)[bool(study.perplexity) :],
            *kept_remarks(summary),
            *describe_run(comparisons, cost, events),
        ],
        workflow=workflow(*count_by_rule(RULES, jobs)),
        models=models_to_scale(study, results),
        model_table=tables.models(study),
        recovery=curves(
            {_titled(study, name): methods for name, methods in panels.items()},
            "recovery tokens",
            random,
            vocabulary,
            levels,
        ),
        stops=tables.stop_table(study, ended) if ended else None,
        by_size=curves(by_size, "parameters", vocabulary=vocabulary),
        uniform=uniform_guess(vocabulary),
        corpus=study.stages.recover.corpus if study.stages.recover else "",
        comparisons=tables.comparison_table(comparisons) if comparisons else None,
        scores=tables.scores(study, summary),
        corpora=study.perplexity,
        written=passages.passages(study, results),
        continued=passages.how(study),
        files=tables.files(summary),
        refusals=list(refusals(study, results)),
        cost=tables.plain(readable(cost)),
        sizes_cost=sizes_cost,
        sizes_table=tables.plain(pd.DataFrame(sizes_cost.rows(len(study.desnets)))) if sizes_cost else None,
        lineages=lineages(plan, jobs, known),
        fetched=sources,
        staged={source.folder for source in sources},
        versions=versions(known.values()),
        events=tables.events(events) if events else None,
        leakage=tables.leakage(results),
        paper_tables=[read_paper_table(results / "paper" / name) for name in plan.built_paper_tables(results)],
    )


def _titled(study: Study, desnet: str) -> str:
    return f"{desnet}: {study.desnets[desnet].shape}"


def describe_run(comparisons: list[recovery.Comparison], cost: pd.DataFrame, events: list[history.Event]) -> list[str]:
    """What came out, in a few sentences."""
    lines = []
    if comparisons:
        at_once = sum(entry.tokens == 0 for entry in comparisons)
        sooner = sum(entry.tokens is not None and 0 < entry.tokens < entry.baseline for entry in comparisons)
        lines.append(
            f"{len(comparisons)} methods of making a DesNet are compared with a random model of its size: {at_once} begin "
            f"where that one ends after all its recovery tokens, or below; {sooner} more get there with fewer tokens."
        )
    whole = cost.iloc[-1]
    if whole.recorded:
        lines.append(f"{whole.recorded:,} jobs took {format_duration(whole.seconds)} of work, all added up.")
    if broken := {event.job for event in events if event.kind in history.BROKEN}:
        jobs = "1 job" if len(broken) == 1 else f"{len(broken):,} jobs"
        lines.append(f"{jobs} needed more than one attempt.")
    return lines


def format_duration(seconds: float) -> str:
    """45 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"


def curves(
    panels: Mapping[str, Mapping[str, recovery.Curve]],
    along: str,
    without: Iterable[str] = (),
    vocabulary: int | None = None,
    levels: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> dict[str, list] | None:
    """What the template draws of curves; None where there are none.

    Args:
        without: methods that set the scale of all others.
        vocabulary: of the models; the loss of a uniform guess is shown then.
        levels: of `charts.loss_curves`.

    Returns:
        `methods`: (name, look) in the order of the legend; `drawings`: one per panel; `closer`: those without `without`,
        or none.
    """
    if not panels:
        return None
    methods = list(dict.fromkeys(method for curves in panels.values() for method in curves))
    few = {
        title: {name: curve for name, curve in all_.items() if name not in without} for title, all_ in panels.items()
    }
    few = {title: kept for title, kept in few.items() if kept}
    return {
        "methods": [(method, charts.look(number)) for number, method in enumerate(methods)],
        "drawings": charts.loss_curves(panels, along, methods, vocabulary, levels),
        "closer": charts.loss_curves(few, along, methods, vocabulary, levels) if few and few != panels else [],
    }


def models_to_scale(study: Study, results: Path) -> Markup:
    """Ancestors, bridges, the chain and the DesNets between, as rectangles of their width and depth."""
    starts = [name for entry in study.ancestors.values() for name in (entry.model, entry.bridge) if name]
    boxes = [_start(study, results, name) for name in dict.fromkeys(starts)]
    shapes = [("chain", name, entry.shape) for name, entry in study.chain.items()]
    shapes += [("desnet", name, entry.shape) for name, entry in study.desnets.items()]
    for kind, name, shape in sorted(shapes, key=lambda entry: -study.parameters(entry[2])):
        boxes.append(_box(study, kind, name, shape))
    mixes = [
        (("chain", neighbour), ("desnet", name))
        for name in study.desnets
        for neighbour in study.neighbours(name)
        if neighbour
    ]
    return sizes.to_scale(boxes, dict.fromkeys(_lessons(study)), mixes)


def _box(study: Study, kind: str, name: str, shape: Shape) -> sizes.Box:
    note = not_quantisable(shape.widths)
    return sizes.Box(kind, name, study.parameters(shape), shape.layers, shape.hidden, note)


def _lessons(study: Study) -> Iterable[tuple[sizes.Key, sizes.Key, bool]]:
    """(teacher, student, whether a step along the chain), of every ancestor's chain."""
    for name, ancestor in study.ancestors.items():
        origin = ("ancestor", ancestor.bridge or ancestor.model)
        if ancestor.bridge:
            yield ("ancestor", ancestor.model), origin, True
        members = study.members(name)
        for member in members:
            teacher = study.teacher(name, member)
            yield ("chain", teacher) if teacher else origin, ("chain", member), bool(teacher) or member == members[0]


def _start(study: Study, results: Path, model: str) -> sizes.Box:
    """An ancestor or bridge: from the study, or else from what was fetched."""
    if shape := study.models[model].shape:
        return _box(study, "ancestor", model, shape)
    folder = results / "sft" / model
    try:
        config = json.loads((folder / "config.json").read_text())
        parameters = json.loads((folder / "manifest.json").read_text()).get("parameters")
    except OSError:
        return sizes.Box("ancestor", model, None, None, None)
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    hidden = config.get("hidden_size", config.get("n_embd"))
    return sizes.Box("ancestor", model, parameters, *((layers, hidden) if layers and hidden else (None, None)))


def lineages(plan: Plan, jobs: Mapping, known: Mapping) -> list[dict]:
    """Every model with its lineage."""
    found = []
    for path, columns in plan.models.items():
        words = [columns["desnet"], columns["init"], columns["ancestor"]]
        words += [f"{tokens_label(columns['tokens'])} tokens"] if "tokens" in columns else []
        folder = f"scores/{path}" if path.startswith("stacks/") else path  # a stack's models are not kept
        steps = list(lineage(f"{plan.results}/{folder}", jobs, known))
        found.append({"path": path, "words": ", ".join(word for word in words if word), "steps": steps})
    return found


def versions(manifests: Iterable[Mapping]) -> dict[str, list[str]]:
    """Package → the versions that any job ran with."""
    found: dict[str, dict] = {}
    for manifest in manifests:
        for package, version in manifest.get("versions", {}).items():
            if version:
                found.setdefault(package, {})[version] = None
    return {package: list(seen) for package, seen in sorted(found.items())}


def read_paper_table(folder: Path) -> dict[str, str]:
    """A table or figure of the paper that was built: name, title, text and picture."""
    name, figure = folder.name, folder / f"{folder.name}.svg"
    picture = base64.b64encode(figure.read_bytes()).decode() if figure.exists() else ""
    title, _, text = (folder / f"{name}.md").read_text().partition("\n")
    words = MARKDOWN.render(text).replace("<table>", WIDE + "<table>").replace("</table>", "</table></div>")
    return {"name": name, "title": title.lstrip("# "), "text": Markup(words), "picture": picture}
