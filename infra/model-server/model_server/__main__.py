"""`python -m model_server`: read the settings, then serve until told to stop."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator

from caravan import tracing
from caravan.intake import raise_open_files
from caravan.telemetry import configure_logging
from model_server.settings import SettingsError, read

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "TOKENS")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what TensorFlow writes while it is imported off the terminal (it heeds no setting yet)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def main() -> int:
    """Return the exit code: 0 after an orderly stop, 2 for bad settings, 1 for anything else."""
    try:
        settings = read(sys.argv[1:])
    except SettingsError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 there is no logging yet
        return 2
    for name in SECRETS:  # the settings have them; the libraries that run models need not
        os.environ.pop(name, None)
    configure_logging(settings.log_level, settings.log_format)
    raise_open_files()
    tracing.start("model-server", settings.traces)
    with _quiet():
        from model_server import app  # noqa: PLC0415 TensorFlow is imported only once the settings are good
    from model_server.errors import ServingError  # noqa: PLC0415 as above

    app.limit_threads(settings)
    try:
        asyncio.run(app.run(settings, started=lambda line: print(line, flush=True)))  # noqa: T201 the start line
    except ServingError as exc:
        print(f"Failed to start server. Error: {exc}", file=sys.stderr)  # noqa: T201 for the operator
        return 1
    except OSError as exc:
        print(f"Failed to start server. Error: {exc}", file=sys.stderr)  # noqa: T201 for the operator
        return 1
    return 0


if __name__ == "__main__":
    # TensorFlow's threads may still be in a request that was abandoned: do not wait for them.
    code = main()
    tracing.stop()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
