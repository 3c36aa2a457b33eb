"""What every test file may use: the devices that a model runs on; the first lines of a test run."""

import signal

import pytest

import fastbp as bp


def pytest_configure() -> None:
    """Ctrl-C interrupts, also where the tests were started in the background of a shell script.

    Such a process inherits an ignored SIGINT, and a test of Ctrl-C would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    info = bp.info()
    available = ", ".join(info["isas_available"])
    return f"fastbp {info['fastbp']}: isa {info['isa']} of {available}; {info['threads']} threads"


@pytest.fixture(params=["cpu", "reference"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that this version has; a model made with it must say that it runs there."""
    name: str = request.param
    return name
