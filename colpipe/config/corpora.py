"""What the corpora of a study are made of: data sets, what an ancestor writes, and mixtures of others (no torch here)."""

from collections import Counter
from collections.abc import Iterable, Iterator

from colpipe.config.study import Study

AFFECTS_RESULTS = False  # see colpipe/jobs/code.py


def unmixed(study: Study, names: Iterable[str]) -> list[str]:
    """The same names with the corpora that mixtures are made of in their place, each once; names of others stay."""
    found: dict[str, None] = {}
    for name in names:
        mixed = study.corpora[name].data if name in study.corpora else None
        found |= dict.fromkeys(unmixed(study, mixed) if mixed else [name])
    return list(found)


def corpus_problems(study: Study) -> Iterator[str]:
    """Corpora that would be made of themselves, and tokenizers that would be trained on what needs them."""
    known: set[frozenset[str]] = set()
    for name in study.corpora:
        circle = _circle(study, name, [])
        if circle and frozenset(circle) not in known:
            known.add(frozenset(circle))
            yield f"corpora.{name}: is made of itself ({' → '.join([*circle, name])}); take one of these out of another"
    for name, corpus in study.corpora.items() if not known else ():
        found = Counter(_parts(study, name))
        for part in [part for part in found if corpus.data and found[part] > 1]:
            yield f"corpora.{name}.data: holds {part} more than once, by mixtures in it; no document may be there twice"
    trained = study.tokenizer.train
    if trained and not study.corpora[trained].dataset:
        kind = "a mixture" if study.corpora[trained].data else "text that an ancestor writes"
        yield (
            f"tokenizer.train: {trained!r} is {kind}, which is tokenised before it is there; name a corpus that is a dataset"
        )


def _parts(study: Study, name: str) -> list[str]:
    """What a corpus holds that is no mixture itself, as often as it does."""
    parts = study.corpora[name].data
    return [each for part in parts for each in _parts(study, part)] if parts else [name]


def _circle(study: Study, name: str, path: list[str]) -> list[str]:
    """The way from a corpus back to the first of a path; empty where there is none."""
    if name in path:
        return path if name == path[0] else []
    for other in _made_of(study, name):
        if found := _circle(study, other, [*path, name]):
            return found
    return []


def _made_of(study: Study, name: str) -> list[str]:
    """The corpora that one waits for. Who writes may have been pre-trained here on one."""
    corpus = study.corpora[name]
    if not corpus.written:
        return list(corpus.data or ())
    pretrained = study.models[study.ancestors[corpus.written.ancestor].model].shape
    learnt = [study.stages.pretrain.corpus] if pretrained and study.stages.pretrain else []
    return [corpus.written.openings, *learnt]
