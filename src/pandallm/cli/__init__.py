"""The `panda` command: parse, call, print. Heavy imports happen inside the verbs."""

import sys
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from pandallm import __version__

# Importing the modules of the verbs registers them, in the order of `panda --help`.
from pandallm.cli import (  # noqa: F401  # isort: skip
    runs,
    plan,
    train,
    diff,
    data,
    evaluation,
    compare,
    answers,
    delta,
    legacy,
    release,
    exchange,
    study,
)
from pandallm.cli.app import app, limit_threads, split_arguments
from pandallm.cli.delta import delta_app
from pandallm.errors import PandaError

#: Exit code of Ctrl-C; typer returns it instead of letting KeyboardInterrupt through.
INTERRUPTED = 130

__all__ = ["app", "delta_app", "main", "split_arguments"]


def version(value: bool) -> None:
    if value:
        print(f"pandallm {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Entry point: every expected failure is one sentence on stderr and an exit code."""
    argv = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in argv
    limit_threads(None)
    try:
        code = app([a for a in argv if a != "--debug"], standalone_mode=False, prog_name="panda")
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except PandaError as e:
        if debug:
            raise
        fail(str(e), e.exit_code)
    except TyperException as e:
        fail(usage_sentence(e), 2)
    except (Abort, KeyboardInterrupt):
        fail("Stopped. Run the same command again to go on.", INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as e:
        if debug:
            raise
        fail(f"Unexpected {type(e).__name__}: {e}. Run again with --debug for the traceback, and please report it.", 1)


def usage_sentence(e: TyperException) -> str:
    context = getattr(e, "ctx", None)
    text = e.format_message()
    return f"{text if text.endswith(('.', '?')) else text + '.'} See `{context.command_path if context else 'panda'} --help`."


def fail(sentence: str, code: int) -> None:
    print(f"panda: {sentence}", file=sys.stderr)
    sys.exit(code)
