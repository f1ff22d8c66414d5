"""The kernel's own high-water mark of a process's memory."""

from pathlib import Path


def reset_high_water_mark() -> bool:
    """Begin anew with the kernel's mark; whether that can be done here."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def high_water_mark() -> int:
    """The highest resident set of this process since then, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
