"""What raigen is measured by: discovery against planted truth, and speed side by side."""
