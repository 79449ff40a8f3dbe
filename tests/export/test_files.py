import os
import stat

import pytest

from keras_l0.files import check_destination, write_atomically, write_together


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"first", b"second"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_file_gets_the_permissions_that_files_get(tmp_path):
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "ours", b"x")
    modes = {
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in os.listdir(tmp_path)
    }
    assert len(modes) == 1


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    link = tmp_path / "latest"
    link.symlink_to(tmp_path / "folder" / "a.bin")
    write_atomically(check_destination(link), b"x")
    assert link.is_symlink() and (tmp_path / "folder" / "a.bin").read_bytes() == b"x"


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failure_leaves_all_as_it_was(tmp_path, monkeypatch, function, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"earlier")

    def fail(*args):
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(error):
        write_atomically(path, b"later")
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_of_several_files_all_are_written_or_none(tmp_path):
    first, second = tmp_path / "a.tflite", tmp_path / "folder" / "a.cc"
    first.write_bytes(b"earlier")
    with pytest.raises(FileNotFoundError):
        write_together({first: b"later", second: b"later"})
    assert first.read_bytes() == b"earlier" and os.listdir(tmp_path) == ["a.tflite"]
    second.parent.mkdir()
    write_together({first: b"later", second: b"later"})
    assert first.read_bytes() == second.read_bytes() == b"later"


def test_paths_that_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    os.mkfifo(tmp_path / "pipe")
    for path, error in (
        (tmp_path, IsADirectoryError),
        ("", IsADirectoryError),
        (tmp_path / "missing" / "a.bin", FileNotFoundError),
        (file / "a.bin", NotADirectoryError),
        (None, TypeError),
        (3, TypeError),
        (b"a.bin", TypeError),
        (tmp_path / "a\0.bin", ValueError),
        (os.devnull, ValueError),  # a file in its place would be the system's end
        (tmp_path / "pipe", ValueError),
    ):
        with pytest.raises(error, match="`path` must .*Received: path="):
            check_destination(path)
    for locked in (file, tmp_path):
        monkeypatch.setattr(os, "access", lambda path, mode, no=locked: path != no)
        with pytest.raises(PermissionError, match="`path` must be writable"):
            check_destination(file)
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]
