"""`stentor serve`: the server itself, in this process until it ends."""

from __future__ import annotations

from server.commands.line import Line, Parser, configuration, warn

ABOUT = """\
Broadcasts what one client says on a channel to every subscriber at once.

commands, of which serve is the default (stentor COMMAND --help tells more):
  serve                       Run the server.
  check                       Check the configuration and print it.
  doctor                      Tell how many clients this machine holds.
  token                       Make a token (JWT) for testing.
  publish                     Publish the lines of standard input.
  listen                      Print what is published."""
EPILOG = """\
Every option exists three ways: --queue-messages 256 on the command line,
STENTOR_QUEUE_MESSAGES=256 in the environment, queue_messages = 256 in the TOML
file. The command line beats the environment, which beats the file, which beats
the default. A list repeats its option, or is JSON in the environment. Times
may be written 500ms, 10s or 1m, and sizes 64KiB or 1MiB."""


def parser() -> Parser:
    """Take every option of the configuration."""
    parser = Parser("serve", ABOUT, epilog=EPILOG)
    parser.add_version()
    parser.add_configuration()
    return parser


def run(line: Line) -> int:
    """Serve until told to stop; return the exit code."""
    settings = configuration(line).settings
    for warning in settings.warnings():
        warn(f"stentor: warning: {warning}")
    # Only here: the other commands do without the event loop and the server's libraries.
    if settings.workers > 1:
        from server.supervisor.supervisor import run as supervise

        return supervise(settings)
    from server.worker import run as serve

    return serve(settings)
