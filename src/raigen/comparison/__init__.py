"""From several runs to what differs between their models.

The public function is `compare`, in `raigen.comparison.compare`.
"""
