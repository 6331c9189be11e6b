"""What a worker has begun can be read by whoever shares its ledger, whatever happens meanwhile."""

import threading

import pytest

from atomserve.transport.frames import BrokenFrame
from atomserve.transport.ledgers import LedgerReader, LedgerWriter, ledger_size


def ledger(places: int) -> tuple[LedgerWriter, LedgerReader]:
    memory = memoryview(bytearray(ledger_size(places)))
    return LedgerWriter(memory), LedgerReader(memory)


def test_nothing_has_begun_in_a_new_ledger() -> None:
    _, reader = ledger(2)
    assert reader.last == 0
    assert reader.began(1) is None


def test_each_place_says_what_it_runs_and_since_when() -> None:
    writer, reader = ledger(2)
    writer.begin(0, 1, 3, 10.5)
    writer.begin(1, 4, 4, 11.5)
    assert [reader.began(number) for number in range(1, 6)] == [10.5, 10.5, 10.5, 11.5, None]
    writer.begin(0, 5, 5, 12.5)
    assert [reader.began(number) for number in range(1, 6)] == [None, None, None, 11.5, 12.5]
    assert reader.last == 5


def test_the_last_number_never_falls() -> None:
    writer, reader = ledger(2)
    writer.begin(0, 9, 9, 1.0)
    writer.begin(1, 8, 8, 1.0)
    assert reader.last == 9


def test_many_threads_leave_the_highest_number() -> None:
    writer, reader = ledger(4)

    def begin_all(place: int) -> None:
        for number in range(place, 4000, 4):
            writer.begin(place, number, number, 0.0)

    threads = [threading.Thread(target=begin_all, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.last == 3999
    assert all(reader.began(number) == 0.0 for number in range(3996, 4000))


@pytest.mark.parametrize("size", [0, 8, 31, 33])
def test_what_has_no_ledgers_size_is_none(size: int) -> None:
    with pytest.raises(BrokenFrame):
        LedgerReader(memoryview(bytes(size)))
