"""What can be asked for by name."""

import re

import pytest
import yaml

from tests.conftest import snakemake


@pytest.fixture
def home(study, inputs, tmp_path):
    """A study one of whose DesNets has the name of a member, another that of a target."""
    (tmp_path / "inputs").symlink_to(inputs)
    member, shape = next(iter(study["chain"])), next(iter(study["desnets"].values()))
    study["desnets"] |= {member: shape, "scores": shape}
    (tmp_path / "my-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return tmp_path


def planned(home, *targets: str) -> set[str]:
    """Published folders that would be made."""
    dry = snakemake(home, "-n", *targets, "--configfile", "my-study.yaml").stdout
    return set(re.findall(r"output: results/tiny/published/(\S+)/README.md", dry))


def test_a_model_by_its_name(home, study):
    member, desnet = next(iter(study["chain"])), next(iter(study["desnets"]))
    every = planned(home, "published")
    assert planned(home, desnet) == {path for path in every if path.split("/")[2] == desnet} != set()
    assert planned(home, member) == planned(home, f"desnets/{member}") != set()
    assert {path.split("/")[2] for path in planned(home, f"chain/{member}")} == {member}
    assert all(path.startswith("chain/") for path in planned(home, f"chain/{member}"))
    assert not planned(home, "scores")  # the target of that name
    assert {path.split("/")[2] for path in planned(home, "desnets/scores", desnet)} == {"scores", desnet}


def test_a_name_that_is_none(home):
    said = snakemake(home, "-n", "9M", "--configfile", "my-study.yaml", check=False)
    assert said.returncode and "9M" in said.stderr + said.stdout
    assert "9M: is no target of this study; its models are " in said.stderr + said.stdout


def test_the_list_of_targets_is_short(home, study):
    listed = snakemake(home, "--list-target-rules", "--configfile", "my-study.yaml").stdout.splitlines()
    names = [line.split(" (")[0] for line in listed if " (" in line]
    made = {"all", "prepared", "chain", "desnets", "recovered", "published", "exported", "scores", "report", "estimate"}
    assert made <= set(names)
    assert len(names) <= 16 and not {"table1", "figure3"} & set(names)
