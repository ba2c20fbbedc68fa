"""The command line: flags in, progress and tables out."""
