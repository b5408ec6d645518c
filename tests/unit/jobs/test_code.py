"""Versions of code: what counts for reruns, and what does not."""

from colpipe.jobs import code
from tests.conftest import CHECKOUT

# Modules that move results about without shaping them. A change of theirs reruns nothing, so each is here on purpose.
MOVERS = {
    "architectures.settable",
    "architectures.flops",
    "config.corpora",
    "config.defaults",
    "config.folders",
    "config.kinds",
    "config.loading",
    "config.names",
    "config.needs",
    "config.parts",
    "config.presets",
    "config.sizing",
    "config.stages",
    "config.starts",
    "config.study",
    "config.trackers",
    "config.validation",
    "errors",
    "evaluation.remark",
    "hashing",
    "hf.counting",
    "jobs.artifacts",
    "jobs.code",
    "jobs.command",
    "jobs.job",
    "jobs.processor",
    "jobs.state",
    "jobs.usage",
    "pipeline.plan",
    "training.trackers",
}


def test_modules_that_say_they_do_not_count():
    import ast

    package = CHECKOUT / "colpipe"
    said = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if not code.affects_results(ast.parse(path.read_text()))
    }
    assert said == MOVERS


def test_the_code_version_is_about_behaviour(tmp_path, monkeypatch):
    package = tmp_path / "colpipe"
    (package / "data").mkdir(parents=True)
    monkeypatch.setattr(code, "__file__", str(package / "jobs" / "code.py"))
    used = package / "data" / "used.py"
    (package / "data" / "other.py").write_text("x = 1\n")
    stage = package / "stage.py"

    def version(stage_text: str, used_text: str) -> str:
        stage.write_text(stage_text)
        used.write_text(used_text)
        code.code_version.cache_clear()
        return code.code_version("colpipe.stage")

    first = version("from colpipe.data.used import f\n", "def f():\n    return 1\n")
    assert first == version('"""Says more."""\nfrom colpipe.data.used import f  # why\n', "def f():\n    return 1\n")
    assert first == version("from colpipe.data.used import f\n", 'def f():\n    """Doc."""\n    return  1\n')
    (package / "data" / "other.py").write_text("x = 2\n")
    assert first == version("from colpipe.data.used import f\n", "def f():\n    return 1\n")
    assert first != version("from colpipe.data.used import f\n", "def f():\n    return 2\n")
    assert first != version("from colpipe.data.used import f\nf()\n", "def f():\n    return 1\n")

    (package / "stage.html.j2").write_text("<p>")  # a template of it
    with_template = version("from colpipe.data.used import f\n", "def f():\n    return 1\n")
    (package / "stage.html.j2").write_text("<b>")
    assert len({first, with_template, version("from colpipe.data.used import f\n", "def f():\n    return 1\n")}) == 3
    (package / "stage.html.j2").unlink()
    (package / "stage.yaml").write_text("numbers: 1")  # a table reaches it as settings
    assert first == version("from colpipe.data.used import f\n", "def f():\n    return 1\n")
    (package / "stage.yaml").unlink()

    for_annotations = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from colpipe.data.other import x\n"
    typed = version(for_annotations, "")
    (package / "data" / "other.py").write_text("x = 3\n")
    assert typed == version(for_annotations, "")

    mover = "AFFECTS_RESULTS = False\nfrom colpipe.data.other import x\n"
    moved = version("from colpipe.data.used import x\n", mover)
    assert moved == version("from colpipe.data.used import x\n", mover + "y = 1\n")
    (package / "data" / "other.py").write_text("x = 4\n")
    assert moved == version("from colpipe.data.used import x\n", mover)


def test_the_words_beside_losses_make_reports_again_and_no_model():
    def uses(stage: str) -> bool:
        trees: dict = {}
        code._collect_code(f"colpipe.stages.{stage}", trees)
        return "colpipe.evaluation.uniform" in trees

    assert all(map(uses, ("report", "exhibit", "publish")))
    assert not any(map(uses, ("pretrain", "distill", "recover", "assemble", "evaluate")))
