"""What a study file says is what the study is: nothing in its text is dropped or changed without a word."""

import json
import re

import pytest
import yaml

from colpipe.config.loading import check_text, load_study, read_study
from colpipe.errors import ColpipeError
from tests.conftest import CHECKOUT


def refused(tmp_path, text: str, name: str = "my.yaml") -> list[str]:
    """The lines of the refusal, without the folder."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ColpipeError) as error:
        check_text(tmp_path / name)
    return [line.removeprefix(f"{tmp_path}/") for line in str(error.value).splitlines()]


TWICE = "and only one of them would count; keep one"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("desnets:\n  a: 1\nseed: 0\ndesnets:\n  b: 2\n", ["4: desnets: is also on line 1"]),
        ("stages:\n  distill:\n    steps: 4\n    steps: 5\n", ["4: stages.distill.steps: is also on line 3"]),
        ("distill: {steps: 4,\n  batch_size: 2,\n  steps: 5}\n", ["3: distill.steps: is also on line 1"]),
        ('a: 1\n"a": 2\n', ["2: a: is also on line 1"]),
        ("tasks:\n- {a: 1}\n- {a: 1, a: 2}\n", ["3: tasks.1.a: is also on line 3"]),
        (
            "a: 1\na: 2\na: 3\nb: {c: 1, c: 1}\n",
            ["2: a: is also on line 1", "3: a: is also on line 1", "4: b.c: is also"],
        ),
        ("base: &base {x: 1, x: 2}\nuse: *base\n", ["1: base.x: is also on line 1"]),
        ("b: &b {x: 1}\nc: &c {y: 1}\nd:\n  <<: *b\n  <<: *c\n", ["5: d.<<: is also on line 4"]),
    ],
)
def test_a_key_that_a_block_has_twice_is_refused_with_both_lines(tmp_path, text, lines):
    found = refused(tmp_path, text)
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert line.startswith(f"my.yaml:{expected}")
        assert line.endswith(TWICE)


def test_json_too(tmp_path):
    assert refused(tmp_path, '{"a": {"b": 1,\n\t"b": 2}}', "my.json")[0].startswith("my.json:2: a.b: is also on line 1")


def test_what_a_merge_brings_may_be_given_again(tmp_path):
    text = "base: &base {files: [a], pypi: x}\nb: {<<: *base, files: [b]}\nc: {files: [c], <<: [*base]}\n"
    (tmp_path / "my.yaml").write_text(text)
    check_text(tmp_path / "my.yaml")
    assert read_study(tmp_path / "my.yaml")["b"] == {"files": ["b"], "pypi": "x"}


@pytest.mark.parametrize(
    ("value", "read"), [("0100", 64), ("-017", -15), ("1:30", 90), ("1:30.5", 90.5), ("00", 0)]
)  # fmt: skip
def test_numbers_that_yaml_does_not_read_to_the_base_of_ten_are_refused(tmp_path, value, read):
    expected = f"my.yaml:2: a.steps: {value} is read as {read}; write {read}, or quote what is text"
    assert refused(tmp_path, f"a:\n  steps: {value}\n") == [expected]


@pytest.mark.parametrize("value", ["0", "10", "0.5", "1_000", "'0100'", "1.0e-4", "0x10", "78M", "'1:30'"])
def test_other_numbers_are_as_they_are(tmp_path, value):
    (tmp_path / "my.yaml").write_text(f"a: {value}\n")
    check_text(tmp_path / "my.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n b: 2\n", "my.yaml:2: is not YAML: mapping values are not allowed here"),
        ("a: [1,\nb: 2\n", "my.yaml:3: is not YAML: "),
        ("a: 1\n\tb: 2\n", "my.yaml:2: is not YAML: "),
        ("a: *nowhere\n", "my.yaml:1: is not YAML: found undefined alias 'nowhere'"),
        ("a: 1\n---\nb: 1\n", "my.yaml:2: is not YAML: but found another document"),
        ("a: \x00\n", "my.yaml: is not YAML: "),
    ],
)
def test_broken_yaml_is_one_line_with_its_place(tmp_path, text, message):
    [line] = refused(tmp_path, text)
    assert line.startswith(message)


def test_files_that_are_no_studies(tmp_path):
    with pytest.raises(ColpipeError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        read_study(tmp_path / "none.yaml")
    for text, kind in (("", "NoneType"), ("- a\n", "list"), ("a\n", "str")):
        (tmp_path / "my.yaml").write_text(text)
        with pytest.raises(ColpipeError, match=f"is no study: it holds {kind}, not keys with values"):
            read_study(tmp_path / "my.yaml")
    (tmp_path / "my.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ColpipeError, match="is not UTF-8"):
        check_text(tmp_path / "my.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\n? [a]\n: 2\n", "my.yaml:2: the study: has a key that is a list or mapping"),
        ("s: &s 1\na: {<<: *s}\n", "my.yaml:1: is not YAML: expected a mapping or list of mappings for merging"),
        ("a: 1\nb: !mine {c: 1}\n", "my.yaml:2: is not YAML: could not determine a constructor for the tag '!mine'"),
        ("a: !mine x\n", "my.yaml:1: is not YAML: could not determine a constructor for the tag '!mine'"),
        ("a: !!binary é\n", "my.yaml:1: is not YAML: failed to convert base64 data"),
        ("a: !!binary abc\n", "my.yaml:1: is not YAML: failed to decode base64 data"),
        ("b: 1\na: 2020-13-45\n", "my.yaml:2: is not YAML: '2020-13-45' is no timestamp (month must be in 1..12)"),
        ("a: !!int x\n", "my.yaml:1: is not YAML: 'x' is no int"),
        ("a: !!bool x\n", "my.yaml:1: is not YAML: 'x' is no bool"),
        ("a: !!timestamp x\n", "my.yaml:1: is not YAML: 'x' is no timestamp"),
        ("a: " + "[" * 5000, "my.yaml: is no study: its blocks lie too deep in each other"),
        ("[" * 5000 + "]" * 5000, "my.yaml: is no study: its blocks lie too deep in each other"),
        ("architecture:\n  config: &c {x: *c}\n", "my.yaml:2: architecture.config.x: holds itself, by an anchor"),
        ("d: &d [*d]\n", "my.yaml:1: d.0: holds itself, by an anchor"),
        ('{"a": NaN}', "my.yaml: NaN is no number that a study can have"),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, text, line):
    (found,) = refused(tmp_path, text)
    assert found.startswith(line)
    with pytest.raises(ColpipeError, match=re.escape(line)):
        read_study(tmp_path / "my.yaml")


@pytest.mark.parametrize("text", ['{"a": {"b": 1e-6}}', '\ufeff{\n\t"a": {"b": 1e-6}}', "\ufeffa: {b: 1.0e-6}\n"])
def test_json_numbers_and_a_byte_order_mark_are_read_as_meant(tmp_path, text):
    (tmp_path / "my.json").write_text(text, encoding="utf-8")
    assert read_study(tmp_path / "my.json") == {"a": {"b": 1e-6}}


@pytest.mark.parametrize("path", sorted((CHECKOUT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_of_the_checkout_say_what_they_are(path):
    assert read_study(path) == yaml.safe_load(path.read_text())
    assert json.loads(json.dumps(read_study(path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["stages"]["distill"].update(steps=True), "stages.distill.steps: True is no number"),
        (lambda s: s["stages"]["sft"].update(betas=[False, 0.9]), "stages.sft.betas: False is no number"),
        (lambda s: s["initialisers"]["nested"].update(alpha=True), "initialisers.nested.alpha: True is no number"),
        (lambda s: s.update(budgets=[True]), "budgets: True is no number"),
        (lambda s: s["stages"]["sft"].update(learning_rate=float("inf")), "stages.sft.learning_rate: inf: input should be"),
        (
            lambda s: s["architecture"].update(config={"rope_parameters": {"rope_theta": "1e6"}}),
            "architecture.config: rope_theta: '1e6' is text in YAML; write it with point and sign",
        ),
    ],
)  # fmt: skip
def test_what_yaml_makes_of_words_and_numbers_is_no_number_in_silence(study, inputs, monkeypatch, change, message):
    monkeypatch.chdir(inputs.parent)
    monkeypatch.setattr("colpipe.config.parts.Path.exists", lambda path: True)
    change(study)
    with pytest.raises(ColpipeError, match=re.escape(message)):
        load_study(study)
