"""`python -m r3` is the command `r3`."""

from r3.cli import main

if __name__ == "__main__":
    main()
