"""From a config mapping to a study that fits together, every size planned; the only entrance (no torch here)."""

from collections.abc import Iterable

from pydantic import ValidationError

from colpipe.config import starts, validation
from colpipe.config.names import unknown_names
from colpipe.config.parts import problem_lines
from colpipe.config.sizing import Endpoint, plan_shape
from colpipe.config.study import Study
from colpipe.errors import ColpipeError

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def load_study(config: dict, where: str = "study") -> Study:
    """The validated study of a config mapping; `where` (a file) opens every message.

    Names are checked first, then shapes are planned for DesNets that are given by a budget, then sizes are checked: each
    step may rely on the one before.

    Raises:
        ColpipeError: one line per problem, each with key path, value and what is allowed.
    """
    try:
        study = Study.model_validate(config)
    except ValidationError as error:
        raise _refusal(problem_lines(error), where) from None
    if problems := [*unknown_names(study), *validation.missing_stages(study), *validation.shape_problems(study)]:
        raise _refusal(problems, where)
    study, problems = plan_sizes(study)
    if problems:
        raise _refusal(problems, where)
    if problems := [
        *validation.size_problems(study),
        *validation.elastic_problems(study),
        *validation.length_problems(study),
        *validation.distill_problems(study),
        *starts.tokenizer_problems(study),
        *starts.inheritance_problems(study),
        *starts.ranking_problems(study),
    ]:
        raise _refusal(problems, where)
    return study


def _refusal(problems: Iterable[str], where: str) -> ColpipeError:
    return ColpipeError("\n".join(f"{where}: {line}" for line in problems))


def plan_sizes(study: Study) -> tuple[Study, list[str]]:
    """The study with a shape for every DesNet that is given by a budget, and a line for each that has none."""
    desnets, problems = dict(study.desnets), []
    for name, desnet in study.desnets.items():
        if desnet.shape is not None:
            continue
        neighbours = study.members_around(desnet.parameters)
        if None in neighbours:
            sizes = ", ".join(f"{member} {study.parameters(entry.shape):,}" for member, entry in study.chain.items())
            problems.append(
                f"desnets.{name}: {desnet.parameters:,} parameters lie outside the chain ({sizes}); give a shape"
            )
            continue
        smaller, larger = (Endpoint(member, study.chain[member].shape) for member in neighbours)
        try:
            shape = plan_shape(study.architecture, smaller, larger, desnet.parameters)
        except ColpipeError as error:
            problems.append(f"desnets.{name}: {error}")
        else:
            desnets[name] = desnet.model_copy(update={"shape": shape, "params": None, "memory": None})
    return study.model_copy(update={"desnets": desnets}), problems
