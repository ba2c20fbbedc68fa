"""Takes one run, or the runs of a study, through the stages.

The public function is `audit`, in `raigen.auditing.audit`; `sweep` does the same for a study.
"""
