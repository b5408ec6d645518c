"""One finished run of the tiny study in a checkout of its own, shared by the tests, which put back what they change."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import STUDY, checkout, snakemake


@pytest.fixture(scope="session")
def finished(tmp_path_factory, inputs) -> SimpleNamespace:
    """`home`: a copy of the checkout with inputs/, my-study.yaml and its results; `first`: how the run went."""
    home = checkout(tmp_path_factory.mktemp("finished"), inputs, STUDY)
    first = run(home)
    return SimpleNamespace(home=home, results=home / "results" / "tiny", first=first)


def run(home: Path, *arguments: str, study: str = "my-study.yaml", check: bool = True):
    return snakemake(home, "--configfile", study, *arguments, checkout=home, check=check)


def planned(home: Path, *arguments: str, study: str = "my-study.yaml") -> set[str]:
    """What a dry run would make: folders of the manifests, relative to the results, and `report`."""
    dry = run(home, "-n", *arguments, study=study)
    outputs = re.findall(r"^ +output: (.+)$", dry.stdout + dry.stderr, re.MULTILINE)
    made = {line.split(", ")[0].removeprefix("results/tiny/").removesuffix("/manifest.json") for line in outputs}
    return {"report" if name == "report.html" else name for name in made}
