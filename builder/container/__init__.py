"""Images to running processes."""
