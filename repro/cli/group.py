"""How the command line behaves: it suggests near names, and reports what a user can put right in one clear line."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from repro.problem import DONE, INTERRUPTED, WRONG_USE, Problem, suggest


class Usage(click.ClickException):
    """A Problem as click shows it: a clear line, exit code 2."""

    exit_code = WRONG_USE

    def show(self, file: Any = None) -> None:
        """Print every line of the message behind the program's name."""
        with suppress(OSError):  # nobody reads stderr: the exit code still tells
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


WORKING = {"claim", "all", "bench", "publish", "prepare"}
"""Commands that do more than print: one that stops because nobody reads its output has not done its work."""


OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EINVAL}
"""What ails an output that cannot be written, say one that goes to a full disk or was closed."""


class _Unread(Exception):
    """The reader of the output left while a command of ``WORKING`` was still printing."""


def _unfinished(callback: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(callback)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return callback(*args, **kwargs)
        except BrokenPipeError as error:
            raise _Unread from error

    return call


@contextmanager
def _at_the_door() -> Iterator[None]:
    """End a command that cannot go on with one line and the exit code that belongs to it.

    An interrupt is no fault of ours, nor is a reader that left (``| head``): a command that only prints is then done.
    """
    try:
        with _plainly():
            yield
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        _interrupted("")
    except _Unread:
        _drop_output()
        _interrupted(": nobody reads the output any more; run the same command again to continue")
    except BrokenPipeError as error:
        _drop_output()
        raise click.exceptions.Exit(DONE) from error
    except OSError as error:
        if error.filename is not None or error.errno not in OUTPUT:
            raise  # of something else, which is a fault of ours not to have told
        _drop_output()
        raise Usage(f"cannot write the output: {error}") from error


def _drop_output() -> None:
    """Discard what is still in the output's buffer, because it can no longer be written."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted(why: str) -> NoReturn:
    with suppress(OSError):  # the reader of stderr may have left too
        click.echo(f"repro: interrupted{why}", err=True)
    raise click.exceptions.Exit(INTERRUPTED)


class Group(click.Group):
    """A command group that reports what a user can put right in one clear line each, and suggests near names."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the group's own options."""
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # not every terminal can encode “ and ∞
        with _at_the_door():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _at_the_door():
            return super().invoke(ctx)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command; one of ``WORKING`` counts as interrupted when its output is no longer read."""
        if cmd.name in WORKING and cmd.callback is not None:
            cmd.callback = _unfinished(cmd.callback)
        super().add_command(cmd, name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or name the nearest one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise Usage(f"no command {args[0]!r}{suggest(args[0], known)}; the commands are {', '.join(known)}")
        return super().resolve_command(ctx, args)
