"""`python -m benchmarks.amplification`: every method of amplification against its goals."""

import tyro

from benchmarks.amplification.methods import Options, main

if __name__ == "__main__":
    main(tyro.cli(Options))
