"""Only public or expressly allowed addresses are dialled, however they are written."""

import asyncio
import socket

import pytest

from deployments.errors import BadUrl, UrlForbidden
from deployments.sources.fetch import Fetcher
from tests.sources.origins import Names, Origin, answer, fetching, redirect


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "168.63.129.16",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "localhost",
        "LOCALHOST",
    ],
)
async def test_an_address_that_is_not_public_is_never_dialled(
    host: str, guarded: Fetcher, origin: Origin
) -> None:
    with pytest.raises(UrlForbidden) as caught:
        await guarded.download(origin.url(host=host))
    assert host not in caught.value.message
    assert origin.connections == 0


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "017700000001", "127.0.0.1."]
)
async def test_odd_spellings_of_an_address_reach_nothing_even_where_it_is_allowed(
    host: str, fetcher: Fetcher, origin: Origin
) -> None:
    with pytest.raises(BadUrl):
        await fetcher.download(origin.url(host=host))
    assert origin.connections == 0


async def test_unusual_digits_are_the_same_address_where_it_is_allowed(
    fetcher: Fetcher, origin: Origin
) -> None:
    for host in ("①②⑦.⓪.⓪.①", "127.0.0.1"):
        assert await fetcher.download(origin.url(host=host)) == b"pixels"
    assert origin.connections == 1


async def test_a_name_with_one_refused_address_is_refused_whole(origin: Origin) -> None:
    public, private = "93.184.215.14", "127.0.0.1"
    for addresses in (
        [private, public],
        [public, private],
        ["2606:4700::1", "::1"],
        ["fe80::1%lo"],
    ):
        names = Names(mixed=[addresses])
        async with fetching(origin, resolver=names, allow_cidrs=()) as fetcher:
            with pytest.raises(UrlForbidden):
                await fetcher.download(origin.url(host="mixed"))
    assert origin.connections == 0


async def test_a_name_that_changes_its_address_is_checked_at_every_dial(origin: Origin) -> None:
    # First an allowed address, then, as in DNS rebinding, one that is not.
    listener = socket.create_server(("127.0.0.2", origin.port))
    secret = Origin()
    server = await asyncio.start_server(secret.serve, sock=listener)
    origin.answers["/"] = answer(Connection="close")
    names = Names(rebinding=[["127.0.0.1"], ["127.0.0.2"]])
    async with fetching(origin, resolver=names, allow_cidrs=("127.0.0.1/32",)) as fetcher:
        assert await fetcher.download(origin.url(host="rebinding")) == b"pixels"
        await fetcher.close()
        await fetcher.start()  # forgets the name's address
        with pytest.raises(UrlForbidden):
            await fetcher.download(origin.url(host="rebinding"))
    server.close()
    assert origin.connections == 1
    assert secret.connections == 0


async def test_an_answer_of_the_resolver_that_is_not_a_plain_address_is_refused(
    origin: Origin,
) -> None:
    for address in ("localhost", "127.1", "::1%lo", "0x7f.1", ""):
        async with fetching(origin, resolver=Names(odd=[[address]])) as fetcher:
            with pytest.raises(UrlForbidden):
                await fetcher.download(origin.url(host="odd"))
    assert origin.connections == 0


async def test_an_allowed_host_may_resolve_to_any_address_and_no_other_name_may(
    origin: Origin,
) -> None:
    names = Names(store_local=[["127.0.0.1"]], thief_local=[["127.0.0.1"]])
    async with fetching(
        origin, resolver=names, allow_cidrs=(), allow_hosts=("Store.Local",)
    ) as fetcher:
        assert await fetcher.download(origin.url(host="store.local")) == b"pixels"
        assert await fetcher.download(origin.url(host="STORE.LOCAL")) == b"pixels"
        for host in ("thief.local", "127.0.0.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(UrlForbidden):
                await fetcher.download(origin.url(host=host))
    assert origin.connections == 1


async def test_an_allowed_host_may_not_redirect_to_one_that_is_not(origin: Origin) -> None:
    origin.answers["/away"] = redirect(origin.url(host="thief.local"))
    origin.answers["/stay"] = redirect("/")
    names = Names(store_local=[["127.0.0.1"]], thief_local=[["127.0.0.1"]])
    async with fetching(
        origin, resolver=names, allow_cidrs=(), allow_hosts=("store.local",)
    ) as fetcher:
        assert await fetcher.download(origin.url("/stay", "store.local")) == b"pixels"
        with pytest.raises(UrlForbidden):
            await fetcher.download(origin.url("/away", "store.local"))
    assert len(origin.requests) == 3
