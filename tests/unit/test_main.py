"""The `colpipe` command: what it lists is there, and says what it is for."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

import colpipe
from colpipe.__main__ import COMMANDS, main, usage
from colpipe.errors import ColpipeError
from colpipe.tools import run
from tests.conftest import CHECKOUT


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert not end.value.code and said.startswith(f"usage: colpipe {command}")
    assert re.search(rf"^ *colpipe {command}\b", said, re.MULTILINE)


def test_usage_lists_all(capsys):
    main([])
    assert capsys.readouterr().out == usage() + "\n"
    assert all(re.search(rf"^  {command} ", usage(), re.MULTILINE) for command in COMMANDS)
    assert all(find_spec(f"colpipe.tools.{module}") for module, _ in COMMANDS.values())


def test_version_and_unknown_words(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"colpipe {colpipe.__version__}\n"
    with pytest.raises(SystemExit, match="'distil' is no command; there are doctor, init, "):
        main(["distil"])


def test_a_mistyped_command_or_option_is_a_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^colpipe: error: 'innit' is no command; did you mean init\?$"):
        main(["innit"])
    with pytest.raises(SystemExit, match=r"^colpipe show: error: --nothing: no such option; colpipe show --help lists"):
        main(["show", "results", "--nothing"])
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(SystemExit, match=r"^colpipe plan: error: --model: no such option; colpipe plan --help lists"):
        main(["plan", "--model", "gpt2"])  # the dashes alone are not near --help
    with pytest.raises(SystemExit, match=r"^colpipe run: error: --corse: no such option; did you mean --cores\?$"):
        main(["run", str(tmp_path / "mine.yaml"), "--corse", "4"])


def unread(*command: str) -> tuple[int, str]:
    """Status and errors of a program whose output nobody reads."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *command], env=buffered, text=True, **pipes) as process:
        process.stdout.close()
        said = process.stderr.read()
    return process.returncode, said


@pytest.mark.parametrize("words", [["--help"], ["family", "gpt2"]])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    assert unread("-m", "colpipe", *words) == (141, "")


def test_an_error_is_told_though_nobody_reads_the_output():
    program = (
        "import sys; sys.argv = ['colpipe', 'show', 'nothing']; print('x'); from colpipe.__main__ import main; main()"
    )
    status, said = unread("-c", program)
    assert status not in (0, 141) and said.startswith("colpipe show: error: nothing")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "run"])
def test_every_command_names_the_option_that_is_meant(command):
    with pytest.raises(SystemExit, match=rf"^colpipe {command}: error: --hepl: no such option; did you mean --help"):
        main([command, "what", "--hepl=x"])


@pytest.mark.parametrize("words", [["-n", "--config", "seed=7"], ["--rerun-trigger=mtime"], ["a", "--", "--what"]])
def test_options_that_snakemake_has_are_passed_on(words):
    run.require_known(words)


def test_what_the_package_offers_is_listed():
    assert {"fit", "initialise", "linit", "scan"} <= set(dir(colpipe))


def test_a_command_of_the_environment():
    said = subprocess.run([sys.executable, "-P", "-m", "colpipe", "--version"], capture_output=True, text=True).stdout
    assert said == f"colpipe {colpipe.__version__}\n"


def test_run_passes_everything_on(tmp_path):
    study = tmp_path / "mine.yaml"
    asked = run.command(study, ["chain", "-n", "--config", "seed=7"])
    assert asked[:8] == [sys.executable, "-P", "-m", "snakemake", "chain", "-n", "--config", "seed=7"]
    assert asked[8] == "--cores" and asked[9].isdecimal()
    assert asked[10:12] == ["--logger", "colpipe"]
    assert asked[12:14] == ["--workflow-profile", str(CHECKOUT / "workflow/profiles/default")]
    assert asked[14:] == ["--snakefile", str(CHECKOUT / "Snakefile"), "--configfile", str(study)]
    assert run.command(study, ["--workflow-profile", "none"])[4:6] == ["--workflow-profile", "none"]
    assert run.command(study, ["--workflow-profile", "none"]).count("--workflow-profile") == 1
    assert run.command(study, ["--logger", "rich"]).count("--logger") == 1


@pytest.mark.parametrize("words", [["-c4"], ["--cores", "4"], ["--cores=4"], ["-j", "all"], ["--jobs", "9"]])
def test_run_keeps_the_cores_that_are_asked_for(tmp_path, words):
    assert run.command(tmp_path, words)[4:-8] == words


def test_run_without_a_study_is_a_line(tmp_path):
    with pytest.raises(ColpipeError, match=r"none\.yaml: no such file; the study comes first"):
        run.main([str(tmp_path / "none.yaml"), "chain"])


def test_run_names_the_line_of_a_study_that_is_no_yaml(tmp_path):
    (tmp_path / "mine.yaml").write_text("study: x\n  a: [\n")
    with pytest.raises(ColpipeError, match=r"mine\.yaml:2: is not YAML: "):
        run.main([str(tmp_path / "mine.yaml"), "chain"])
