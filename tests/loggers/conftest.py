"""Loggers that are heavy to install are tested only where they are: in the environment ``loggers``."""

from importlib.util import find_spec

collect_ignore = [f"test_{module}.py" for module in ("wandb", "mlflow") if find_spec(module) is None]
