"""An upload is what was shown, deletes nothing, and replaces nothing that it was not told to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from colpipe.errors import ColpipeError
from colpipe.tools.push import files_of
from tests.conftest import CHECKOUT, make_gpt2
from tests.unit.tools.hub import TOKEN, serving


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model with a card, as a published one."""
    folder = tmp_path / "published"
    make_gpt2(folder, 2, 2, 8, seed=0)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A tiny model\n")
    return folder


@pytest.fixture
def hub():
    with serving() as hub:
        yield hub


def push(hub, home: Path, *words: object, token: str | None = TOKEN) -> subprocess.CompletedProcess:
    """Run the command as a user does, with nothing of this machine's hub settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(home / "hf"), "PYTHONPATH": str(CHECKOUT)}
    environment |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"} | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, "-m", "colpipe", "push", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
    assert TOKEN not in done.stdout + done.stderr
    return done


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_published_folder_is_uploaded_whole(hub, folder, tmp_path):
    done = push(hub, tmp_path, folder, "me/tiny", "--private")
    assert done.returncode == 0, done.stderr
    assert hub.models["me/tiny"]["private"]
    assert hub.models["me/tiny"]["branches"] == {"main": {".gitattributes": b"*.gguf lfs\n", **held(folder)}}
    lines = done.stdout.splitlines()
    for name, content in held(folder).items():
        assert f"{len(content):,} bytes  {name}" in map(str.strip, lines)
    assert lines[-2].strip() == f"{sum(map(len, held(folder).values())):,} bytes in {len(held(folder))} files"
    assert lines[-1] == f"{hub.address}/me/tiny/commit/1"
    commits = sum("/commit/" in path for _, path in hub.asked)
    again = push(hub, tmp_path, folder, "me/tiny", "--private")
    assert again.stdout.splitlines()[-1] == f"{hub.address}/me/tiny: has all of this already"
    assert commits == sum("/commit/" in path for _, path in hub.asked) == 1
    assert not any(TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_another_content_is_replaced_only_if_asked_for(hub, folder, tmp_path):
    push(hub, tmp_path, folder, "me/tiny")
    theirs = hub.models["me/tiny"]["branches"]["main"]
    theirs |= {"model.safetensors": b"theirs", "notes.md": b"of somebody"}
    before = dict(theirs)
    (folder / "README.md").write_text("# Another\n")
    refused = push(hub, tmp_path, folder, "me/tiny")
    line = "me/tiny: README.md, model.safetensors: there with another content; --overwrite replaces them"
    assert refused.returncode == 1 and f"colpipe push: error: {line}" in refused.stderr
    assert refused.stderr.count("\n") == 1 and theirs == before
    branch = push(hub, tmp_path, folder, "me/tiny", "--revision", "second", "--overwrite")
    assert branch.returncode == 0 and theirs == before
    assert hub.models["me/tiny"]["branches"]["second"] == before | held(folder)
    done = push(hub, tmp_path, folder, "me/tiny", "--overwrite")
    assert done.returncode == 0 and hub.models["me/tiny"]["branches"]["main"] == before | held(folder)


def test_what_the_hub_keeps_out_is_told(hub, folder, tmp_path):
    hub.ignored.add("config.json")
    done = push(hub, tmp_path, folder, "me/tiny")
    assert "me/tiny: config.json: not there after the upload; see its .gitignore" in done.stderr


@pytest.mark.parametrize(
    ("words", "token", "line"),
    [
        (["me/tiny"], None, "no token of the Hugging Face hub: set HF_TOKEN, or run hf auth login"),
        (["me/tiny"], "hf_wrong", "me/tiny: Client error '401 Unauthorized'"),
        (["tiny"], TOKEN, "'tiny' is no repository of the Hugging Face hub: give owner/name"),
        (["me/ti ny"], TOKEN, "'me/ti ny' is no repository of the Hugging Face hub: give owner/name"),
        (["me/public", "--private"], TOKEN, "me/public: is there already, and public; make it private there"),
    ],
)
def test_refused_in_a_line(hub, folder, tmp_path, words, token, line):
    hub.models["me/public"] = {"private": False, "branches": {"main": {}}}
    refused = push(hub, tmp_path, folder, *words, token=token)
    assert refused.returncode == 1 and refused.stderr.startswith(f"colpipe push: error: {line}")
    assert refused.stderr.count("\n") == 1
    assert set(hub.models) == {"me/public"} and not hub.models["me/public"]["branches"]["main"]


def test_a_hub_that_cannot_be_reached_is_a_line(hub, folder, tmp_path):
    hub.address = "http://127.0.0.1:9"
    refused = push(hub, tmp_path, folder, "me/tiny")
    assert refused.returncode == 1 and refused.stderr.startswith("colpipe push: error: me/tiny: ")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "others", [[".DS_Store"], ["optimizer.pt"], ["state-0123/"], [".snakemake/", "events.jsonl"], ["manifest.yaml"]]
)
def test_what_is_no_part_of_a_model_is_refused(folder, others):
    for name in others:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    with pytest.raises(ColpipeError) as refusal:
        files_of(folder)
    assert str(refusal.value).startswith(f"{folder}: {', '.join(others)}: no part of a model; give a published folder")


def test_no_card_no_weights_no_folder(folder, tmp_path):
    card = (folder / "README.md").rename(tmp_path / "card.md")
    with pytest.raises(ColpipeError, match=r"README\.md: there is no model card; `snakemake published` writes one"):
        files_of(folder)
    with pytest.raises(ColpipeError, match=r"none\.md: there is no model card"):
        files_of(folder, tmp_path / "none.md")
    assert files_of(folder, card)["README.md"] == card
    (folder / "README.md").touch()
    with pytest.raises(ColpipeError, match=r"has a README\.md of its own; leave --card out"):
        files_of(folder, card)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ColpipeError, match=r"holds no \.safetensors or \.gguf file"):
        files_of(folder)
    with pytest.raises(ColpipeError, match=r"none: is no folder"):
        files_of(tmp_path / "none")


def test_of_a_result_of_gguf_files_only_the_content_goes(tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    for name in ("a-q8_0.gguf", "a-q8_0.Modelfile", "manifest.json", "run.json", "metrics.jsonl", ".fingerprint.json"):
        (folder / name).touch()
    (tmp_path / "README.md").touch()
    assert list(files_of(folder, tmp_path / "README.md")) == ["README.md", "a-q8_0.Modelfile", "a-q8_0.gguf"]
    (folder / "manifest.json").unlink()  # no result, so these are somebody's
    with pytest.raises(ColpipeError, match=r"\.fingerprint\.json, metrics\.jsonl, run\.json: no part of a model"):
        files_of(folder, tmp_path / "README.md")
