"""`python -m stablenet COMMAND ...`: what `stablenet COMMAND ...` does."""

from stablenet.cli import main

if __name__ == "__main__":
    main()
