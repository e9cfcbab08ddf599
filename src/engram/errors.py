"""Mistakes of whoever uses the program or the library."""


class UserError(ValueError):
    """Something the user asked for can't be done; the message is one line that says what is allowed.

    A command line prints the message without a traceback. Anything else that escapes is a bug and keeps its traceback.
    """

    exit_code = 2
    """That of a command which ends with it."""


class FieldError(UserError):
    """A `UserError` about one argument or config field; its message starts with the name.

    A caller that knows the field by another name, such as a command-line option, puts that in its place.

    Args:
        field: snake_case name of the argument or field.
        rest: what follows the name, e.g. "is 0; it must be more than 0".
    """

    def __init__(self, field: str, rest: str) -> None:
        super().__init__(field, rest)  # both, so that it can be pickled
        self.field, self.rest = field, rest

    def __str__(self) -> str:
        return f"{self.field} {self.rest}"
