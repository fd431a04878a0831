"""The `wsss` command. Signals are heard before anything else is imported, which takes a while."""

import gc
import os
import sys

from wsss_cli.engine.stop import end_at_once, heard


def main() -> None:
    """Run the command line; never returns."""
    end_at_once()
    gc.set_threshold(10_000)  # at Python's 700, loading torch is a thousand collections, of objects that all stay
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for plugins takes long; none is needed
    try:
        from wsss_cli.cli import app  # here, see above

        app.main()
    except SystemExit:
        raise
    except BaseException:  # also what a library has made of it
        if (stopped := heard()) is None:
            raise
        print(f"error: {stopped.error.message}\nhint: {stopped.error.hint}", file=sys.stderr)
        sys.exit(stopped.error.exit_code)


if __name__ == "__main__":
    main()
