"""Which results each table and figure of the paper is made of (no torch here)."""

from collections.abc import Iterator

from colpipe.errors import ColpipeError
from colpipe.study import Study

EXHIBITS = ("table3", "figure5a", "figure5b")


def pairs(study: Study) -> list[tuple[str, str]]:
    """(direct, stepwise): ancestors that differ in who teaches, and in nothing else.

    Raises:
        ColpipeError: there are none.
    """

    def rest(name: str) -> list:
        settings = [study.distill_settings(name, member) for member in study.chain]
        return [study.ancestors[name].model_dump(exclude={"teacher", "desnets", "distill"}), *settings]

    def taught_by(teacher: str) -> Iterator[str]:
        return (name for name, ancestor in study.ancestors.items() if ancestor.teacher == teacher)

    found = [
        (one, other) for one in taught_by("ancestor") for other in taught_by("previous") if rest(one) == rest(other)
    ]
    if not found:
        raise ColpipeError(
            f"study {study.study}: no two ancestors differ in nothing but `teacher`; to compare direct with stepwise "
            "distillation, give one of them again with teacher: ancestor"
        )
    return found


def rivals(study: Study) -> list[str]:
    """DesNets that are also distilled on their own.

    Raises:
        ColpipeError: there are none.
    """
    found = [
        desnet
        for desnet in study.desnets
        if any(study.initialisers[init].kind == "distilled" for init in study.initialisers_of(desnet))
    ]
    if not found:
        raise ColpipeError(f"study {study.study}: no DesNet has an initialiser of kind 'distilled' to compare with")
    return found
