"""The stage and the tool that export a model."""

import json
import re
from pathlib import Path

import pytest

from colpipe.__main__ import main
from colpipe.config.parts import Runtime
from colpipe.data.chat import chat_template
from colpipe.errors import ColpipeError
from colpipe.jobs.job import Job, JobSpec
from colpipe.reporting.exports import read_exports
from colpipe.stages import export
from colpipe.tools.export import name_of
from tests.unit.export.tiny import CHATML, make_folder, make_tokenizer


@pytest.fixture
def model(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML
    make_folder(tmp_path / "model", "llama", tokenizer, hidden_size=40)
    return tmp_path / "model"


def fields(path) -> dict:
    import gguf

    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@pytest.mark.parametrize(("which", "template"), [("paper", chat_template()), ("own", CHATML)])
def test_a_model_is_exported_as_it_is_published(model, tmp_path, which, template):
    """With the paper's prompts where it learned them here, otherwise with the chat template of its ancestor."""
    out = tmp_path / "out"
    settings = export.Settings(name="DesNet-linit-0", types=["q8_0", "f16"], template=which)
    spec = JobSpec("export", out, tmp_path / "work", settings, Runtime(device="cpu"), {"model": model}, 0)
    with Job(spec) as job:
        export.main(job)
    manifest = json.loads((out / "manifest.json").read_text())
    files = {type: out / f"DesNet-linit-0-{type}.gguf" for type in ("q8_0", "f16")}
    assert manifest["bytes"] == {type: path.stat().st_size for type, path in files.items()}
    assert manifest["not_quantised"] == {"q8_0": 11, "f16": 0}
    assert [note.partition(":")[0] for note in manifest["notes"]] == [
        "9 rows of the embedding that no token has are named [PAD…]", "11 tensors stay in F16",
    ]  # fmt: skip
    assert {path.name for path in out.iterdir()} >= {"DesNet-linit-0-f16.Modelfile", "DesNet-linit-0-q8_0.Modelfile"}
    assert fields(files["f16"]).get("tokenizer.chat_template") == template


def test_the_tool_writes_a_folder_of_anyones(model, tmp_path, capsys):
    main(["export", str(model), "--to", str(tmp_path / "gguf"), "--types", "q8_0,f16", "--name", "mine"])
    names = ["mine-f16.Modelfile", "mine-f16.gguf", "mine-q8_0.Modelfile", "mine-q8_0.gguf"]
    assert sorted(path.name for path in (tmp_path / "gguf").iterdir()) == names
    size = (tmp_path / "gguf/mine-q8_0.gguf").stat().st_size
    said = capsys.readouterr().out.splitlines()
    assert re.search(rf"gguf/mine-q8_0.gguf: {size:,} bytes; .*; mine-q8_0.Modelfile beside it$", said[0])
    assert said[2:] == [
        "note: 9 rows of the embedding that no token has are named [PAD…]",
        "note: 11 tensors stay in F16: their width is no multiple of 32 (token_embd.weight)",
    ]
    assert fields(tmp_path / "gguf/mine-f16.gguf")["tokenizer.chat_template"] == CHATML


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--types", "q8"], "colpipe export: error: type 'q8': written are f16, q8_0, q4_0"),
        (["--to", "{result}"], "colpipe export: error: {result}: is a result of a study, whose files decide"),
    ],
)
def test_the_tool_says_in_one_line_what_is_wrong(model, tmp_path, more, said):
    result = tmp_path / "result"
    result.mkdir()
    (result / "manifest.json").write_text("{}")
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(model), *(word.format(result=result) for word in more)])
    assert str(stopped.value).startswith(said.format(result=result)) and "\n" not in str(stopped.value)
    with pytest.raises(SystemExit, match=r"nowhere: has no config\.json; it is no folder of a transformers model"):
        main(["export", str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("results/demo/published/desnets/gpt2/60M/fit/5100", "demo-60M-fit-5100"),
        ("results/demo/desnets/gpt2/60M/fit/0", "demo-60M-fit-0"),
        ("results/demo/published/chain/gpt2/90M", "demo-90M"),
        ("results/demo/bridges/gpt2", "demo-gpt2"),
        ("models/smollm2-135m", "smollm2-135m"),
        ("chain/gpt2/90M", "90M"),  # no study's
    ],
)
def test_files_are_called_after_the_study_the_size_and_the_initialiser(tmp_path, monkeypatch, folder, name):
    monkeypatch.chdir(tmp_path)
    assert name_of(Path(folder)) == name


def test_the_tool_says_how_it_is_used(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "colpipe export smollm2-135m --to gguf --types q8_0" in capsys.readouterr().out


def test_a_model_that_llama_cpp_does_not_take_fails_or_where_it_is_optional_is_told_of(model, tmp_path, capfd):
    config = json.loads((model / "config.json").read_text())
    rope = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64}
    (model / "config.json").write_text(json.dumps({**config, "rope_parameters": rope}))
    out = tmp_path / "out"

    def run(optional: bool) -> None:
        settings = export.Settings(name="x", types=["f16"], template="own", optional=optional)
        with Job(
            JobSpec("export", out, tmp_path / "work", settings, Runtime(device="cpu"), {"model": model}, 0)
        ) as job:
            export.main(job)

    with pytest.raises(ColpipeError, match="yarn"):
        run(optional=False)
    run(optional=True)
    found = read_exports(out)
    assert "yarn" in found.refused and not found.bytes and not list(out.glob("*.gguf"))
    assert f"no GGUF files: {found.refused}" in capfd.readouterr().err
