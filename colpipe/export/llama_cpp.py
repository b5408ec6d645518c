"""llama.cpp, where the package xllamacpp is installed, in a process of its own: what a GGUF file answers, and how fast.

python -P colpipe/export/llama_cpp.py model.gguf THREADS CONTEXT < requests.json     [[path, body], …] → [answer, …]

The process is run by the path of this file and imports nothing of colpipe, so that it starts wherever colpipe lies.
"""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# Seconds that each attempt is given: its server has hung, once in some thousand starts.
PATIENCE = (120, 600)
PROMPT, ANSWER = 128, 64  # tokens that the speed is measured on, of models that have so many positions


class LlamaCppError(Exception):
    """llama.cpp did not answer; its words."""


class Speed(NamedTuple):
    """Tokens a second, of one row."""

    prompt: float
    answer: float
    threads: int


def ask(gguf: Path, requests: Sequence[tuple[str, dict]], threads: int = 1, context: int = 256) -> list[dict]:
    """Answers of llama.cpp's server to requests (path, body), in order.

    Args:
        threads: of the processor; accelerators are not used.
        context: tokens, prompt and answer together.

    Raises:
        LlamaCppError: it does not take the file, has instructions that this processor lacks, or takes too long.
    """
    command = [sys.executable, "-P", __file__, str(gguf), str(threads), str(context)]
    for patience in PATIENCE:
        with contextlib.suppress(subprocess.TimeoutExpired):
            found = subprocess.run(
                command, input=json.dumps(requests), capture_output=True, text=True, timeout=patience
            )
            break
    else:
        raise LlamaCppError(f"no answer within {PATIENCE[-1]} seconds")
    if found.returncode == -signal.SIGILL:
        raise LlamaCppError("this build of llama.cpp has instructions that this processor lacks")
    if found.returncode:
        raise LlamaCppError(next(reversed(found.stderr.strip().splitlines()), f"exit code {found.returncode}"))
    return json.loads(found.stdout.splitlines()[-1])


def speed(gguf: Path, vocabulary: int, positions: int, threads: int) -> tuple[Speed | None, str]:
    """How fast a file is read and answers on the processor, and the same in words; no speed where llama.cpp is not
    installed or does not run the file, and why. It is that of the second of two equal requests."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None, "speed not measured: llama.cpp is not installed (pip install 'colpipe[llama-cpp]')"
    prompt = min(PROMPT, positions // 2)
    body = {
        "prompt": [7919 * place % vocabulary for place in range(prompt)],  # any tokens: what they say costs nothing
        "n_predict": min(ANSWER, positions - prompt - 1),
        "ignore_eos": True,
        "cache_prompt": False,
        "temperature": 0,
    }
    try:
        *_, last = ask(gguf, [("/completion", body)] * 2, threads, min(positions, 256))
    except LlamaCppError as error:
        return None, f"speed not measured: llama.cpp: {error}"
    timings = last["timings"]
    found = Speed(round(timings["prompt_per_second"], 1), round(timings["predicted_per_second"], 1), threads)
    how = f"llama.cpp on {threads} thread{'s' * (threads > 1)}"
    return found, f"{found.prompt:,} tokens/s of a prompt, {found.answer:,} of an answer, {how}"


def _serve() -> None:
    import xllamacpp

    path, threads, context = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.n_gpu_layers = int(context), 1, 0
    params.warmup, params.fit_params, params.port = False, False, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(params)
    answers = []
    for where, body in json.load(sys.stdin):
        request = urllib.request.Request(
            server.listening_address + where, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            answers.append(json.load(answer))
    print(json.dumps(answers), flush=True)
    os._exit(0)  # nothing is left to do, and its threads need not end


if __name__ == "__main__":
    _serve()
