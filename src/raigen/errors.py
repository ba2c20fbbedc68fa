"""The one error that raigen raises for a person: what was expected, what came, what to type next."""


class RaigenError(ValueError):
    """Something a user can mend. The message says what was expected, what came and what to do next.

    The command line prints it without a traceback and exits with status 2.
    """
