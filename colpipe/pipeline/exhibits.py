"""Which models of a study the paper's tables and figures are made of (no torch here).

A cell of which a study has no model, or no score, is blank.
"""

from colpipe.config.constants import ORIGIN
from colpipe.config.layout import Layout
from colpipe.config.paper import AVERAGE, PaperCell, all_cells, paper, tokens_of
from colpipe.errors import ColpipeError


def models(layout: Layout, exhibit: str) -> dict[str, str]:
    """`PaperCell.model` → path under the results, of the cells that a study has.

    Raises:
        ColpipeError: it has none of them.
    """
    shown = paper()[exhibit]
    found = {cell.model: path for cell in all_cells(shown) if (path := _path(layout, cell, shown["metric"]))}
    if not found:
        first = ", ".join(f"{axis} {name}" for axis, name in all_cells(shown)[0].names.items())
        raise ColpipeError(
            f"study {layout.study.study}: has none of the models of {exhibit} ({shown['title']}), the first of which is "
            f"{first}; say under `paper` what stands for these names"
        )
    return found


def has(layout: Layout, exhibit: str) -> bool:
    """Whether a study has any cell of a table or figure."""
    try:
        return bool(models(layout, exhibit))
    except ColpipeError:
        return False


def _path(layout: Layout, cell: PaperCell, metric: str) -> str | None:
    """Where the model of a cell is, under the results; None where the study lacks it or does not score it so."""
    study, own = layout.study, {axis: layout.study.paper.get(name, name) for axis, name in cell.names.items()}
    model, ancestor, init = own["model"], own.get("ancestor", ""), own.get("init")
    if metric == "parameters":
        return f"desnets/{model}" if model in study.desnets else None
    if model == ORIGIN and ancestor in study.ancestors:
        path = layout.origin(ancestor).removeprefix(f"{layout.results}/")
    elif init in study.stacks:
        path = f"stacks/{init}"
    elif "tokens" not in own:
        path = f"chain/{ancestor}/{model}"
    elif init in study.initialisers and (ancestor or study.initialisers[init].kind == "rand"):
        path = layout.desnet(ancestor, model, init, tokens_of(own["tokens"]))[0]
    else:
        return None
    if path not in layout.models:
        return None
    scored = metric != "rouge_l" or own["task"] in (AVERAGE, *layout.tasks_of(path))
    return path if scored else None
