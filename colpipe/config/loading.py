"""From a file or a config mapping to a study that fits together, every size planned; the only entrance (no torch here)."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from colpipe.config import kinds, starts, validation
from colpipe.config.corpora import corpus_problems
from colpipe.config.defaults import complete
from colpipe.config.names import unknown_names
from colpipe.config.needs import written_shortages
from colpipe.config.parts import problem_lines
from colpipe.config.sizing import Endpoint, plan_shape
from colpipe.config.study import Study
from colpipe.errors import ColpipeError, first_line

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
MERGE = "tag:yaml.org,2002:merge"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)  # of PyYAML for odd values
NOT_DECIMAL = re.compile(r"[-+]?0[0-9_]+|.*:.*")  # numbers that YAML reads to the base 8 (0123) or 60 (1:30)


def read_study(path: Path | str) -> dict:
    """The mapping in a study file, YAML or JSON, that means what it seems to say (`check_text`).

    Raises:
        ColpipeError: it cannot be read, is no mapping, or `check_text` refuses it.
    """
    config = _checked(path)
    if not isinstance(config, dict):
        raise ColpipeError(f"{path}: is no study: it holds {type(config).__name__}, not keys with values")
    return config


def check_text(path: Path | str) -> None:
    """Refuse a study file of which YAML or JSON would drop or change something without a word.

    Of a key that a block has twice, both would keep the last. `0123` would be 83, and `1:30` would be 90.

    Raises:
        ColpipeError: one line per problem with file and line numbers; or the file cannot be read.
    """
    _checked(path)


def _checked(path: Path | str) -> Any:
    """What a study file holds, once it is seen to mean what it says."""
    text = _text(Path(path))
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        problems = [] if root is None else [f"{path}:{line}" for line in _surprises(root, loader, "", [], set())]
        if problems:
            raise ColpipeError("\n".join(problems))
        found = _json(text, str(path))
        return loader.construct_document(root) if found is None and root is not None else found
    except (yaml.YAMLError, *MALFORMED) as error:
        raise _no_yaml(error, str(path)) from None


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ColpipeError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ColpipeError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start})") from None
    return (
        text if _json(text, str(path)) is None else text.replace("\t", " ")
    )  # tabs may indent JSON; strings hold none


def _json(text: str, path: str) -> Any:
    """What a text that is JSON holds, with its own numbers (`1e-6`); None where it is none.

    Raises:
        ColpipeError: a number is NaN or infinite, which JSON has not; or blocks lie too deep in each other.
    """

    def refuse(word: str) -> None:
        raise ColpipeError(f"{path}: {word} is no number that a study can have")

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return None
    except RecursionError:
        raise ColpipeError(f"{path}: is no study: its blocks lie too deep in each other") from None


def _no_yaml(error: Exception, path: str) -> ColpipeError:
    """Names the line where it is known."""
    if isinstance(error, RecursionError):
        return ColpipeError(f"{path}: is no study: its blocks lie too deep in each other")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "context", None) or first_line(error)
    return ColpipeError(f"{path}:{mark.line + 1}: is not YAML: {said}" if mark else f"{path}: is not YAML: {said}")


def _surprises(node: yaml.Node, loader: yaml.SafeLoader, path: str, around: list[int], seen: set[int]) -> Iterator[str]:
    """What a node of a YAML document and those in it say otherwise than they seem to: line, key path, what to do.

    Keys that a merge (`<<`) brings may be given again: that is what it is for.

    Args:
        around: the nodes that this one lies in.
        seen: all nodes that were looked at.
    """
    if id(node) in around:
        yield f"{_line(node)}: {path}: holds itself, by an anchor; write out what is meant"
    if id(node) in seen:  # an anchor's, by another name
        return
    seen.add(id(node))
    around = [*around, id(node)]
    if isinstance(node, yaml.MappingNode):
        lines: dict[object, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                name = key.value if key.tag == MERGE else _scalar(key, loader)
                line, where = _line(key), f"{path}.{key.value}".lstrip(".")
                if name in lines:
                    yield f"{line}: {where}: is also on line {lines[name]}, and only one of them would count; keep one"
                lines.setdefault(name, line)
            else:
                where = path
                yield f"{_line(key)}: {path or 'the study'}: has a key that is a list or mapping; keys are words"
            yield from _surprises(value, loader, where, around, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _surprises(value, loader, f"{path}.{number}".lstrip("."), around, seen)
    elif (read := _scalar(node, loader)) is not None and node.tag in NUMBERS and NOT_DECIMAL.fullmatch(node.value):
        yield f"{_line(node)}: {path}: {node.value} is read as {read}; write {read}, or quote what is text"


def _scalar(node: yaml.Node, loader: yaml.SafeLoader) -> Any:
    """What a single value is read as.

    Raises:
        yaml.YAMLError: its text is none of its kind: a 13th month, `!!int x`.
    """
    try:
        return loader.construct_object(node)
    except MALFORMED as error:
        kind = node.tag.rpartition(":")[2]
        raise yaml.MarkedYAMLError(
            problem=f"{node.value!r} is no {kind} ({first_line(error)}); quote what is text",
            problem_mark=node.start_mark,
        ) from None


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def load_study(config: dict, where: str = "study") -> Study:
    """The validated study of a config mapping; `where` (a file) opens every message.

    What it leaves to its preset, its ancestor or its other parts is filled in. Names are checked first, then shapes are
    planned for DesNets that are given by a budget, then sizes are checked: each step may rely on the one before.

    Raises:
        ColpipeError: one line per problem, each with key path, value and what is allowed.
    """
    try:
        study = Study.model_validate(complete(config))
    except ValidationError as error:
        raise _refusal(problem_lines(error, Study), where) from None
    except ColpipeError as error:
        raise _refusal(str(error).splitlines(), where) from None
    if problems := [*unknown_names(study), *validation.missing_stages(study), *validation.shape_problems(study)]:
        raise _refusal(problems, where)
    if problems := list(corpus_problems(study)):
        raise _refusal(problems, where)
    study, problems = plan_sizes(study)
    if problems:
        raise _refusal(problems, where)
    if problems := [
        *validation.size_problems(study),
        *validation.elastic_problems(study),
        *validation.length_problems(study),
        *validation.prompt_problems(study),
        *validation.warmup_problems(study),
        *validation.stop_problems(study),
        *validation.distill_problems(study),
        *written_shortages(study),
        *starts.tokenizer_problems(study),
        *starts.inheritance_problems(study),
        *starts.ranking_problems(study),
        *starts.writing_problems(study),
        *kinds.kind_problems(study),
    ]:
        raise _refusal(problems, where)
    return study


def remarks(study: Study) -> Iterator[str]:
    """Lines to tell on a study that is valid, where it leaves open what may not be meant."""
    yield from validation.not_quantisable_shapes(study)
    yield from starts.heads_tied_otherwise(study)
    yield from kinds.export_remarks(study)


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
