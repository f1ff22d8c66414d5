"""Results as text for a terminal of 100 columns."""
