"""Files and folders that are replaced whole, by one process at a time. Knows no model."""
