"""Named choices for a whole study: what `preset` puts under the study's own keys (no torch here)."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py
EACH = "*"  # stands for every name of a section
ONLY_WHERE_GIVEN = ("pretrain", "recover")  # stages that a study may not have

# The paper's, and those of the methods that it uses (Appendix C.1), wherever the defaults of a study are others.
PAPER = {
    "architecture": {"family": "gpt2", "vocabulary": 50257, "positions": 1024, "tied": None},
    "ancestors": {EACH: {"select": "even"}},
    "chain": {EACH: {"start": "inherit"}},
    "initialisers": {EACH: {"method": "paper"}},
    "stages": {
        "pretrain": {"evaluations": 0, "keep": "last"},  # the paper names no choice among states
        "recover": {"evaluations": 0, "keep": "last"},
        "distill": {
            "objective": "minillm",
            "learning_rate": 5e-6,
            "schedule": "constant",
            "warmup": 0.02,  # 100 of 5000 steps
            "keep": "rouge_l",
            "rollout": {"size": 256},
        },
    },
}
PRESETS: dict[str, dict] = {"paper": PAPER}


def with_preset(config: Mapping[str, Any]) -> dict[str, Any]:
    """A study's config mapping, with its preset's choices wherever it makes none; a copy.

    An unknown preset adds nothing: the study is refused for it.
    """
    name = config.get("preset")
    return _under(PRESETS.get(name, {}) if isinstance(name, str) else {}, deepcopy(dict(config)))


def _under(choices: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is given, with the choices for keys that are not; what is given as another kind of thing stays as it is."""
    for key, choice in choices.items():
        if key not in given and (key in ONLY_WHERE_GIVEN or (isinstance(choice, dict) and list(choice) == [EACH])):
            continue  # an empty section would not be one that is left out
        if key == EACH:
            for entry in given.values():
                if isinstance(entry, dict):
                    _under(choice, entry)
        elif isinstance(choice, dict):
            if isinstance(part := given.setdefault(key, {}), dict):
                _under(choice, part)
        else:
            given.setdefault(key, choice)
    return given
