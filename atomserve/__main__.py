"""Run the command line as ``python -m atomserve``."""

from atomserve.cli import main

if __name__ == "__main__":
    main()
