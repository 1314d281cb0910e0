"""The parser of the command line, for its page: flags with the names of their values, as `--help` shows them."""

import argparse

from sparsehess import cli


def parser() -> argparse.ArgumentParser:
    """Return the parser, the last name of each flag followed by its value."""
    whole = cli.parser()
    for command in whole._subparsers._group_actions[0].choices.values():
        for flag in command._actions:
            if flag.option_strings and flag.nargs != 0 and flag.metavar:
                words = flag.metavar if isinstance(flag.metavar, tuple) else (flag.metavar,)
                flag.option_strings = [*flag.option_strings[:-1], " ".join((flag.option_strings[-1], *words))]
    return whole
