"""llama.cpp in a process of its own, where a model that it does not take, or a processor, ends nothing else.

python -m tests.unit.export.llama_cpp model.gguf < requests.json     [[path, body], …] → [answer, …]
"""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT


def ask(gguf: Path, *requests: tuple[str, dict]) -> list[dict]:
    """Answers of llama.cpp's server to requests (path, body), in order; the test is skipped where llama.cpp cannot run."""
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")
    command = [sys.executable, "-m", "tests.unit.export.llama_cpp", str(gguf)]
    found = subprocess.run(
        command, input=json.dumps(requests), capture_output=True, text=True, cwd=CHECKOUT, timeout=600
    )
    if found.returncode == -signal.SIGILL:
        pytest.skip("this build of llama.cpp has instructions that this processor lacks")
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 256, 1, 0
    params.warmup, params.fit_params, params.port = False, False, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    answers = []
    for path, body in json.load(sys.stdin):
        request = urllib.request.Request(
            server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            answers.append(json.load(answer))
    print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
