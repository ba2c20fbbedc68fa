"""What makes the site; no part of the package."""
