"""How the jobs of a study went: which attempts failed, were stopped, or went on from a state."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from colpipe.jobs.job import EVENTS

BROKEN = ("failed", "stopped", "resumed")  # the kinds that mean another attempt


class Event(NamedTuple):
    """Something that happened to a job.

    Attributes:
        when: local time of the machine that ran it.
        job: its folder under the results.
        kind: as in `colpipe.jobs.job.EventKind`, without `done`.
        text: what the job said.
        ended: whether it finished after that.
    """

    when: str
    job: str
    kind: str
    text: str
    ended: bool


def read_events(results: Path) -> list[Event]:
    """What the records under `work/` tell of attempts that did not simply go through, in the order of time."""
    work = results / "work"
    events = []
    for path in work.rglob(EVENTS):
        job = path.parent.relative_to(work).as_posix()
        records = list(_read_records(path))
        last_done = max((number for number, record in enumerate(records) if record["kind"] == "done"), default=-1)
        seen = set()
        for number, record in enumerate(records):
            kind, text = record["kind"], re.sub(rf"\S*work/{re.escape(job)}/", "", _shorten(record["text"]))
            if kind == "done" or (kind == "state not used" and text in seen):  # every attempt names what it finds again
                continue
            seen.add(text)
            events.append(Event(record["when"], "report" if job == "." else job, kind, text, number < last_done))
    return sorted(events, key=lambda event: event.when)  # those of one second stay in their order


def _read_records(path: Path) -> Iterator[dict]:
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError):  # cut short by a kill or a full disk
            yield json.loads(line)


def _shorten(text: str) -> str:
    """A traceback's last line, which names the error; anything else as it is."""
    lines = text.strip().splitlines()
    return lines[-1] if lines[0].startswith("Traceback") else text.strip().removeprefix("error: ")
