"""``python -m layertap``: the command line without the installed script."""

from layertap.cli import main

if __name__ == "__main__":
    main(prog_name="python -m layertap")
