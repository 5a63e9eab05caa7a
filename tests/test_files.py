"""Files that appear whole or not at all, and of which several programs create each only once."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drct.errors import DRCTError
from drct.files import AlreadyExistsError, write_bytes


@pytest.fixture(params=["with hard links", "without"])
def file_system(request, workplace, monkeypatch):
    def no_link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "without":  # such as FAT
        monkeypatch.setattr(os, "link", no_link)
    return workplace


def test_of_many_programs_that_create_a_file_one_succeeds(file_system):
    def create(number):
        made = []
        for name in range(20):
            try:
                write_bytes(f"out/{name}", str(number).encode() * 1000, replace=False)
                made.append(name)
            except AlreadyExistsError as error:
                assert str(error) == f"{Path('out', str(name))} exists"
        return made

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(8)))
    assert sorted(name for names in made for name in names) == list(range(20))
    for number, names in enumerate(made):
        for name in names:
            assert Path("out", str(name)).read_bytes() == str(number).encode() * 1000
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(map(str, range(20)))


def test_what_exists_is_replaced_only_if_it_may_be(file_system):
    write_bytes("file", b"first")
    with pytest.raises(AlreadyExistsError):
        write_bytes("file", b"second", replace=False)
    Path("nowhere").symlink_to("missing")
    with pytest.raises(AlreadyExistsError):
        write_bytes("nowhere", b"second", replace=False)
    assert Path("file").read_bytes() == b"first"
    write_bytes("file", b"third")
    assert Path("file").read_bytes() == b"third"
    assert sorted(path.name for path in Path().iterdir()) == ["file", "nowhere"]
    with pytest.raises(DRCTError, match="cannot write"):
        write_bytes("file/below", b"", replace=False)


def test_a_created_file_has_the_permissions_of_others(file_system):
    write_bytes("created", b"", replace=False)
    Path("other").write_bytes(b"")
    assert Path("created").stat().st_mode == Path("other").stat().st_mode
    assert Path("created").stat().st_nlink == 1
