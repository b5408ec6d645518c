"""Sources against a local wheel, a local folder and an offline hub cache: the real code, no network."""

import shutil
import zipfile
from types import SimpleNamespace
from unittest import mock

import pytest

from colpipe.config.parts import Runtime, Source
from colpipe.data import sources
from colpipe.data.sources import fetch
from colpipe.errors import ColpipeError
from colpipe.hashing import sha256
from colpipe.jobs.artifacts import read_manifest
from colpipe.jobs.job import Job, JobSpec
from colpipe.stages.fetch_dataset import main
from tests.conftest import make_wheel, pack_wheel


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


def test_the_wheel_of_another_python_and_platform(tmp_path, wheel):
    """Its files are the same on every machine, and so has to be its sha256."""
    [own] = (tmp_path / "index").glob("*.whl")
    tags = "cp39-cp39-manylinux_2_24_riscv64.manylinux_2_28_riscv64"
    source = Source(pypi="sample-data==1.0", sha256=wheel, files=["*.jsonl"])
    own.rename(own.with_name(f"sample_data-1.0-{tags}.whl"))
    with pytest.raises(ColpipeError, match="could not download the wheel"):
        fetch(source, tmp_path / "own", "dataset")
    found = fetch(source.model_copy(update={"wheel": tags}), tmp_path / "out", "dataset")
    assert [path.name for path in found] == ["rows.jsonl"]
    assert "wheel" not in source.model_dump()  # a folder of resources/ is named after what is asked for
    with pytest.raises(ValueError, match="wheel belongs to a pypi source"):
        Source(hub="a/b", wheel=tags)


def test_a_wheel_that_does_not_exist(tmp_path, wheel):
    with pytest.raises(ColpipeError, match=r"source sample-data==9.9: pip could not download the wheel: .*No matching"):
        fetch(Source(pypi="sample-data==9.9", sha256=wheel, files=["*"]), tmp_path / "out", "dataset")


def test_no_matching_file(tmp_path, wheel):
    with pytest.raises(ColpipeError, match=r"no file matches \['\*.txt'\]"):
        fetch(Source(pypi="sample-data==1.0", sha256=wheel, files=["*.txt"]), tmp_path / "out", "dataset")


@pytest.fixture
def published(tmp_path):
    """A folder of files, one of them hidden, one in a linked subfolder."""
    folder = tmp_path / "published"
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "more.jsonl").write_text("{}")
    (folder / "data").mkdir(parents=True)
    for name in ("dev.jsonl", "combined.jsonl", "data/rows.jsonl", ".fingerprint.json", "manifest.json"):
        (folder / name).write_text("{}")
    (folder / "linked").symlink_to(tmp_path / "away")
    return folder


def staged(source: Source, folder) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in fetch(source, folder, "dataset")]


def test_linked_folders_are_taken_and_hidden_files_are_not(tmp_path, published):
    said = []
    files = fetch(Source(path=str(published)), tmp_path / "out", "dataset", said.append)
    names = [path.relative_to(tmp_path / "out").as_posix() for path in files]
    assert names == ["combined.jsonl", "data/rows.jsonl", "dev.jsonl", "linked/more.jsonl"]
    assert said == ["not taken, hidden or a result's own: .fingerprint.json, manifest.json"]


@pytest.mark.parametrize("patterns", [["dev.jsonl", "data/*"], ["dev.*", "data/"]])
def test_each_pattern_takes_its_files(tmp_path, published, patterns):
    assert staged(Source(path=str(published), files=patterns), tmp_path / "out") == ["data/rows.jsonl", "dev.jsonl"]


@pytest.mark.parametrize("pattern", ["./dev.jsonl", "[x].jsonl", "./[x].jsonl"])
def test_a_pattern_may_be_a_name_with_brackets_or_begin_at_the_folder(tmp_path, published, pattern):
    (published / "[x].jsonl").write_text("{}")
    assert staged(Source(path=str(published), files=[pattern]), tmp_path / "out") == [pattern.removeprefix("./")]


def test_a_pattern_that_matches_nothing_is_named_with_what_is_near(tmp_path, published):
    source = Source(path=str(published), files=["dev.jsonl", "dev-combined.jsonl"])
    with pytest.raises(
        ColpipeError, match=r"no file matches \['dev-combined.jsonl'\] \(files\); near that is combined.jsonl"
    ):
        fetch(source, tmp_path / "out", "dataset")
    source = Source(path=str(published), files=["*.parquet"])
    with pytest.raises(
        ColpipeError, match=r"no file matches \['\*.parquet'\] \(files\); there is combined.jsonl, data/rows"
    ):
        fetch(source, tmp_path / "out", "dataset")


