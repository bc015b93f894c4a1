"""The one exception whose text is meant for the person at the terminal."""


class ClusterError(Exception):
    """Something the user can act on; printed as one message, without a traceback.

    ``exit_code`` follows the usual convention of the command line: 1 for a
    failure, 2 for a machine or an invocation that cannot work.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
