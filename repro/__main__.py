"""The program's entry point. Ctrl-C ends it alike during the imports and later; a fault has its own exit code."""

import os
import sys

# Looking for plugins of the validation library reads the metadata of every installed package, on every start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Run the command line. The exit code is 130 on Ctrl-C at any time, and 70 on a fault of ours: 1 is a verdict."""
    try:
        from repro.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.stderr.write("repro: interrupted\n")
        sys.exit(130)
    except Exception:  # noqa: BLE001 - whatever it is, nobody refuted anything
        import traceback

        from repro.problem import BROKEN

        traceback.print_exc()
        sys.stderr.write("repro: this is a fault of the program; what was measured before it is kept\n")
        sys.exit(BROKEN)


if __name__ == "__main__":
    main()
