"""`colpipe show` and `colpipe doctor`."""

import json
import xml.etree.ElementTree as xml

import pytest

from colpipe.__main__ import main
from colpipe.tools import doctor
from colpipe.tools.doctor import BAD, NOTE, OK, findings
from colpipe.tools.show import sections


def finish(folder, stage: str, **more) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"stage": stage, "parents": {}, "files": {}, **more}))


@pytest.fixture
def results(tmp_path):
    """Of a study that is not finished: two members, a job at work, a card, and two attempts that failed, one for good."""
    folder = tmp_path / "results" / "mine"
    for name in ("large", "small"):
        finish(folder / "chain" / "a" / name, "distill")
    finish(folder / "sft" / "a", "sft")
    finish(folder / "work" / "chain" / "a" / "tiny", "distill")
    card = folder / "published" / "desnets" / "a" / "90M"
    card.mkdir(parents=True)
    (card / "README.md").write_text("a card")
    (card / "model.safetensors").write_bytes(b"x" * 2_500_000)
    failed = {"when": "2026-01-01 00:00:00", "kind": "failed", "text": "error: no space left"}
    for name, records in {"tiny": [failed], "small": [failed, {**failed, "kind": "done", "text": "done"}]}.items():
        work = folder / "work" / "chain" / "a" / name
        work.mkdir(parents=True, exist_ok=True)
        (work / "events.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_an_unfinished_study(results):
    finished, models, failed, after = sections(results)
    assert finished == "Finished: 2 distill, 1 sft."
    assert models.splitlines()[1] == f"    {results}/published/desnets/a/90M  2.5 MB"
    assert failed.splitlines() == ["Failed:", "    chain/a/tiny: no space left"]
    assert after.startswith("Not finished: `colpipe run`")


def test_models_are_in_the_order_of_the_summary(results):
    sizes = {"chain/a/small": 20, "chain/a/large": 90, "desnets/a/110M/fit/0": 110, "desnets/b/200M/fit/0": 200}
    for path, size in sizes.items():
        (results / "published" / path).mkdir(parents=True)
        (results / "published" / path / "README.md").write_text("a card")
        (results / "published" / path / "model.safetensors").write_bytes(b"x" * size)
        finish(results / "exported" / path, "export", bytes={"f16": size}, notes=[])
        (results / "exported" / path / "x-f16.gguf").write_bytes(b"x" * size)
    _, models, files, *_ = sections(results)
    order = ["chain/a/large", "chain/a/small", "desnets/b/200M/fit/0", "desnets/a/110M/fit/0"]
    told = [line.split()[0].removeprefix(f"{results}/published/") for line in models.splitlines()[1:]]
    assert [path for path in told if path in order] == order and told[2] == "desnets/a/90M"  # the largest of them
    told = [line.split()[0] for line in files.splitlines()[1:]]
    assert told == [f"{results}/exported/{path}/x-f16.gguf" for path in order]


def test_a_finished_study_shows_its_table_first(results, capsys):
    (results / "summary.txt").write_text("desnet loss\n90M 3.2\n")
    main(["show", str(results)])
    said = capsys.readouterr().out
    assert said.startswith("desnet loss\n90M 3.2\n\nFinished: ")
    assert f"The page: {results}/report.html  The numbers: {results}/summary.csv" in said


def test_it_ends_with_what_two_models_write(results):
    for path, loss in (("bridges/a", 3.0), ("desnets/a/90M/fit/0", 3.5)):
        finish(results / "scores" / path, "evaluate")
        (results / "scores" / path / "scores.json").write_text(json.dumps({"wiki": {"loss": loss}}))
        texts = [{"prompt": "It is", "greedy": f" by {path} " + "word " * 40, "sampled": ""}]
        (results / "scores" / path / "continuations.json").write_text(json.dumps(texts))
    *_, last = sections(results)
    asked, ancestor, desnet = last.splitlines()
    assert asked == 'From "It is", greedily:'
    assert ancestor.startswith("    a (bridge)           by bridges/a word") and ancestor.endswith("word …")
    assert desnet.startswith("    90M (fit, 0 tokens)  by desnets/a/90M/fit/0 word") and desnet.endswith("word …")
    assert 90 < len(ancestor) <= 100


SUMMARY = """ancestor,desnet,params,init,alpha,tokens,task,metric,value,low,high,seed
,big,130000000,as it is,,,wiki,loss,3.0,,,0
a,60M,60000000,fit,,0,wiki,loss,3.9,3.8,4.0,0
a,90M,90000000,fit,,0,wiki,loss,3.5,3.4,3.6,0
"""


def test_a_figure_is_drawn_from_the_summary_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "summary.csv").write_text(SUMMARY)
    main(["show", ".", "--figure", "docs/mine"])
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "<picture>",
        '  <source media="(prefers-color-scheme: dark)" srcset="docs/mine-dark.svg">',
        '  <img alt="Quality of the models against their parameters" src="docs/mine-light.svg">',
        "</picture>",
    ]
    light, dark = ((tmp_path / f"docs/mine-{variant}.svg").read_text() for variant in ("light", "dark"))
    for text in (light, dark):
        assert xml.fromstring(text).get("width") == "760" and "fit, 0 tokens" in text and "big 3.00" in text
    assert light != dark
    main(["show", ".", "--figure", "docs/mine"])
    assert (tmp_path / "docs/mine-light.svg").read_text() == light


