"""The pictures of probes, each drawn only where something takes it."""
