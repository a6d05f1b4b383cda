"""The program's door: an interrupt while the modules are still being read ends as one later does; a fault as itself."""

import os
import sys

# Looking for plugins of the validation library reads the metadata of every installed package, on every start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Run the command line; exit code 130 on Ctrl-C, whenever it comes; 70 on a fault of ours, as 1 is a verdict."""
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
