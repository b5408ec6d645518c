"""The study's summary.csv, report.html and the table that is printed at the end."""

from pathlib import Path

import jinja2
import pandas as pd

from colpipe.job import Job, run_stage
from colpipe.plan import Plan
from colpipe.reporting.figures import loss_against_tokens, loss_curve
from colpipe.reporting.summary import compact, summarise
from colpipe.settings import tokens_label
from colpipe.study import Study


def main(job: Job) -> None:
    study: Study = job.settings
    results = job.output
    summary = summarise(study, results)
    summary.to_csv(job.staging / "summary.csv", index=False)
    table = readable(compact(study, summary))
    (job.staging / "summary.txt").write_text(table.to_string(index=False) + "\n")
    (job.staging / "report.html").write_text(page(study, results, table, summary))
    job.publish_files()
    print(table.to_string(index=False), flush=True)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as people read them; blanks where there is none."""
    shown = table.copy()
    shown["params"] = [f"{value:,}" if pd.notna(value) else "" for value in table["params"]]
    shown["tokens"] = [tokens_label(int(value)) if pd.notna(value) else "" for value in table["tokens"]]
    for column in table.columns[table.columns.get_loc("alpha") :]:
        if column != "tokens":
            digits = 3 if column.endswith("loss") else 2
            shown[column] = [f"{value:.{digits}f}" if pd.notna(value) else "" for value in table[column]]
    return shown.fillna("")


def page(study: Study, results: Path, table: pd.DataFrame, summary: pd.DataFrame) -> str:
    """The report as one self-contained HTML page."""
    folder = Path(__file__).parents[1] / "reporting"
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=jinja2.select_autoescape(["j2"])
    ).get_template("page.html.j2")
    panels, by_size = curves(study, results), loss_by_size(study, summary)
    entries = [(name, "chain", member.shape) for name, member in study.chain.items()]
    entries += [(name, "DesNet", desnet.shape) for name, desnet in study.desnets.items()]
    sizes = pd.DataFrame(
        [
            {"model": name, "role": role, "layers/heads/hidden": str(shape), "params": f"{study.parameters(shape):,}"}
            for name, role, shape in sorted(entries, key=lambda entry: -study.parameters(entry[2]))
        ]
    )

    def html(frame: pd.DataFrame):
        return jinja2.utils.markupsafe.Markup(frame.to_html(index=False, border=0))

    return template.render(
        study=study,
        budgets=[tokens_label(tokens) for tokens in study.budgets],
        sizes=html(sizes),
        table=html(table),
        figure=jinja2.utils.markupsafe.Markup(loss_against_tokens(panels)) if panels else "",
        leakage=html(leakage(results)) if (results / "leakage").exists() else "",
        by_size=jinja2.utils.markupsafe.Markup(loss_against_tokens(by_size, "parameters")) if by_size else "",
        corpus=study.stages.recover.corpus if study.stages.recover else "",
    )


def leakage(results: Path) -> pd.DataFrame:
    """The pairs of an evaluation and a training set that share anything, and how much."""
    frame = pd.read_csv(results / "leakage" / "leakage.csv")
    frame = frame[frame.overlapping > 0]
    return frame.assign(
        share=[f"{100 * part / whole:.1f} %" for part, whole in zip(frame.overlapping, frame.rows, strict=True)]
    )


def loss_by_size(study: Study, summary: pd.DataFrame) -> dict:
    """Corpus → way → (parameters, held-out loss) of the chain and of DesNets at 0 tokens, where these have several sizes.

    Random ones are left out: they would set the scale.
    """
    losses = summary[(summary.metric == "loss") & summary.task.isin(study.perplexity)].dropna(subset="params")
    many = len(study.ancestors) > 1
    panels: dict[str, dict[str, list]] = {}
    for (task, init, ancestor), part in losses.groupby(["task", "init", "ancestor"], sort=False):
        chain = init == "distilled"
        built = init in study.initialisers and study.initialisers[init].kind != "rand"
        if (built or chain) and part.params.nunique() > 1 and len(study.desnets) > 1:
            chosen = (part if chain else part[part.tokens == 0]).sort_values("params")
            way = "chain" if chain else init
            label = f"{way}, {ancestor}" if many and ancestor else way
            panels.setdefault(task, {})[label] = list(zip(chosen.params, chosen.value, strict=True))
    return panels


def curves(study: Study, results: Path) -> dict:
    """DesNet → initialiser → validation loss along its longest recovery."""
    longest, panels = max(study.budgets), {}
    for path, columns in Plan(study).models.items():
        if longest and columns.get("tokens") == longest:
            desnet, init, parent = (columns[name] for name in ("desnet", "init", "ancestor"))
            label = f"{init}, {parent}" if parent and len(study.ancestors) > 1 else init
            lines = panels.setdefault(f"{desnet}: {study.desnets[desnet].shape}", {})
            lines[label] = loss_curve(results / path)
    return panels


if __name__ == "__main__":
    run_stage(
        "report",
        __doc__,
        main,
        inputs={},
        settings=Study,
    )
