"""``python -m criu_train``."""

from criu_train.cli.main import main

if __name__ == "__main__":
    main()
