"""For pytest: a process ends at an error that poisons its device, and says what it has done so far.

CUDA gives the same error to every call after one that failed on the device, so that tests that follow in the process
would all fail for the one that did it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

STICKY = (
    "cudaErrorIllegalAddress",
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorMisalignedAddress",
    "cudaErrorIllegalInstruction",
    "cudaErrorHardwareStackError",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorECCUncorrectable",
    "cudaErrorAssert",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
)
"""Errors after which only a new process helps."""

ENDED = ": its process ended"
"""What follows the name of a test that ended its process."""

REASON = 1500
"""Last characters that are kept of what a test failed with."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--done", help="a JSON file of the tests that ended, by outcome; those in it are not run again")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--done"):
        config.pluginmanager.register(Done(Path(config.getoption("--done"))))


class Done:
    """Keeps the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, Any] = {"passed": [], "failed": [], "skipped": [], "running": "", "reasons": {}}
        if path.exists():
            self.told |= json.loads(path.read_text(encoding="utf-8"))
        if self.told["running"]:  # it killed the process
            self.told["failed"].append(f"{self.told['running']}{ENDED}")
        self.told |= {"running": "", "poisoned": ""}
        self.before = {name.removesuffix(ENDED) for kind in ("passed", "failed", "skipped")
                       for name in self.told[kind]}  # fmt: skip

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self.before]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.told["running"] = nodeid
        self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            if report.nodeid not in self.told[report.outcome]:
                self.told[report.outcome].append(report.nodeid)
            text = str(report.longrepr)
            if report.failed:
                self.told["reasons"][report.nodeid] = text[-REASON:]
            if report.failed and any(error in text for error in STICKY):
                self.told["poisoned"] = report.nodeid

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.told["running"] = ""
        self._write()
        if self.told["poisoned"]:
            pytest.exit(f"the device is poisoned by {nodeid}", returncode=3)

    def _write(self) -> None:
        self.path.write_text(json.dumps(self.told), encoding="utf-8")
