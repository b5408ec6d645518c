"""The `colpipe` command: it prepares and inspects, Snakemake runs.

Each command is a module of `colpipe/tools/`, imported when it is asked for.
"""

import os
import select
import sys
from collections.abc import Sequence
from importlib import import_module

import colpipe
from colpipe.errors import ColpipeError, first_line, near

COMMANDS = {  # in the order of use: command → module of colpipe/tools, what it does
    "doctor": ("doctor", "what this machine has and lacks"),
    "init": ("init", "a study from your model, your text and the sizes you want"),
    "estimate": ("estimate", "what a study costs, before it is spent"),
    "run": ("run", "a study, by Snakemake: targets and options are passed on"),
    "show": ("show", "what a study has come to: its table, its models, the next command"),
    "export": ("export", "a model as GGUF files, for llama.cpp and Ollama"),
    "push": ("push", "a published model to the Hugging Face hub, with its card"),
    "fit": ("fit", "one smaller model out of yours, fitted to it on some text; nothing is trained"),
    "cut": ("cut", "the same without the fit, or out of an elastic member as it was trained there"),
    "plan": ("plan", "a shape of so many parameters between two models"),
    "family": ("family", "the table that another family of models would need"),
    "scan": ("candidates", "many sizes of one model, fitted and scored, best first"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        run(words[0] if words else "--help", words[1:])
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError as error:
        sys.exit(141 if _reader_has_ended() else f"colpipe: error: {first_line(error)}")


def _reader_has_ended() -> bool:
    """Whether nobody reads the output any more, as behind `| head`; Python would complain of that once more at its end."""
    output = select.poll()
    output.register(sys.stdout, 0)
    if output.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def run(command: str, words: Sequence[str]) -> None:
    """One command; mistakes end it with a line."""
    if command in ("-h", "--help"):
        print(usage())
    elif command == "--version":
        print(f"colpipe {colpipe.__version__}")
    elif command not in COMMANDS:
        meant = near(command, COMMANDS) or f"there are {', '.join(COMMANDS)}"
        sys.exit(f"colpipe: error: {command!r} is no command; {meant}")
    else:
        module = import_module(f"colpipe.tools.{COMMANDS[command][0]}")
        try:
            module.main(words)
        except BrokenPipeError:
            raise
        except (ColpipeError, OSError) as error:
            sys.exit(f"colpipe {command}: error: {error if isinstance(error, ColpipeError) else first_line(error)}")
        except KeyboardInterrupt:
            sys.exit(130)


def usage() -> str:
    """All commands, a line each."""
    lines = "\n".join(f"  {name:<10}{about}" for name, (_, about) in COMMANDS.items())
    return (
        "usage: colpipe COMMAND …\n\nSmall language models of any size, made from one large one.\n\n"
        f"{lines}\n\ncolpipe COMMAND --help shows its options and an example."
    )


if __name__ == "__main__":
    main()
