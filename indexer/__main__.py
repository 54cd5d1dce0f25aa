"""`python -m indexer`: the same as the console script."""

from indexer.cli.main import main

if __name__ == "__main__":  # processes of its own import it again
    main()
