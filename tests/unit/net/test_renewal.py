import asyncio
from concurrent.futures import ThreadPoolExecutor
from os import utime
from pathlib import Path
from shutil import copy
from threading import Event
from time import time
from typing import Any

import pytest

from appserver.errors import CertificateError
from appserver.net.renewal import DAY, Certificates
from appserver.net.tls import load
from appserver.settings import Settings
from tests.certificates import Issuer, Pair
from tests.unit.net.conftest import Play
from tests.unit.records import Records


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def pair(issuer: Issuer, tmp_path: Path) -> Pair:
    return issuer.issue(tmp_path / "a.pem", "a.example", days=90)


class Watched:
    """Certificates with a clock of the test's own."""

    def __init__(self, *pairs: Pair, **options: Any) -> None:
        cert, key = (tuple(str(getattr(pair, what)) for pair in pairs) for what in ("certificate", "key"))
        self.records, self.later = Records(), 0.0
        self.settings = Settings(tls_cert=cert, tls_key=key, **options)
        self.certificates = Certificates(self.settings, [True], self.records.log, self.clock)

    def clock(self) -> float:
        return time() + self.later

    async def look(self) -> None:
        """What a second of the server's life does."""
        self.certificates.tick(asyncio.get_running_loop())
        assert self.certificates._look is not None
        await self.certificates._look

    @property
    def serial(self) -> int:
        """Of the default certificate."""
        return self.certificates.identities[0].facts.serial

    def codes(self) -> list[str]:
        return [record["event"] for record in self.records.all()]


def test_the_first_certificates_must_be_good(pair: Pair) -> None:
    pair.key.unlink()
    with pytest.raises(CertificateError, match="a.key: the key of"):
        Watched(pair)


def test_what_does_not_change_is_not_read_again(run: Play, pair: Pair) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        context = watched.certificates.context(http2=True)
        for _ in range(3):
            await watched.look()
        assert watched.certificates.context(http2=True) is context
        assert watched.codes() == []

    run(scene)


def test_new_files_are_served_and_told(run: Play, issuer: Issuer, pair: Pair) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        context, serial = watched.certificates.context(http2=True), watched.serial
        issuer.issue(pair.certificate, "a.example", "b.example", days=30)
        await watched.look()
        assert watched.certificates.context(http2=True) is not context
        assert watched.serial != serial
        [record] = watched.records.all()
        assert (record["event"], record["level"]) == ("certificate_loaded", "info")
        assert record["names"] == "a.example, b.example"
        await watched.look()
        assert len(watched.records.all()) == 1

    run(scene)


