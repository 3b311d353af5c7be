"""``python -m memest`` is the command ``memest``."""

from memest.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
