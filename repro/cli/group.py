"""How the command line behaves: near names for a wrong one, one clear line for what a user can put right."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from repro.problem import DONE, INTERRUPTED, WRONG_USE, Problem, suggest


class Usage(click.ClickException):
    """A Problem as click shows it: a clear line, exit code 2."""

    exit_code = WRONG_USE

    def show(self, file: Any = None) -> None:
        """Print every line of the message behind the program's name."""
        for line in self.message.splitlines():
            click.echo(f"repro: {line}", err=True, file=file)


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn errors that a user can put right into Usage: exit code 2, one line each, never a traceback."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "repro"
        raise Usage(f"{error.format_message().rstrip('.')}; see `{path} --help`") from error
    except Problem as error:
        raise Usage(str(error)) from error


class Group(click.Group):
    """A command group that turns what a user can put right into one clear line each, and knows near names."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the group's own options."""
        with _plainly():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a stop or a reader that left is no fault of ours."""
        try:
            with _plainly():
                result = super().invoke(ctx)
                if sys.stdout is not None:
                    sys.stdout.flush()
                return result
        except KeyboardInterrupt:
            click.echo("repro: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if sys.stdout is not None:  # what is still in its buffer has nowhere to go
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                ctx.exit(DONE)
            raise Usage(f"cannot write the output: {error}") from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or name the nearest one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise Usage(f"no command {args[0]!r}{suggest(args[0], known)}; there are {', '.join(known)}")
        return super().resolve_command(ctx, args)
