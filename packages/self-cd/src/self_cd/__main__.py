"""`python -m self_cd` is the command `self-cd`."""

from self_cd.cli import main

if __name__ == "__main__":
    main()
