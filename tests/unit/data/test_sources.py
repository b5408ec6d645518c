"""Sources against a local wheel, a local folder and an offline hub cache: the real code, no network."""

import pytest

from colpipe.config.parts import Source
from colpipe.data.sources import fetch
from colpipe.errors import ColpipeError
from tests.conftest import make_wheel


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A published wheel on a local index; its sha256."""
    environment, digest = make_wheel(tmp_path / "index")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return digest


def test_a_wheel_is_checked_and_only_what_is_asked_for_is_taken(tmp_path, wheel):
    source = Source(pypi="sample-data==1.0", sha256=wheel, files=["sample_data/*.jsonl"])
    assert [path.name for path in fetch(source, tmp_path / "out", "dataset")] == ["rows.jsonl"]
    assert (tmp_path / "out" / "rows.jsonl").read_text() == '{"text": "hello"}\n'


def test_a_wheel_with_another_sha256_is_refused(tmp_path, wheel):
    source = Source(pypi="sample-data==1.0", sha256="0" * 64, files=["*"])
    with pytest.raises(ColpipeError, match=f"has sha256 {wheel}, the study says {'0' * 64}"):
        fetch(source, tmp_path / "out", "dataset")


def test_a_wheel_that_does_not_exist(tmp_path, wheel):
    with pytest.raises(ColpipeError, match=r"source sample-data==9.9: pip could not download the wheel: .*No matching"):
        fetch(Source(pypi="sample-data==9.9", sha256=wheel, files=["*"]), tmp_path / "out", "dataset")


def test_no_matching_file(tmp_path, wheel):
    with pytest.raises(ColpipeError, match=r"no file matches \['\*.txt'\]"):
        fetch(Source(pypi="sample-data==1.0", sha256=wheel, files=["*.txt"]), tmp_path / "out", "dataset")


def test_a_local_folder_is_linked(tmp_path):
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "sub" / "a.bin").write_text("x")
    files = fetch(Source(path=str(tmp_path / "model")), tmp_path / "out", "dataset")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == ["config.json", "sub/a.bin"]
    assert all(path.is_symlink() for path in files)


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_the_hub_from_an_offline_cache(tmp_path, monkeypatch, kind):
    import huggingface_hub.constants

    commit = "a" * 40
    repository = tmp_path / "hub" / f"{kind}--someone--thing"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for revision in (None, commit):
        files = fetch(
            Source(hub="someone/thing", revision=revision), tmp_path / f"out-{revision}", kind.removesuffix("s")
        )
        assert [path.name for path in files] == ["config.json"]


def test_a_repository_that_is_not_there(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ColpipeError, match="source someone/else: the dataset cannot be fetched"):
        fetch(Source(hub="someone/else"), tmp_path / "out", "dataset")
