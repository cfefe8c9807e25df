"""`python -m ebbflow.cli` is the `ebbflow` command."""

from ebbflow.cli import main

if __name__ == "__main__":
    main()
