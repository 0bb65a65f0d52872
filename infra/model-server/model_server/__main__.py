"""`python -m model_server`: read the settings, then serve until told to stop."""

import os
import sys

from caravan import credentials
from caravan.start import imports


def main() -> int:
    """Return the exit code: 0 after an orderly stop, 2 for bad settings, 1 for anything else."""
    environment = credentials.environment()
    # Imported only now, for it may begin anew.
    with imports():
        from caravan import traces, tracing  # noqa: PLC0415
        from caravan.concurrency import run  # noqa: PLC0415
        from caravan.intake import raise_open_files  # noqa: PLC0415
        from caravan.telemetry import configure_logging  # noqa: PLC0415
        from model_server.settings import SettingsError, read  # noqa: PLC0415

    try:
        settings = read(sys.argv[1:], environment)
    except SettingsError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 there is no logging yet
        return 2
    configure_logging(settings.log_level, settings.log_format)
    raise_open_files()
    traces.start("model-server", settings.traces)
    with imports():
        from model_server import app  # noqa: PLC0415 only once the settings are good
        from model_server.errors import ServingError  # noqa: PLC0415 as above

    try:
        run(app.run(settings, started=lambda line: print(line, flush=True)))  # noqa: T201 the start line
    except (ServingError, OSError) as exc:
        print(f"Failed to start server. Error: {exc}", file=sys.stderr)  # noqa: T201 for the operator
        return 1
    finally:
        tracing.stop()
    return 0


if __name__ == "__main__":
    # A model's threads may still be in a request that was abandoned: do not wait for them.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
