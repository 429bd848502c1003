"""What commands print: results on stdout, errors on stderr with an exit status."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import typer
from rich.console import Console
from rich.markup import escape

console = Console()
errors = Console(stderr=True)
_UNBOUNDED = 10_000
if not (console.is_terminal or console.is_jupyter or os.environ.get("COLUMNS", "").isdigit()):
    console.width = _UNBOUNDED  # a log or a pipe has no width to fold texts into

INTERRUPTED = 130
WRONG = 2


def print_json(value: Any) -> None:
    """Prints a JSON-plain value on stdout."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


@contextmanager
def reported(folder: Path | None = None, resumes: str = "") -> Iterator[None]:
    """Turns expected errors and interruptions into a message and an exit status.

    ``folder`` keeps what is finished; ``resumes`` says from where the command resumes.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, FloatingPointError, ImportError, gymnasium.error.Error) as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(WRONG) from error
    except KeyboardInterrupt:
        kept = "" if folder is None else f" What is finished is kept in {folder}; rerun the command to resume."
        errors.print(f"Interrupted.{kept} {resumes}".strip(), soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(INTERRUPTED) from None
