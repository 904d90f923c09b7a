"""``python -m cellweft``: the command line."""

from cellweft.cli import main

if __name__ == "__main__":
    main()
