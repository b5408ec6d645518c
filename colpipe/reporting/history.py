"""How the jobs of a study went: which attempts failed, were stopped or went on from a state."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (.*)")
# What a line of a log says when an attempt did not simply go through, in the words of colpipe/job.py and the trainer.
KINDS = {
    "failed": re.compile(r"error: |Traceback "),
    "stopped": re.compile(r".*: state saved; the same command goes on from here"),
    "resumed": re.compile(r".*\bresumes (at|after) "),
    "state not used": re.compile(r"set aside |.* damaged: not used"),
    "replaced by hand": re.compile(r".* is not what its manifest says"),
}
BROKEN = ("failed", "stopped", "resumed")  # the kinds that mean another attempt
DONE = re.compile(r"done in [\d,.]+ s")


class Event(NamedTuple):
    """Something that happened to a job.

    Attributes:
        when: local time of the machine that ran it.
        job: its folder under the results.
        kind: one of `KINDS`.
        text: what its log says.
        ended: whether it finished after that.
    """

    when: str
    job: str
    kind: str
    text: str
    ended: bool


def events(results: Path) -> list[Event]:
    """What the lasting logs under `work/` tell of attempts that did not simply go through, in the order of time."""
    work, found = results / "work", []
    for log in work.rglob("log.txt"):
        job = log.parent.relative_to(work).as_posix()
        told = set()
        entries = list(_entries(log.read_text(errors="replace")))
        last_done = max((number for number, (_, text) in enumerate(entries) if DONE.match(text)), default=-1)
        for number, (when, text) in enumerate(entries):
            kind = next((kind for kind, words in KINDS.items() if words.match(text)), None)
            text = re.sub(rf"\S*work/{re.escape(job)}/", "", _short(text))
            if kind and not (kind == "state not used" and text in told):  # every attempt names what it finds again
                told.add(text)
                found.append(Event(when, "report" if job == "." else job, kind, text, number < last_done))
    return sorted(found, key=lambda event: event.when)  # those of one second stay as their log has them


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """(time, text) of every entry of a log; one may have several lines."""
    when, lines = "", []
    for line in text.splitlines():
        if match := LINE.fullmatch(line):
            if when:
                yield when, "\n".join(lines)
            when, lines = match[1], [match[2]]
        else:
            lines.append(line)
    if when:
        yield when, "\n".join(lines)


def _short(text: str) -> str:
    """A traceback's last line, which names the error; anything else as it is."""
    lines = text.strip().splitlines()
    return lines[-1] if lines[0].startswith("Traceback") else text.strip().removeprefix("error: ")
