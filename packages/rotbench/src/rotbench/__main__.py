"""`python -m rotbench` is the command `rotbench`."""

from rotbench.cli import main

if __name__ == "__main__":
    main()
