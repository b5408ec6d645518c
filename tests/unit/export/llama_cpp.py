"""llama.cpp for tests, which are skipped where it cannot run."""

from pathlib import Path

import pytest

from colpipe.export import llama_cpp


def ask(gguf: Path, *requests: tuple[str, dict]) -> list[dict]:
    """Answers of llama.cpp's server to requests (path, body), in order."""
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")
    try:
        return llama_cpp.ask(gguf, requests)
    except llama_cpp.LlamaCppError as error:
        if "this processor lacks" in str(error):
            pytest.skip(str(error))
        raise
