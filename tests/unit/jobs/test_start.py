"""The shared start: jobs behave as processes of their own, and end without each other."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from colpipe.jobs.start import SHARED
from tests.conftest import CHECKOUT

PROBE = """
import json, os, resource, signal, sys, time
from pathlib import Path

what, folder = sys.argv[1], Path(sys.argv[2])
(folder / "pid").write_text(str(os.getpid()))
(folder / "watcher").write_text(str(os.getppid()))
if what == "tell":
    names = [name for name in sys.modules if name.startswith("colpipe")]
    found = {"argv": sys.argv, "orig": sys.orig_argv, "cwd": os.getcwd(), "path": sys.path, "umask": os.umask(0o22)}
    found |= {"stdin": sys.stdin.read(), "environment": dict(os.environ), "main": __name__, "modules": sorted(names)}
    found |= {"signals": [str(signal.getsignal(number)) for number in range(1, 32)]}
    found |= {"mask": str(signal.pthread_sigmask(0, [])), "limits": [resource.getrlimit(number) for number in range(10)]}
    found |= {"spec": __spec__.name, "safe": sys.flags.safe_path, "files": sorted(os.listdir("/proc/self/fd"))}
    found |= {"buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering]}
    print(json.dumps(found))
elif what == "fill":
    filled = b"x" * 300_000_000
elif what == "stop":
    def stop(number, _):
        print("told to stop", number, flush=True)
        sys.exit(143)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, stop)
if what in ("wait", "stop"):
    (folder / "ready").touch()
    while not (folder / "go").exists():
        time.sleep(0.005)
    print("went on")
elif what == "raise":
    raise ValueError("of no use")
elif what == "kill":
    os.kill(os.getpid(), int(sys.argv[3]))
elif what == "exit":
    sys.exit(int(sys.argv[3]) if sys.argv[3].isdecimal() else sys.argv[3])
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A package called colpipe with the start and a stage `probe`; its server loads no library."""
    home = tmp_path_factory.mktemp("home")
    for name in ("__init__.py", "jobs/__init__.py", "jobs/start.py", "jobs/serve.py", "stages/__init__.py"):
        (home / "colpipe" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / "colpipe" / name, home / "colpipe" / name)
    server = home / "colpipe/jobs/serve.py"
    text, count = re.subn(r"LIBRARIES = \(.*?\n\)", "LIBRARIES = ('json',)", server.read_text(), flags=re.DOTALL)
    assert count == 1
    server.write_text(text)
    for name in ("probe", "fetch_probe"):
        (home / f"colpipe/stages/{name}.py").write_text(PROBE)
    return home


@pytest.fixture
def world(home, tmp_path):
    """`begin` starts a job, in a folder of its own; `owner`: the process whose jobs share their start."""
    # what a shell's background or nohup has ignored would stay so in the processes of these tests
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGHUP)}
    owner = subprocess.Popen(["sleep", "1000"])
    begun: list[subprocess.Popen] = []

    def begin(what: str, *arguments: str, stage: str = "probe", shared: bool = True, **environment: str):
        folder = tmp_path / str(len(begun))
        folder.mkdir()
        variables = {name: value for name, value in os.environ.items() if name != SHARED}
        variables |= {"PYTHONPATH": str(home), **({SHARED: str(owner.pid)} if shared else {}), **environment}
        command = [sys.executable, "-P", "-m", "colpipe.jobs.start", stage, what, str(folder), *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, env=variables, **pipes)
        process.folder = folder
        begun.append(process)
        return process

    def ready(what: str = "wait", **environment: str):
        process = begin(what, **environment)
        until(lambda: (process.folder / "ready").exists() and catches(process.pid, signal.SIGTSTP))
        return process

    yield SimpleNamespace(begin=begin, ready=ready, owner=owner, home=home)
    for process in (owner, *begun):
        process.kill()
        process.communicate()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    until(lambda: not servers(home))


def catches(process: int, number: int) -> bool:
    """Whether a process handles a signal; the start does so last with SIGTSTP, when its job may be at work already."""
    mask = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text())[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


def until(found, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.005)


def servers(home: Path) -> set[int]:
    """Servers of a checkout, without the processes forked from them."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = parent_of(int(folder.name))
        except OSError:
            continue
        if str(home / "colpipe/jobs/serve.py").encode() in words:
            found[int(folder.name)] = parent
    return {number for number, parent in found.items() if parent not in found}


