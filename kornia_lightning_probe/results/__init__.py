"""The numbers: found by name, compared, written and read. Knows no report."""
