"""From a finished run or study to files that an auditor hands in, and to a gate for continuous integration.

The public functions are `dossier`, in `raigen.dossier.dossier`, and `check`, in `raigen.dossier.check`.
"""