def parent_of(number: int) -> int:
    status = Path(f"/proc/{number}/status").read_text()
    return int(re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)[1])


def lives(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def number_in(process, name: str = "pid") -> int:
    return int((process.folder / name).read_text())


def let_go(process) -> tuple[str, str]:
    (process.folder / "go").touch()
    return process.communicate()


def test_a_fork_is_what_a_process_of_its_own_is(world):
    told = []
    for shared in (True, False):
        process = world.begin("tell", "a b", "", stage="probe", shared=shared, SOME="thing")
        out, err = process.communicate("typed")
        assert process.returncode == 0 and not err
        told.append(json.loads(out))
        told[-1]["environment"].pop(SHARED, None)
        for name in ("argv", "orig"):
            told[-1][name].remove(str(process.folder))
    assert told[0] == told[1]
    assert told[0]["environment"]["SOME"] == "thing" and told[0]["stdin"] == "typed"
    assert told[0]["modules"] == ["colpipe", "colpipe.jobs", "colpipe.jobs.start", "colpipe.stages"]


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit words", 1),
        ("raise", 1),
        ("kill 9", -9),
        ("kill 15", -15),
        ("kill 6", -6),
        ("kill 2", -2),
    ],
    ids=str,
)
def test_ends_as_a_process_of_its_own(world, what, status):
    said = []
    for shared in (True, False):
        process = world.begin(*what.split(), shared=shared)
        said.append(process.communicate()[1].splitlines()[-1:])
        assert process.returncode == status
    assert said[0] == said[1]


def test_one_server_for_one_environment(world):
    first, second = world.ready(), world.ready()
    other = world.ready(OMP_NUM_THREADS="7")
    assert len(servers(world.home)) == 2
    for process in (first, second, other):
        out, err = let_go(process)
        assert (process.returncode, out, err) == (0, "went on\n", "")


def test_many_at_once_start_one_server(world):
    processes = [world.begin("wait") for _ in range(8)]
    until(lambda: all((process.folder / "ready").exists() for process in processes))
    assert len({parent_of(number_in(process, "watcher")) for process in processes}) == 1
    until(lambda: len(servers(world.home)) == 1)  # the others find the name taken and end, some after the jobs
    for process in processes:
        out, err = let_go(process)
        assert (process.returncode, out, err) == (0, "went on\n", "")


def test_a_name_that_is_taken_and_not_listened_at_is_waited_for(world):
    """What a job meets when another's server has its name and has not come to listen yet, under load."""
    names = "import os, sys; from colpipe.jobs import start; print(start.key_of_environment(int(sys.argv[1])))"
    variables = {**os.environ, "PYTHONPATH": str(world.home), SHARED: str(world.owner.pid)}
    command = [sys.executable, "-P", "-c", names, str(world.owner.pid)]
    name = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as taken:
        taken.bind(f"\0colpipe-start-{name}")
        process = world.begin("exit", "5")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    assert process.communicate()[1] == "" and process.returncode == 5
    assert len(servers(world.home)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP], ids=lambda number: number.name)
def test_signals_are_passed_on(world, number):
    process, neighbour = world.ready("stop"), world.ready()
    process.send_signal(number)
    out, _ = process.communicate()
    assert (process.returncode, out) == (143, f"told to stop {int(number)}\n")
    assert let_go(neighbour)[0] == "went on\n"


