"""From a run to one HTML page, with its tables, figures and model card.

The stage is `report`, in `raigen.report.report`.
"""