@pytest.mark.parametrize("how", ["renamed", "linked"])
def test_replacing_the_file_or_a_link_to_it_is_seen(
    how: str, run: Play, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    async def scene() -> None:
        watched, serial = Watched(pair), 0
        for number in range(2):
            serial = watched.serial
            fresh = issuer.issue(tmp_path / f"fresh{number}.pem", "a.example")
            for new, old in ((fresh.key, pair.key), (fresh.certificate, pair.certificate)):
                if how == "linked":  # as certbot does
                    old.unlink()
                    old.symlink_to(new)
                else:
                    new.rename(old)
            await watched.look()
            assert watched.serial != serial
        assert watched.codes() == ["certificate_loaded"] * 2

    run(scene)


def test_a_pair_that_does_not_fit_yet_is_looked_at_again_before_it_is_told(
    run: Play, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        serial = watched.serial
        fresh = issuer.issue(tmp_path / "fresh.pem", "a.example")
        fresh.certificate.rename(pair.certificate)
        await watched.look()
        assert (watched.codes(), watched.serial) == ([], serial)
        fresh.key.rename(pair.key)
        await watched.look()
        assert watched.codes() == ["certificate_loaded"]
        assert watched.serial != serial

    run(scene)


def test_bad_files_leave_the_old_certificate_and_are_told_once(run: Play, issuer: Issuer, pair: Pair) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        context = watched.certificates.context(http2=True)
        pair.certificate.write_text("no certificate")
        for _ in range(4):
            await watched.look()
        assert watched.certificates.context(http2=True) is context
        [record] = watched.records.all()
        assert (record["event"], record["level"]) == ("certificate_failed", "error")
        assert str(pair.certificate) in record["message"]
        assert watched.certificates.report()["certificate_failure"] in record["message"]
        assert watched.certificates.status.endswith("; the new files cannot be served with")
        pair.certificate.unlink()  # bad in another way
        for _ in range(4):
            await watched.look()
        assert watched.codes() == ["certificate_failed"] * 2
        issuer.issue(pair.certificate, "a.example")
        await watched.look()
        assert watched.codes()[2:] == ["certificate_loaded"]
        assert watched.certificates.failure is None
        assert "cannot" not in watched.certificates.status

    run(scene)


def test_the_old_files_put_back_end_the_failure(run: Play, pair: Pair, tmp_path: Path) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        copy(pair.certificate, tmp_path / "kept")
        pair.certificate.write_text("no certificate")
        for _ in range(2):
            await watched.look()
        assert watched.certificates.failure
        (tmp_path / "kept").rename(pair.certificate)
        await watched.look()
        assert watched.certificates.failure is None

    run(scene)


def test_a_folder_is_watched_for_more_and_for_fewer(run: Play, issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    async def scene() -> None:
        folder = tmp_path / "sites"
        folder.mkdir()
        issuer.issue(folder / "b.pem", "b.example")
        watched = Watched(pair, tls_dir=str(folder))
        assert [one.facts.label for one in watched.certificates.identities] == ["a.example", "b.example"]
        issuer.issue(folder / "c.pem", "c.example")
        await watched.look()
        assert [one.facts.label for one in watched.certificates.identities] == ["a.example", "b.example", "c.example"]
        for path in folder.glob("b.*"):
            path.unlink()
        await watched.look()
        assert [one.facts.label for one in watched.certificates.identities] == ["a.example", "c.example"]
        for path in folder.glob("c.*"):
            path.unlink()
        for _ in range(2):
            await watched.look()
        assert "no certificate there" in (watched.certificates.failure or "")

    run(scene)


def test_a_folder_that_fills_up_later_is_seen(run: Play, issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    async def scene() -> None:
        (tmp_path / "sites" / "b").mkdir(parents=True)
        issuer.issue(tmp_path / "sites" / "a.pem", "a.example")
        watched = Watched(tls_dir=str(tmp_path / "sites"))
        issuer.issue(tmp_path / "sites" / "b" / "tls.crt", "b.example", key=tmp_path / "sites" / "b" / "tls.key")
        await watched.look()
        assert [one.facts.label for one in watched.certificates.identities] == ["a.example", "b.example"]

    run(scene)


def test_a_bad_certificate_that_was_added_is_seen_when_it_is_good(
    run: Play, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    async def scene() -> None:
        folder = tmp_path / "sites"
        folder.mkdir()
        issuer.issue(folder / "a.pem", "a.example")
        watched = Watched(tls_dir=str(folder))
        issuer.issue(folder / "b.pem", "b.example").key.write_text("no key")
        for _ in range(2):
            await watched.look()
        assert watched.codes() == ["certificate_failed"]
        issuer.issue(folder / "b.pem", "b.example")  # written in place: the folder itself does not change
        await watched.look()
        assert watched.codes() == ["certificate_failed", "certificate_loaded"]

    run(scene)


def test_the_authorities_are_watched_too(run: Play, issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    async def scene() -> None:
        root = issuer.write_root(tmp_path / "root.pem")
        watched = Watched(pair, tls_ca=str(root), tls_client_cert="required")
        Issuer().write_root(root)
        await watched.look()
        assert watched.codes() == ["certificate_loaded"]

    run(scene)


def test_a_reload_reads_at_once_and_tells_at_once(run: Play, issuer: Issuer, pair: Pair) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        watched.certificates.reload()
        assert watched.codes() == ["certificate_loaded"]
        pair.key.write_text("no key")
        watched.certificates.reload()
        assert watched.codes()[1:] == ["certificate_failed"]
        await watched.look()
        assert len(watched.codes()) == 2

    run(scene)


def test_files_that_change_while_they_are_read_are_read_again(
    run: Play, issuer: Issuer, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        serial = watched.serial

        def load_slowly(settings: Settings, variants: Any) -> Any:
            made = load(settings, variants)
            status = pair.certificate.stat()
            utime(pair.certificate, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
            return made

        issuer.issue(pair.certificate, "a.example")
        monkeypatch.setattr("appserver.net.renewal.load", load_slowly)
        await watched.look()
        assert (watched.serial, watched.codes()) == (serial, [])
        monkeypatch.setattr("appserver.net.renewal.load", load)
        await watched.look()
        assert watched.codes() == ["certificate_loaded"]

    run(scene)


def test_what_nobody_has_thought_of_is_told_and_looked_at_again(
    run: Play, issuer: Issuer, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        watched = Watched(pair)

        def fail(settings: Settings, variants: Any) -> Any:
            raise RuntimeError("generator raised StopIteration")

        monkeypatch.setattr("appserver.net.renewal.load", fail)
        issuer.issue(pair.certificate, "a.example")
        for _ in range(3):
            await watched.look()
        assert watched.codes() == ["certificate_failed"]
        assert watched.certificates.failure == "RuntimeError: generator raised StopIteration"
        monkeypatch.setattr("appserver.net.renewal.load", load)
        issuer.issue(pair.certificate, "a.example")
        await watched.look()
        assert watched.codes() == ["certificate_failed", "certificate_loaded"]

    run(scene)


def test_an_application_that_keeps_all_threads_of_the_loop_does_not_hold_up_a_renewal(
    run: Play, issuer: Issuer, pair: Pair
) -> None:
    async def scene() -> None:
        watched, loop, over = Watched(pair), asyncio.get_running_loop(), Event()
        with ThreadPoolExecutor(1) as executor:
            loop.set_default_executor(executor)
            kept = loop.run_in_executor(None, over.wait)
            issuer.issue(pair.certificate, "a.example")
            try:
                await asyncio.wait_for(watched.look(), 30)
            finally:
                over.set()
            await kept
        assert watched.codes() == ["certificate_loaded"]

    run(scene)


def test_one_look_at_a_time(run: Play, pair: Pair) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        loop = asyncio.get_running_loop()
        watched.certificates.tick(loop)
        look = watched.certificates._look
        watched.certificates.tick(loop)
        assert watched.certificates._look is look
        assert look is not None
        await look

    run(scene)


# --- expiry -----------------------------------------------------------------------------------------------------------


def test_the_end_is_told_once_a_day_from_14_days_before(run: Play, issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    async def scene() -> None:
        other = issuer.issue(tmp_path / "b.pem", "b.example", days=300)
        watched = Watched(other, pair)
        watched.later = 75.5 * DAY
        await watched.look()
        assert watched.codes() == []
        for day in range(14):
            watched.later = (76.1 + day) * DAY
            for _ in range(3):
                await watched.look()
                watched.later += DAY / 4
        records = watched.records.all()
        assert len(records) == 14
        assert {(record["event"], record["level"]) for record in records} == {("certificate_expires", "warning")}
        assert records[0]["message"].startswith("The certificate of a.example expires in 13 days: ")
        assert records[-1]["message"].startswith("The certificate of a.example expires in 0 days: ")
        assert records[0]["certificate"] == str(pair.certificate)

    run(scene)


def test_an_expired_certificate_is_an_error_once_and_stays_in_the_status_line(run: Play, pair: Pair) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        assert watched.certificates.status.startswith("certificate a.example good until 20")
        for days in (91, 92, 93):
            watched.later = days * DAY
            await watched.look()
        [record] = watched.records.all()
        assert (record["event"], record["level"]) == ("certificate_expires", "error")
        assert watched.certificates.status.startswith("certificate a.example expired 20")

    run(scene)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"days": -1}, "the certificate of a.example has expired: 20"), ({"begins_in": 2}, "is not good before 20")],
)
def test_one_that_is_no_good_at_this_time_does_not_take_the_place_of_one_that_is(
    options: dict[str, Any], message: str, run: Play, issuer: Issuer, pair: Pair
) -> None:
    async def scene() -> None:
        watched = Watched(pair)
        serial = watched.serial
        issuer.issue(pair.certificate, "a.example", **options)
        for _ in range(4):
            await watched.look()
        assert watched.serial == serial
        assert watched.codes() == ["certificate_failed"]
        assert message in (watched.certificates.failure or "")
        # Its time comes, or that of the old one is over.
        watched.later = 2.1 * DAY if "begins_in" in options else 90.1 * DAY
        await watched.look()
        assert "certificate_loaded" in watched.codes()
        assert watched.serial != serial

    run(scene)


def test_one_that_is_no_good_at_this_time_is_taken_where_it_takes_no_ones_place(
    run: Play, issuer: Issuer, pair: Pair, tmp_path: Path
) -> None:
    async def scene() -> None:
        folder = tmp_path / "sites"
        folder.mkdir()
        issuer.issue(folder / "old.pem", "old.example", days=-1)
        watched = Watched(pair, tls_dir=str(folder))
        issuer.issue(pair.certificate, "a.example")  # a renewal, beside one that has expired long ago
        issuer.issue(folder / "new.pem", "new.example", begins_in=1)
        for _ in range(2):
            await watched.look()
        assert watched.certificates.failure is None
        assert len(watched.certificates.identities) == 3

    run(scene)


def test_one_that_is_not_good_yet_is_told_at_the_start(issuer: Issuer, tmp_path: Path) -> None:
    watched = Watched(issuer.issue(tmp_path / "b.pem", "b.example", begins_in=1))
    [record] = watched.records.all()
    assert record["level"] == "warning"
    assert record["message"].startswith("The certificate of b.example is not good before 20")


def test_the_report_names_all_and_the_first_to_expire(issuer: Issuer, pair: Pair, tmp_path: Path) -> None:
    other = issuer.issue(tmp_path / "b.pem", "b.example", "*.b.example", days=10)
    report = Watched(pair, other).certificates.report()
    assert [line.partition(": ")[0] for line in report["certificates"]] == ["a.example", "b.example, *.b.example"]
    assert report["certificates"][1].endswith(report["certificate_expires"])
    assert report["certificate_failure"] is None
