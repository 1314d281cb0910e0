"""`sparsehess` and `python -m sparsehess`: the command line."""

import signal


def main() -> None:
    """Run the command line. Collective on the world communicator."""
    # While modules are imported an interrupt ends this process without a traceback; later it is told.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sparsehess.cli import main as run
    from sparsehess.runtime.process_end import end_within

    run(end_within=end_within)


if __name__ == "__main__":
    main()
