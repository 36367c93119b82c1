import pytest


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Until the first real client is here, that there is none is no failure.
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
