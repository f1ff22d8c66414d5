"""Results as text, figures and curves. Knows no engine and no metric."""
