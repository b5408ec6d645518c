"""`--logger colpipe`: Snakemake finds it by the name of this package. What it says is in `colpipe/pipeline/output.py`."""

import os
import sys
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase


class LogHandler(LogHandlerBase):
    """Writes one line at a time to where Snakemake would, and the last ones when it is closed."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        # Not above: Snakemake loads every plugin at every start, and which colpipe is imported is for the Snakefile to say.
        from colpipe.pipeline.output import Output

        self._output = Output(self.common_settings, self._write)
        self.begin_study = self._output.begin_study

    def _write(self, line: str) -> None:
        stream = sys.stdout if self.common_settings.stdout else sys.stderr
        try:
            print(line, file=stream, flush=True)
        except BrokenPipeError:  # of `colpipe run … -n | head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def emit(self, record: LogRecord) -> None:
        try:
            self._output.take(record)
        except Exception:  # as in logging: a line that cannot be written ends no run
            self.handleError(record)

    def close(self) -> None:
        self._output.end()
        super().close()
