"""`python -m ropeconv`, which is how `accelerate launch -m ropeconv` starts it."""

from ropeconv.cli import main

if __name__ == "__main__":
    main()
