"""`python -m ropeconv`, which is how `accelerate launch -m ropeconv` starts it."""

from ropeconv.kit.namespaces import drop_current_folder

if __name__ == "__main__":
    drop_current_folder()  # before anything is imported that a file there could hide

    from ropeconv.cli import main

    main()