def test_patterns_beside_a_path_that_is_one_file_have_to_match_it(tmp_path, published):
    path = str(published / "dev.jsonl")
    assert staged(Source(path=path, files=["*.jsonl"]), tmp_path / "out") == ["dev.jsonl"]
    with pytest.raises(ColpipeError, match=r"no file matches \['combined.jsonl'\] \(files\); near that is dev.jsonl"):
        fetch(Source(path=path, files=["combined.jsonl"]), tmp_path / "other", "dataset")


def test_a_wheel_lacks_a_pattern(tmp_path, wheel):
    source = Source(pypi="sample-data==1.0", sha256=wheel, files=["*/rows.jsonl", "sample_data/row.jsonl"])
    with pytest.raises(
        ColpipeError, match=r"\['sample_data/row.jsonl'\] \(files\); near that is sample_data/rows.jsonl"
    ):
        fetch(source, tmp_path / "out", "dataset")


PIECES = {"part1": {"data/words.txt.part9": "the old"}, "part2": {"data/words.txt.part10": " stone", "about.md": "no"}}
NINE = {"part0": {f"words.txt.part{number}": str(number) for number in range(9)}}


@pytest.fixture
def published_in(tmp_path, monkeypatch):
    """Publish wheels, package → file → text; gives the keys of the source that takes what a pattern of `files` matches."""

    def publish(packages: dict[str, dict[str, str]], *files: str, **more) -> dict:
        digests = {}
        for package, texts in packages.items():
            for name, text in texts.items():
                path = tmp_path / "content" / package / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            environment, wheel = pack_wheel(tmp_path / "index", tmp_path / "content" / package, package)
            digests[f"{package}==1.0"] = sha256(wheel)
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
        return {"pypi": list(digests), "sha256": list(digests.values()), "files": list(files), **more}

    return publish


def test_several_wheels_are_one_source(tmp_path, published_in):
    source = Source(**published_in({"a": {"x/rows.txt": "of a"}, "b": {"rows.txt": "of b", "no.md": ""}}, "*.txt"))
    assert staged(source, tmp_path / "out") == ["a/x/rows.txt", "b/rows.txt"]
    assert (tmp_path / "out" / "b" / "rows.txt").read_text() == "of b"


def test_pieces_in_several_wheels_are_joined_by_number(tmp_path, published_in):
    """10 comes after 9, whatever the order of the wheels."""
    keys = published_in({**PIECES, **NINE}, "*.part*", joined="words.txt")
    assert staged(Source(**keys), tmp_path / "out") == ["words.txt"]
    assert (tmp_path / "out" / "words.txt").read_text() == "012345678the old stone"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["words.txt"]


def test_pieces_of_a_local_folder_are_joined_and_stay_as_they_are(tmp_path):
    (tmp_path / "pieces").mkdir()
    for number, text in enumerate(("the ", "old"), 1):
        (tmp_path / "pieces" / f"my.{number:03}").write_text(text)
    assert staged(Source(path=str(tmp_path / "pieces"), joined="my"), tmp_path / "out") == ["my"]
    assert (tmp_path / "out" / "my").read_text() == "the old"
    assert [path.read_text() for path in sorted((tmp_path / "pieces").iterdir())] == ["the ", "old"]


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (PIECES, r"the pieces words.txt.part… have the numbers \[9, 10\], all from 0 or 1 on are needed, once each"),
        (
            {"a": {"w.0": ""}, "b": {"w.2": ""}},
            r"a==1.0, b==1.0: joined: my: the pieces w.… have the numbers \[0, 2\]",
        ),
        ({"a": {"w.1": ""}, "b": {"w.1": ""}}, r"the pieces w.… have the numbers \[1, 1\]"),
        ({"a": {"v.0": ""}, "b": {"w.1": ""}}, r"v.… and w.… are pieces of different files; name those of one"),
        (
            {"a": {"w.0": ""}, "b": {"w-00001-of-00002.gguf": ""}},
            r"b/w-00001-of-00002.gguf is no piece: its name does not end in a number",
        ),
    ],
)
def test_files_that_are_not_all_pieces_of_one_are_refused(tmp_path, published_in, packages, message):
    with pytest.raises(ColpipeError, match=message):
        fetch(Source(**published_in(packages, "*[ab12]/*[0-9f]", joined="my")), tmp_path / "out", "model")