def test_a_figure_without_what_it_shows_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"summary.csv: not there yet; `colpipe run` the study first"):
        main(["show", str(tmp_path), "--figure", str(tmp_path / "x")])
    (tmp_path / "summary.csv").write_text("".join(SUMMARY.splitlines(True)[:2]))
    with pytest.raises(
        SystemExit, match=r"summary.csv: no DesNet in it has a held-out loss: name a corpus under perplex"
    ):
        main(["show", str(tmp_path), "--figure", str(tmp_path / "x")])
    assert not list(tmp_path.glob("x*"))


def test_what_is_no_study_is_a_line(results, capsys):
    with pytest.raises(SystemExit, match=r"other: no such folder; there are mine$"):
        main(["show", str(results.parent / "other")])
    with pytest.raises(SystemExit, match=r"results: holds several studies: mine; give one$"):
        main(["show", str(results.parent)])
    with pytest.raises(SystemExit, match="holds no results of a study"):
        main(["show", str(results / "published" / "desnets")])


def test_doctor_finds_nothing_missing_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["doctor"])
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [about for _, about in lines if about != "cluster"] == [
        *("colpipe", "packages", "llama.cpp", "processors", "memory", "disk", "cuda", "npu")
    ]
    assert {mark for mark, _ in lines} <= {OK, NOTE}


def test_doctor_names_what_is_missing(tmp_path, monkeypatch):
    needed = ["torch>=99", "no-such-package>=1", 'no-such-plugin; extra == "cluster"']
    monkeypatch.setattr(doctor, "requires", lambda name: needed)
    monkeypatch.setattr(doctor, "lacks_bfloat16", lambda: True)
    (tmp_path / "results").write_text("")
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.input.lock").write_text("")
    found = {finding.about: finding for finding in findings(tmp_path)}
    assert found["packages"].mark == BAD
    assert found["packages"].text.startswith("torch ") and "needed is >=99; no no-such-package: pip inst" in (
        found["packages"].text
    )
    assert found["cluster"].text == "no no-such-plugin; for Slurm and Donau: pip install 'colpipe[cluster]'"
    assert "without bfloat16" in found["processors"].text
    assert found["lock"].mark == NOTE and found["results"].mark == BAD


@pytest.mark.parametrize(
    ("package", "programs", "mark", "said"),
    [
        (
            None,
            [],
            NOTE,
            "(no xllamacpp: pip install 'colpipe[llama-cpp]'), and talks to them (no llama-cli or llama-server on",
        ),
        (None, ["llama-cli"], OK, "(no xllamacpp: pip install 'colpipe[llama-cpp]'), and talks to them (llama-cli)"),
        ("there", [], OK, "(xllamacpp), and talks to them (no llama-cli or llama-server on PATH: https://"),
        ("there", ["llama-cli", "llama-server"], OK, "(xllamacpp), and talks to them (llama-cli, llama-server)"),
    ],
)
def test_doctor_looks_for_llama_cpp(tmp_path, monkeypatch, package, programs, mark, said):
    monkeypatch.setattr(doctor, "find_spec", lambda name: package)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name in programs else None)
    found = next(finding for finding in findings(tmp_path) if finding.about == "llama.cpp")
    assert found.mark == mark and found.text.startswith(f"says how fast exported models are {said}")


def test_doctor_ends_with_1_where_something_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_text("")
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    assert end.value.code == 1
