import os
import stat
import tempfile

import platformdirs
import pytest

from engram.cache import default_cache


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """As for a bare user id in a container: there is nothing that `~` could stand for."""
    monkeypatch.delenv("ENGRAMCTL_CACHE", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: f"~/.cache/{name}")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"engramctl-{os.getuid()}"


def test_the_cache_of_a_user_without_a_home_is_private(homeless):
    assert default_cache() == default_cache() == homeless
    assert stat.S_IMODE(homeless.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_home_that_is_named_but_can_not_be_made(homeless, monkeypatch):
    """As of `nobody`, whose home is /nonexistent."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: f"/nonexistent/.cache/{name}")
    assert default_cache() == homeless


def test_a_home_that_may_not_be_written(homeless, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: f"/nonexistent/.cache/{name}")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert default_cache() == homeless


def test_a_home_that_may(homeless, tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "home/.cache" / name))
    assert default_cache() == tmp_path / "home/.cache/engramctl"


def test_a_folder_that_others_can_write_is_refused(homeless, monkeypatch):
    homeless.mkdir()
    homeless.chmod(0o777)
    with pytest.raises(PermissionError, match="not this user's alone; set ENGRAMCTL_CACHE or TMPDIR"):
        default_cache()
    monkeypatch.setenv("ENGRAMCTL_CACHE", "/elsewhere")
    assert str(default_cache()) == "/elsewhere"


def test_a_folder_that_cannot_be_made_is_one_line(homeless, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(homeless / "missing"))
    with pytest.raises(PermissionError, match="can't be made"):
        default_cache()
