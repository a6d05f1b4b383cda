"""The program's door: an interrupt while the modules are still being read ends as one later does."""

import os
import sys

# Looking for plugins of the validation library reads the metadata of every installed package, on every start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Run the command line; exit code 130 on Ctrl-C, whenever it comes."""
    try:
        from repro.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.stderr.write("repro: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
