"""Takes one run, or all runs of a study, through the stages.

The public function is `audit`, in `raigen.auditing.audit`; `sweep`, in `raigen.auditing.sweep`, audits a study.
"""