def test_an_interrupt_ends_it_as_an_interrupt(world):
    process = world.ready()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGINT and err.endswith("KeyboardInterrupt\n")


def test_it_stops_and_goes_on_with_its_job(world):
    process = world.ready()

    def stopped(number: int) -> bool:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    process.send_signal(signal.SIGTSTP)
    until(lambda: stopped(process.pid) and stopped(number_in(process)))
    process.send_signal(signal.SIGCONT)
    assert let_go(process)[0] == "went on\n"


def test_a_killed_client_takes_its_job_with_it_and_no_other(world):
    process, neighbour = world.ready(), world.ready()
    process.kill()
    until(lambda: not lives(number_in(process)))
    assert let_go(neighbour)[0] == "went on\n" and neighbour.returncode == 0


@pytest.mark.parametrize("victim", ["pid", "watcher"])
def test_a_killed_job_ends_its_client_and_no_other(world, victim):
    process, neighbour = world.ready(), world.ready()
    os.kill(number_in(process, victim), signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    until(lambda: not lives(number_in(process)))
    assert let_go(neighbour)[0] == "went on\n" and neighbour.returncode == 0
    assert world.begin("exit", "4").wait() == 4


def test_a_killed_server_ends_no_job_and_is_started_again(world):
    process, victim = world.ready(), world.ready("stop")
    [server] = servers(world.home)
    os.kill(server, signal.SIGKILL)
    until(lambda: not lives(server))
    again = world.begin("exit", "6")
    assert again.wait() == 6 and not again.stderr.read()
    victim.send_signal(signal.SIGTERM)
    assert victim.wait() == 143
    assert let_go(process)[0] == "went on\n" and process.returncode == 0


def test_the_server_ends_with_its_owner_and_jobs_do_not(world):
    process = world.ready()
    [server] = servers(world.home)
    world.owner.kill()
    world.owner.wait()
    until(lambda: not lives(server))
    assert let_go(process)[0] == "went on\n" and process.returncode == 0
    until(lambda: not servers(world.home))


def test_without_a_server_the_stage_starts_on_its_own_and_says_so(world):
    world.owner.kill()
    world.owner.wait()
    process = world.begin("exit", "3")
    _, err = process.communicate()
    assert process.returncode == 3
    assert err == "probe: there is no shared start: the stage loads its libraries itself\n"
    assert number_in(process) == process.pid


def test_a_server_that_is_killed_while_it_loads(world):
    server = world.home / "colpipe/jobs/serve.py"
    text = server.read_text()
    server.write_text(text.replace("    gc.collect()\n", "    os.kill(os.getpid(), signal.SIGKILL)\n"))
    try:
        process = world.begin("exit", "3")
        _, err = process.communicate()
    finally:
        server.write_text(text)
    assert process.returncode == 3 and "there is no shared start" in err


def test_stages_that_use_a_network_start_on_their_own(world):
    process = world.begin("tell", stage="fetch_probe", HF_HUB_OFFLINE="0")
    out, err = process.communicate("")
    assert process.returncode == 0 and not err and not servers(world.home)
    assert json.loads(out)["environment"]["HF_HUB_OFFLINE"] == "0"


def test_code_that_is_edited_meanwhile_is_what_runs(world):
    assert world.begin("exit", "0").wait() == 0
    stage = world.home / "colpipe/stages/new.py"
    stage.write_text("import sys\nsys.exit(11)\n")
    assert world.begin("", stage="new").wait() == 11
    stage.write_text("import sys\nsys.exit(121)\n")
    assert world.begin("", stage="new").wait() == 121
    assert len(servers(world.home)) == 1


def test_memory_of_jobs_is_given_back(world):
    def held() -> int:
        [server] = servers(world.home)
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server}/status").read_text())[1])

    assert world.begin("exit", "0").wait() == 0
    before = held()
    processes = [world.begin("fill") for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert held() - before < 1000  # kB
    until(lambda: not any(lives(number_in(process, "watcher")) for process in processes))
