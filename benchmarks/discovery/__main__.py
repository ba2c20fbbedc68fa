"""`python -m benchmarks.discovery`: discovery against planted truth."""

import tyro

from benchmarks.discovery.planted_truth import Options, main

if __name__ == "__main__":
    main(tyro.cli(Options))
