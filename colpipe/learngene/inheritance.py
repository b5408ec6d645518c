"""What chain members remember of where they came from, kept in their manifests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from colpipe.errors import ColpipeError
from colpipe.jobs.artifacts import MANIFEST, fingerprint, read_manifest
from colpipe.learngene.assembly import Assembly
from colpipe.learngene.elastic import ElasticMember, cut
from colpipe.learngene.importance import signal_gain
from colpipe.learngene.linit import take_subset
from colpipe.learngene.weights import Weights


@dataclass(frozen=True)
class Inheritance:
    """Attributes, as in a manifest:
    layer_map: for each layer, the teacher's layer that it came from.
    ranking: own layers, best first.
    energy: share of the normalised signal that the leading 1, 2, … channels carry, of the ordered ancestor.
    elastic: how its submodels are taken, where they were trained too.
    """

    layer_map: Sequence[int] | None = None
    ranking: Sequence[int] | None = None
    energy: Sequence[float] | None = None
    elastic: ElasticMember | None = None

    def require_elastic(self, name: str) -> ElasticMember:
        """How submodels are taken.

        Raises:
            ColpipeError: the model is not an elastic member.
        """
        if self.elastic is None:
            raise ColpipeError(
                f"{name}: is no elastic member, nothing can be cut out of it; distil it with `elastic: true`"
            )
        return self.elastic


def inheritance(folder: Path | str, teacher: Path | str | None = None) -> Inheritance:
    """What a model folder's manifest says.

    Args:
        folder: a model.
        teacher: the model that its layers are to be matched with; a map to another one is left out.
    """
    if not (Path(folder) / MANIFEST).exists():
        return Inheritance()
    manifest = read_manifest(folder)
    layer_map = manifest.get("layer_map")
    if teacher is not None and manifest.get("parents", {}).get("teacher") != fingerprint(teacher):
        layer_map = None
    ranking, energy, elastic = (manifest.get(name) for name in ("ranking", "energy", "elastic"))
    if elastic:
        elastic = ElasticMember(elastic["smallest"], elastic["layers"], elastic["compensate"], ranking, energy)
    return Inheritance(layer_map, ranking, energy, elastic)


def inherited_subset(
    source: Weights, known: Inheritance, target: Mapping[str, int], select: str, tied: bool | None = None
) -> Assembly:
    """What inherits from a model: its subset. Of an elastic one, the submodel that was trained, where it goes down to that.

    Args:
        known: what its manifest says.
        target: size of every axis.
        select, tied: as in `take_subset`.
    """
    if known.elastic and known.elastic.reaches(source.family, target):
        return cut(source, target, known.elastic, tied)
    gain = signal_gain(known.energy, source.sizes["hidden"], target["hidden"])
    return take_subset(source, target, select, known.ranking, tied, gain)


def inherited_entries(source: Inheritance, layers: Sequence[int]) -> dict[str, object]:
    """Manifest entries of a member that kept these layers of its source."""
    entries: dict[str, object] = {"layer_map": list(layers)}
    if source.ranking:
        entries["ranking"] = [layers.index(layer) for layer in source.ranking if layer in layers]
    if source.energy:
        entries["energy"] = list(source.energy)
    return entries
