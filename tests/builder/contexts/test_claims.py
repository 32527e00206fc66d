"""Two processes share work, and each piece is done by one of them."""

from __future__ import annotations

import os

import pytest

from builder.contexts.claims import MOST, Claims

NAMES = [b"%d" % number for number in range(MOST)]


@pytest.fixture
def claims() -> Claims:
    return Claims()


def test_each_path_goes_to_one_process(claims: Claims) -> None:
    back, forth = os.pipe()
    if (pid := os.fork()) == 0:
        claims.offer(NAMES)
        with open(forth, "wb") as file:
            file.writelines(path + b"\n" for path in claims.taken())
            file.flush()
            os._exit(0)
    os.close(forth)
    claims.only_take()
    mine = list(claims.taken())
    with open(back, "rb") as file:
        theirs = file.read().split()
    assert os.waitpid(pid, 0)[1] == 0
    assert sorted(mine + theirs) == sorted(NAMES)
    claims.close()


def test_a_process_that_died_offers_nothing(claims: Claims) -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    claims.only_take()
    assert list(claims.taken()) == []
    os.waitpid(pid, 0)
    claims.close()


def test_what_is_offered_can_be_taken_by_the_one_who_offers(claims: Claims) -> None:
    claims.offer([b"a", b"b/c"])
    assert list(claims.taken()) == [b"a", b"b/c"]
    claims.close()
