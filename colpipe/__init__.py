"""colpipe: Chain-of-Learngene as a Snakemake pipeline.

`colpipe.linit`, `colpipe.initialise`, `colpipe.fit` and `colpipe.scan` make models in a notebook; see `colpipe/api.py`.
"""

__version__ = "0.2.0"


_API = ("linit", "initialise", "fit", "scan")


def __getattr__(name: str):
    if name in _API:  # torch is imported on first use: planning a study needs none
        from colpipe import api

        return getattr(api, name)
    raise AttributeError(f"module 'colpipe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_API))
