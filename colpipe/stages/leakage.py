"""Count what the evaluation sets share with the training sets of the study: equal rows, and 13 words in a row.

Of mixtures, what they mix is compared, each for itself. What an ancestor wrote is read back from its tokens.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from colpipe.config.parts import Dataset, Name, Strict
from colpipe.data.leakage import overlaps
from colpipe.data.records import read
from colpipe.data.rows import read_rows
from colpipe.data.shards import Tokens, documents_in
from colpipe.jobs.command import run_stage
from colpipe.jobs.job import Job


class Settings(Strict):
    corpora: dict[Name, Dataset]
    """The data sets of the corpora."""
    trained: list[Name]
    """Instructions and corpora that models learn from."""
    evaluated: list[Name]
    """Those that models are scored on."""


def main(job: Job[Settings]) -> None:
    settings = job.settings
    written = job.parents_of("written")
    folders = {**job.parents_of("instructions"), **job.parents_of("corpus")}
    tokenizer = None
    if written:
        from colpipe.hf.tokenizers import load_tokenizer  # spared studies in which nobody writes

        tokenizer = load_tokenizer(job.parents["tokenizer"])

    def rows(name: str, split: str) -> Iterator[dict]:
        if name in settings.corpora:
            return _documents(settings.corpora[name], folders[name], split)
        if name in written:
            return _written(written[name], split, tokenizer)
        return iter(read_rows(folders[name], split, needed=False))

    evaluated = {name: list(rows(name, "test")) for name in settings.evaluated}
    found = []
    for trained in settings.trained:
        if job.should_stop():
            job.stop()
        for name, counts in overlaps(evaluated, rows(trained, "train")).items():
            found.append({"evaluated": name, "trained": trained, **counts})
            if shared := counts["overlapping"]:
                job.say(
                    f"{name}: {shared:,} of {counts['rows']:,} rows overlap with {trained}, {counts['exact']:,} exactly"
                )
    pd.DataFrame(found).to_csv(job.staging / "leakage.csv", index=False)
    job.publish()


def _documents(dataset: Dataset, folder: Path, split: str) -> Iterator[dict]:
    return (record for record in read(dataset, folder) if record.get("text") and record["split"] == split)


def _written(folder: Path, split: str, tokenizer) -> Iterator[dict]:
    """Documents of a prepared corpus, as text."""
    tokens, begin = Tokens(folder, split), 0
    for end in documents_in(folder, split)[0].tolist():
        yield {"text": tokenizer.decode(tokens.read(begin, end - 1))}  # without the end-of-text
        begin = end


if __name__ == "__main__":
    run_stage(
        "leakage",
        __doc__,
        main,
        inputs={
            "instructions*": "prepared instructions",
            "corpus*": "staged data sets of corpora",
            "written*": "prepared corpora that an ancestor wrote",
            "tokenizer": "tokenizer of the chain, to read these",
        },
        settings=Settings,
        optional=("tokenizer",),
    )
