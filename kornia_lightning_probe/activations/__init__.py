"""What of an activation is compared, and what is known of it. Knows no metric and no engine."""
