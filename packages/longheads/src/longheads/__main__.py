"""`python -m longheads` is the command `longheads`."""

from longheads.cli import main

if __name__ == "__main__":
    main()
