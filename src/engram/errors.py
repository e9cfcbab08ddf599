"""The one exception that stands for a mistake of the person at the keyboard."""


class UserError(ValueError):
    """Something the user asked for can't be done; the message is one line that says what is allowed.

    The command line prints the message without a traceback and exits with code 2. Anything else that
    escapes is a defect of ours and keeps its traceback.
    """
