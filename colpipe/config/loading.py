"""From a file or a config mapping to a study that fits together, every size planned; the only entrance (no torch here)."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from colpipe.config import starts, validation
from colpipe.config.names import unknown_names
from colpipe.config.parts import problem_lines
from colpipe.config.sizing import Endpoint, plan_shape
from colpipe.config.study import Study
from colpipe.errors import ColpipeError, first_line

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
MERGE = "tag:yaml.org,2002:merge"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
NOT_DECIMAL = re.compile(r"[-+]?0[0-9_]+|.*:.*")  # numbers that YAML reads to the base 8 (0123) or 60 (1:30)


def read_study(path: Path | str) -> dict:
    """The mapping in a study file, YAML or JSON, that means what it seems to say (`check_text`).

    Raises:
        ColpipeError: it cannot be read, is no mapping, or `check_text` refuses it.
    """
    check_text(path)
    config = yaml.safe_load(_text(Path(path)))
    if not isinstance(config, dict):
        raise ColpipeError(f"{path}: is no study: it holds {type(config).__name__}, not keys with values")
    return config


def check_text(path: Path | str) -> None:
    """Refuse a study file of which YAML or JSON would drop or change something without a word.

    Of a key that a block has twice, both would keep the last. `0123` would be 83, and `1:30` would be 90.

    Raises:
        ColpipeError: one line per problem with file and line numbers; or the file cannot be read.
    """
    text = _text(Path(path))
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        problems = [] if root is None else [f"{path}:{line}" for line in _surprises(root, loader, "", set())]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ColpipeError(f"{path}:{mark.line + 1}: is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ColpipeError(f"{path}: is not YAML: {first_line(error)}") from None
    if problems:
        raise ColpipeError("\n".join(problems))


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ColpipeError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ColpipeError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start})") from None
    try:
        json.loads(text)
    except ValueError:
        return text
    return text.replace("\t", " ")  # JSON may be indented with tabs, which YAML refuses; its strings hold none


def _surprises(node: yaml.Node, loader: yaml.SafeLoader, path: str, seen: set[int]) -> Iterator[str]:
    """What a node of a YAML document and those in it say otherwise than they seem to: line, key path, what to do.

    Keys that a merge (`<<`) brings may be given again: that is what it is for.
    """
    if id(node) in seen:  # an anchor's, by another name
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[object, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                name = key.value if key.tag == MERGE else loader.construct_object(key)
                line, where = _line(key), f"{path}.{key.value}".lstrip(".")
                if name in lines:
                    yield f"{line}: {where}: is also on line {lines[name]}, and only one of them would count; keep one"
                lines.setdefault(name, line)
            else:
                where = path
            yield from _surprises(value, loader, where, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _surprises(value, loader, f"{path}.{number}".lstrip("."), seen)
    elif node.tag in NUMBERS and NOT_DECIMAL.fullmatch(node.value):
        read = loader.construct_object(node)
        yield f"{_line(node)}: {path}: {node.value} is read as {read}; write {read}, or quote what is text"


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


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
