"""Results as matplotlib figures; the only room that knows matplotlib."""
