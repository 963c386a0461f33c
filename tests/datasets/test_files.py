"""The search order of dataset files, their checksums, and what is said when one is missing."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pooch
import pytest
import requests

from seqdyn.datasets import files
from seqdyn.datasets.files import DataFile, find

CONTENT = b"day,value\n2024-01-01,1\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = DataFile("folder/table.csv", SHA256, "https://example.org/table.csv")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty folders for the four places a file may be in, and no network."""
    folders = {name: tmp_path / name for name in ("embedded", "data", "cache")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setattr(files, "_EMBEDDED", folders["embedded"])
    monkeypatch.setenv("SEQDYN_DATA", str(folders["data"]))
    monkeypatch.setenv("SEQDYN_CACHE", str(folders["cache"]))
    monkeypatch.setattr(pooch, "HTTPDownloader", _no_network)
    return folders


def _no_network(**options: float) -> None:
    raise AssertionError("the network must not be used here")


def _serve(content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let downloads deliver ``content``; returns the list of addresses asked for."""
    asked = []

    def downloader(*, timeout: float, chunk_size: int):
        assert 0 < timeout <= 30

        def fetch(url: str, output: str, _: object) -> None:
            asked.append(url)
            Path(output).write_bytes(content)

        return fetch

    monkeypatch.setattr(pooch, "HTTPDownloader", downloader)
    return asked


def _put(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / FILE.path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_embedded_file_comes_before_the_data_folder_and_the_cache(places: dict[str, Path]) -> None:
    embedded = places["embedded"] / "table.csv"
    embedded.write_bytes(CONTENT)
    _put(places["data"])
    _put(places["cache"])

    assert find(FILE) == embedded


def test_the_data_folder_comes_before_the_cache(places: dict[str, Path]) -> None:
    here = _put(places["data"])
    _put(places["cache"])

    assert find(FILE) == here


def test_the_cache_comes_before_a_download(places: dict[str, Path]) -> None:
    path = _put(places["cache"])

    assert find(FILE) == path


def test_an_embedded_file_is_found_when_the_data_folder_is_wrong(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQDYN_DATA", "/no/such/folder")
    (places["embedded"] / "table.csv").write_bytes(CONTENT)

    assert find(FILE).parent == places["embedded"]


def test_a_download_goes_to_the_cache_and_is_used_again(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _serve(CONTENT, monkeypatch)

    first, second = find(FILE), find(FILE)

    assert first == second == places["cache"] / FILE.path
    assert first.read_bytes() == CONTENT
    assert asked == [FILE.url]


@pytest.mark.parametrize("place", ["data", "cache"])
def test_a_file_with_another_checksum_is_refused_and_both_sums_are_named(
    place: str, places: dict[str, Path]
) -> None:
    path = _put(places[place], b"other")

    with pytest.raises(ValueError, match="another version") as caught:
        find(FILE)

    for part in (str(path), SHA256, hashlib.sha256(b"other").hexdigest()):
        assert part in str(caught.value)


def test_a_wrong_file_in_the_data_folder_does_not_fall_through_to_the_cache(places: dict[str, Path]) -> None:
    _put(places["data"], b"other")
    _put(places["cache"])

    with pytest.raises(ValueError, match="delete it and get it again"):
        find(FILE)


def test_a_download_with_another_checksum_is_refused_and_not_kept(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve(b"other", monkeypatch)

    with pytest.raises(ValueError, match="does not deliver folder/table.csv") as caught:
        find(FILE)

    assert SHA256 in str(caught.value)
    assert hashlib.sha256(b"other").hexdigest() in str(caught.value)
    assert not [path for path in places["cache"].rglob("*") if path.is_file()]


def test_without_a_network_the_message_names_file_checksum_address_and_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def downloader(**options: float):
        def fail(*arguments: object) -> None:
            raise requests.ConnectionError("no route to host")

        return fail

    monkeypatch.setattr(pooch, "HTTPDownloader", downloader)

    with pytest.raises(FileNotFoundError) as caught:
        find(FILE)

    for part in (FILE.path, SHA256, str(FILE.url), "no route to host", "SEQDYN_DATA=<folder>"):
        assert part in str(caught.value)


def test_with_downloads_switched_off_nothing_is_fetched() -> None:
    with pytest.raises(FileNotFoundError, match="download=False"):
        find(FILE, download=False)


def test_a_file_without_an_address_says_where_it_comes_from() -> None:
    file = DataFile("folder/table.csv", SHA256, note="Make it with prepare.py.")

    with pytest.raises(FileNotFoundError, match="no public address.*Make it with prepare.py"):
        find(file)


def test_a_file_without_a_checksum_is_never_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _serve(CONTENT, monkeypatch)

    with pytest.raises(FileNotFoundError, match="sha256 not recorded.*pass sha256="):
        find(DataFile(FILE.path, None, FILE.url))

    assert asked == []


def test_a_file_without_a_checksum_is_downloaded_once_the_user_gives_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _serve(CONTENT, monkeypatch)

    assert find(DataFile(FILE.path, None, FILE.url), sha256=SHA256.upper()).read_bytes() == CONTENT


def test_a_local_file_without_a_checksum_is_read_with_a_warning_that_states_its_sum(
    places: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = _put(places["data"])

    with caplog.at_level(logging.WARNING, logger="seqdyn"):
        assert find(DataFile(FILE.path, None, FILE.url)) == path

    assert SHA256 in caplog.text


def test_a_data_folder_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQDYN_DATA", "/no/such/folder")

    with pytest.raises(ValueError, match="SEQDYN_DATA='/no/such/folder' is no folder"):
        find(FILE)


def test_the_cache_is_the_users_unless_the_variable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEQDYN_CACHE")

    assert files.cache_folder() == Path(pooch.os_cache("seqdyn"))
