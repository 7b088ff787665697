"""Calls through the outbound proxy, around it, and with certificate authorities from the settings."""

import ssl

import pytest
import trustme
from aiohttp import web
from yarl import URL

from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.session import Request
from bridge.domain.no_proxy import read_no_proxy_entry
from bridge.domain.outcomes import NotSent
from bridge.protocols.http_response import HttpResponse
from bridge.settings.tls_files import read_authorities
from tests.support.forward_proxy import ForwardProxy


@pytest.fixture
async def upstream(aiohttp_server):
    """Say what was received, over plain HTTP."""
    return str((await aiohttp_server(echo())).make_url("/a%2Fb?c=%20d"))


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
async def safe_upstream(aiohttp_server, authority):
    """Say what was received, over TLS of an authority of our own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    server = await aiohttp_server(echo(), ssl=context)
    return str(server.make_url("/x"))


@pytest.fixture
def trust(authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return read_authorities(str(tmp_path / "ca.pem"))


def echo():
    async def answer(request):
        body = await request.read()
        return web.json_response(
            {"path": request.raw_path, "headers": sorted(name.lower() for name in request.headers), "size": len(body)}
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


def by(proxy, *exemptions, login="", **options):
    url = URL(f"http://{login}{'@' if login else ''}127.0.0.1:{proxy.port}")
    return OutboundProxy(proxy=url, exemptions=tuple(read_no_proxy_entry(entry) for entry in exemptions), **options)


def get(url):
    return Request(method="GET", url=URL(url, encoded=True))


async def test_plain_calls_go_to_the_proxy_whole_and_as_they_are(upstream, new_session):
    async with ForwardProxy() as proxy:
        answer = await new_session(outbound_proxy=by(proxy)).send(get(upstream))
    assert isinstance(answer, HttpResponse)
    assert b'"path": "/a%2Fb?c=%20d"' in answer.body
    assert proxy.asked == [("GET", upstream)]


async def test_https_goes_through_a_tunnel_that_the_proxy_cannot_look_into(safe_upstream, new_session, trust):
    port = URL(safe_upstream).port
    async with ForwardProxy() as proxy:
        answer = await new_session(outbound_proxy=by(proxy, trust=trust)).send(get(safe_upstream))
    assert isinstance(answer, HttpResponse)
    assert proxy.asked == [("CONNECT", f"127.0.0.1:{port}")]


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "*", "127.0.0.1:{port}"])
async def test_what_no_proxy_names_is_reached_directly(upstream, new_session, entry):
    async with ForwardProxy() as proxy:
        outbound_proxy = by(proxy, "elsewhere.example", entry.format(port=URL(upstream).port))
        assert isinstance(await new_session(outbound_proxy=outbound_proxy).send(get(upstream)), HttpResponse)
    assert proxy.asked == []


async def test_the_proxys_login_goes_to_the_proxy_and_no_further(upstream, safe_upstream, new_session, trust):
    async with ForwardProxy(login="user:canary/1") as proxy:
        session = new_session(outbound_proxy=by(proxy, login="user:canary%2F1", trust=trust))
        for url in (upstream, safe_upstream):
            answer = await session.send(get(url))
            assert isinstance(answer, HttpResponse)
            assert b"proxy-authorization" not in answer.body


@pytest.mark.parametrize("scheme", ["plain", "safe"])
async def test_a_proxy_that_wants_another_login_got_nothing_that_had_an_effect(
    upstream, safe_upstream, new_session, trust, scheme
):
    async with ForwardProxy(login="user:right") as proxy:
        session = new_session(outbound_proxy=by(proxy, login="user:canary", trust=trust))
        outcome = await session.send(get(upstream if scheme == "plain" else safe_upstream))
    assert isinstance(outcome, NotSent)
    assert "407" in outcome.message
    assert "outbound.http_proxy" in outcome.message
    assert "canary" not in outcome.message


async def test_a_proxy_that_rejects_the_way_is_reported(safe_upstream, new_session, trust):
    async with ForwardProxy(refuse_connect=True) as proxy:
        outcome = await new_session(outbound_proxy=by(proxy, trust=trust)).send(get(safe_upstream))
    assert outcome == NotSent(message="testnod: the proxy refused to connect (HTTP 403); see outbound.http_proxy.")


async def test_a_proxy_that_is_away_is_said_without_its_password(upstream, closed_port, new_session):
    outbound_proxy = OutboundProxy(proxy=URL(f"http://user:canary@127.0.0.1:{closed_port}"))
    outcome = await new_session(outbound_proxy=outbound_proxy).send(get(upstream))
    assert isinstance(outcome, NotSent)
    assert outcome.message.startswith("testnod: cannot connect to the proxy 127.0.0.1")
    assert "canary" not in outcome.message + repr(outbound_proxy)


async def test_the_guard_of_addresses_makes_its_exception_for_the_proxy_alone(upstream, new_session):
    async with ForwardProxy() as proxy:
        session = new_session("storage", public_only=True, outbound_proxy=by(proxy))
        assert isinstance(await session.send(get(upstream)), HttpResponse)  # the proxy's own address is not public
        around = new_session("storage", public_only=True, outbound_proxy=by(proxy, "127.0.0.1"))
        outcome = await around.send(get(upstream))
    assert isinstance(outcome, NotSent)
    assert "not public" in outcome.message
    assert len(proxy.asked) == 1


async def test_an_authority_of_our_own_is_believed_only_where_it_is_named(safe_upstream, new_session, trust):
    assert isinstance(
        await new_session(outbound_proxy=OutboundProxy(trust=trust)).send(get(safe_upstream)), HttpResponse
    )
    outcome = await new_session().send(get(safe_upstream))
    assert isinstance(outcome, NotSent)
    assert "certificate" in outcome.message