def test_each_of_several_wheels_is_checked_and_has_a_part(tmp_path, published_in):
    keys = published_in({"a": {"rows.txt": ""}, "b": {"other.md": ""}}, "*.txt")
    with pytest.raises(ColpipeError, match=r"no file of b==1.0 matches files \['\*.txt'\]; there is b-1.0.dist-info/"):
        fetch(Source(**keys), tmp_path / "out", "model")
    swapped = keys | {"sha256": keys["sha256"][::-1]}
    with pytest.raises(
        ColpipeError, match=f"source a==1.0: a-1.0-py3-none-any.whl has sha256 {keys['sha256'][0]}, the st"
    ):
        fetch(Source(**swapped), tmp_path / "swapped", "model")
    with pytest.raises(ColpipeError, match=r"source c==1.0: pip could not download the wheel"):
        fetch(Source(**keys | {"pypi": ["a==1.0", "c==1.0"]}), tmp_path / "missing", "model")


def test_a_file_that_two_wheels_hold_is_refused(tmp_path, published_in, monkeypatch):
    keys = published_in({"a": {"rows.txt": "of a"}, "b": {"rows.txt": "of b"}}, "*/rows.txt")
    wheel = tmp_path / "index" / "b-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as opened:
        opened.writestr("a/rows.txt", "of b")
    keys["sha256"][1] = sha256(wheel)
    with pytest.raises(ColpipeError, match=r"source a==1.0, b==1.0: a/rows.txt is in a==1.0 and in b==1.0"):
        fetch(Source(**keys), tmp_path / "out", "model")


def test_a_fetch_that_is_killed_while_it_joins_leaves_nothing_and_starts_anew(tmp_path, published_in, monkeypatch):
    settings = Source(**published_in({**PIECES, **NINE}, "*.part*", joined="words.txt"))
    spec = JobSpec("fetch_dataset", tmp_path / "out", tmp_path / "work", settings, Runtime(), {}, 0)
    join = shutil.copyfileobj

    def kill(source, target):
        join(source, target)
        if str(source.name).endswith("part9"):
            raise KeyboardInterrupt

    monkeypatch.setattr("colpipe.data.sources.shutil.copyfileobj", kill)
    with pytest.raises(KeyboardInterrupt), Job(spec) as job:
        main(job)
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.undo()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")}.items():
        monkeypatch.setenv(name, value)
    with Job(spec) as job:
        main(job)
    assert (tmp_path / "out" / "words.txt").read_text() == "012345678the old stone"
    assert list(read_manifest(tmp_path / "out")["files"]) == ["words.txt"]


def test_only_hidden_files_and_links_to_nothing_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".rows.jsonl").write_text("{}")
    with pytest.raises(ColpipeError, match=r"data: holds no files \(hidden ones are not taken\)"):
        fetch(Source(path=str(tmp_path / "data")), tmp_path / "out", "dataset")
    (tmp_path / "data" / "rows.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(ColpipeError, match=r"data: rows.jsonl is no file, or a link to one that is gone"):
        fetch(Source(path=str(tmp_path / "data")), tmp_path / "out", "dataset")


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
    (repository / "snapshots" / commit / "fetched-before.jsonl").write_text("{}")
    source = Source(hub="someone/thing", files=["*.json"])
    assert [path.name for path in fetch(source, tmp_path / "chosen", kind.removesuffix("s"))] == ["config.json"]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ColpipeError, match=r"no file matches \['conf.json'\] \(files\); near that is config.json"):
        fetch(Source(hub="someone/thing", files=["conf.json"]), tmp_path / "no", kind.removesuffix("s"))


def test_a_hub_that_does_not_answer_once(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").write_text("{}")
    answers = [LocalEntryNotFoundError("no connection"), HTTPError("reset"), str(tmp_path / "snapshot")]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", mock.Mock(side_effect=answers))
    monkeypatch.setattr(sources, "RETRIES", (0, 0))
    said = []
    files = fetch(Source(hub="someone/thing"), tmp_path / "out", "model", said.append)
    assert [path.name for path in files] == ["config.json"]
    assert said == [f"source someone/thing: {what}; once more in 0 s" for what in ("no connection", "reset")]
    always = mock.Mock(side_effect=LocalEntryNotFoundError("no connection"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", always)
    with pytest.raises(ColpipeError, match="source someone/thing: the model cannot be fetched: no connection"):
        fetch(Source(hub="someone/thing"), tmp_path / "none", "model")
    assert always.call_count == 3
    refused = LocalEntryNotFoundError("not for you")
    refused.__cause__ = HTTPError("403")
    refused.__cause__.response = SimpleNamespace(status_code=403)
    for offline, error in ((True, LocalEntryNotFoundError("no connection")), (False, refused)):
        once = mock.Mock(side_effect=error)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", once)
        with pytest.raises(ColpipeError, match="source someone/thing: the model cannot be fetched"):
            fetch(Source(hub="someone/thing"), tmp_path / "refused", "model")
        assert once.call_count == 1


def test_a_repository_that_is_not_there(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ColpipeError, match="source someone/else: the dataset cannot be fetched"):
        fetch(Source(hub="someone/else"), tmp_path / "out", "dataset")
