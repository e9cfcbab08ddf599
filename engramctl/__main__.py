"""`python -m engramctl`"""

from engramctl.cli import app

if __name__ == "__main__":
    app(prog_name="engramctl")
