"""What a table was measured on, and when, in words."""

import os
import platform
from datetime import UTC, datetime


def describe_machine() -> str:
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"


def describe_measurement() -> str:
    return f"Measured on {datetime.now(UTC).date()}, {describe_machine()}"
