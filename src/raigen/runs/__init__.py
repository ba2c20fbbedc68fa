"""What lies on disk: run folders, studies, and the files in them."""
