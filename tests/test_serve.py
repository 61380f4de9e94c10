"""The server of the page: each visitor hears what the model says alone, whoever else is there."""

import asyncio
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect as aconnect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from echospan import EchoModel, ModelConfig
from echospan.cli import main
from echospan.errors import SettingError
from echospan.export import pack
from echospan.web.connection import WRITE
from echospan.web.desk import Desk
from echospan.web.guard import Guard, host_name
from echospan.web.limits import Limits, within
from echospan.web.pace import Bucket, Pace
from echospan.web.served import Served, Work
from echospan.web.server import Server
from echospan.web.wire import close_reason
from serving import serving, visiting


def model(core="gru", **config):
    """One that was never trained, but whose answers hang on all that it has read."""
    torch.manual_seed(0)
    settings = {"core": core, "hidden": 16, "max_delay": 3, "alphabet": "abcdef"} | config
    made = EchoModel(ModelConfig(**settings)).eval()
    torch.nn.init.normal_(made.readouts.weight)
    torch.nn.init.zeros_(made.readouts.bias)
    return made


def alone(model, ids):
    """The most believed symbol at each step and delay, of the whole text in one pass."""
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0][0].argmax(-1).tolist()


def letters(count, seed=0):
    draw = random.Random(seed)
    return [draw.randrange(1, 7) for _ in range(count)]


@pytest.fixture(scope="module")
def three():
    """A GRU, an LRU and attention, behind one server."""
    models = [model(core) for core in ("gru", "lru", "attention")]
    with serving([Served(m.config.core, m) for m in models]) as served:
        served.models = models
        yield served


def test_each_key_is_answered_as_the_model_alone_does(three):
    ids = letters(70)
    with visiting(three) as visitor:
        assert [m["name"] for m in visitor.welcome["models"]] == ["gru", "lru", "attention"]
        for place, served in enumerate(three.models):
            said = [visitor.push([i], place)[0] for i in ids]
            assert said == alone(served, ids)


def test_visitors_who_type_at_once_do_not_hear_each_other(three):
    async def types(seed):
        ids, said = letters(30, seed), []
        async with aconnect(three.socket) as ws:
            await ws.send('{"hello": null}')
            await ws.recv()
            for n, i in enumerate(ids, 1):
                push = {"push": n, "model": seed % 3, "ids": [i], "delay": 0}
                await ws.send(json.dumps(push))
                said += json.loads(await ws.recv())["said"]
        return said == alone(three.models[seed % 3], ids)

    async def all_at_once():
        return await asyncio.gather(*(types(seed) for seed in range(30)))

    assert all(asyncio.run(all_at_once()))


def test_a_long_text_comes_in_several_frames(three):
    ids = letters(1500)
    with visiting(three) as visitor:
        for place, served in enumerate(three.models):
            said = []
            for start in range(0, len(ids), 512):
                said += visitor.push(ids[start : start + 512], place)
            assert said == alone(served, ids)


def test_a_model_that_is_told_the_delay_is_asked_at_each_one():
    told = model(conditioning="input")
    ids = letters(20)
    with serving([Served("told", told)]) as served, visiting(served) as visitor:
        said = visitor.push(ids[:5]) + [visitor.push([i], delay=2)[0] for i in ids[5:]]
    assert said == alone(told, ids)


def test_the_hidden_state_of_the_last_steps_is_sent(three):
    import base64

    ids = letters(100)
    with visiting(three) as visitor:
        visitor.send(ids)
        told = visitor.read()
    sent = torch.frombuffer(bytearray(base64.b64decode(told["hidden"])), dtype=torch.int8)
    scale = torch.tensor(told["scale"])
    assert len(scale) == 64
    with torch.inference_mode():
        hidden = three.models[0].hidden(torch.tensor([ids]))[0][0, -64:]
    assert (
        sent.view(64, 16) * scale[:, None] / 127 - hidden
    ).abs().max() < 0.01 * hidden.abs().max()


def test_a_reset_forgets(three):
    with visiting(three) as visitor:
        first = visitor.push(letters(9))
        visitor.numbers[0] += 1
        visitor.ws.send(json.dumps({"reset": visitor.numbers[0], "model": 0}))
        assert visitor.read() == {"reset": visitor.numbers[0], "model": 0}
        assert visitor.push(letters(9)) == first


def test_who_loses_the_connection_comes_back_and_goes_on(three):
    ids = letters(40)
    with visiting(three) as visitor:
        said = visitor.push(ids[:20])
    with visiting(three, visitor.token) as back:
        assert back.welcome["kept"]
        assert said + back.push(ids[20:]) == alone(three.models[0], ids)


def test_a_key_whose_answer_was_lost_is_answered_again_and_not_read_twice(three):
    ids = letters(10)
    with visiting(three) as visitor:
        said = visitor.push(ids[:5])
        visitor.send(ids[5:6])
        visitor.read()  # which the page, let us say, never saw
    with visiting(three, visitor.token) as back:
        back.numbers[0] -= 1
        said += back.push(ids[5:6])
        assert said + back.push(ids[6:]) == alone(three.models[0], ids)


def test_a_second_window_with_the_same_token_goes_on_and_the_first_is_told(three):
    with visiting(three) as first:
        first.push(letters(3))
        with visiting(three, first.token) as second:
            assert second.welcome["kept"]
            with pytest.raises(ConnectionClosed) as end:
                first.read()
            assert end.value.rcvd.code == 4000
            assert "another window" in end.value.rcvd.reason
            second.push(letters(3))


def test_who_comes_back_too_late_is_told_that_all_is_forgotten():
    with serving([Served("gru", model())], seconds_kept=0.0) as served:
        with visiting(served) as visitor:
            visitor.push(letters(3))
        with visiting(served, visitor.token) as back:
            assert not back.welcome["kept"]
            assert back.token != visitor.token


def test_only_so_many_who_left_are_kept_and_none_who_never_typed():
    with serving([Served("gru", model())], kept=3) as served:
        tokens = []
        for seed in range(6):
            with visiting(served) as visitor:
                if seed != 5:
                    visitor.push(letters(3, seed))
                tokens.append(visitor.token)
        kept = []
        for token in tokens:
            with visiting(served, token) as visitor:
                kept.append(visitor.welcome["kept"])
        assert kept == [False, False, True, True, True, False]
        assert len(served.host.visits.kept) <= 3


def closes(served, *frames, **more):
    """How the server closes on these frames: the code and the reason."""

    def talk():
        for frame in frames:
            ws.send(frame)
        while True:
            ws.recv()

    with (
        connect(served.socket, compression=None, max_size=None, **more) as ws,
        pytest.raises(ConnectionClosed) as end,
    ):
        talk()
    return end.value.rcvd.code, end.value.rcvd.reason


HELLO = '{"hello": null}'


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        (["{}"], 1007, "the first frame is no"),
        (['{"push": 1}'], 1007, "the first frame is no"),
        (["what"], 1007, "no JSON"),
        (["[" * 5000], 1007, "no JSON"),
        ([b"\x00\x01"], 1003, "binary"),
        ([HELLO, "7"], 1007, "no JSON object"),
        ([HELLO, "{}"], 1007, "a frame is a push"),
        ([HELLO, '{"push": 1, "model": 9, "ids": [1], "delay": 0}'], 1007, "model is no whole"),
        ([HELLO, '{"push": 1, "model": 0, "ids": [7], "delay": 0}'], 1007, "a symbol is no"),
        ([HELLO, '{"push": 1, "model": 0, "ids": [0], "delay": 0}'], 1007, "a symbol is no"),
        ([HELLO, '{"push": 1, "model": 0, "ids": [true], "delay": 0}'], 1007, "a symbol is no"),
        ([HELLO, '{"push": 1, "model": 0, "ids": [], "delay": 0}'], 1007, "ids is no list"),
        ([HELLO, '{"push": 1, "model": 0, "ids": "ab", "delay": 0}'], 1007, "ids is no list"),
        ([HELLO, '{"push": 1, "model": 0, "ids": [1], "delay": 4}'], 1007, "delay is no whole"),
        ([HELLO, '{"push": 1e400, "model": 0, "ids": [1], "delay": 0}'], 1007, "push is no whole"),
        ([HELLO, '{"push": 0, "model": 0, "ids": [1], "delay": 0}'], 1007, "push is no whole"),
        ([HELLO, json.dumps({"push": 1, "model": 0, "ids": [1] * 513, "delay": 0})], 1007, "512"),
        ([HELLO, "x" * 20_000], 1009, "16384"),
        (["x" * 5_000_000], 1009, "16384"),
    ],
    ids=range(19),
)
def test_a_frame_that_is_none_closes_with_its_reason(three, frames, code, reason):
    told = closes(three, *frames)
    assert told[0] == code
    assert reason in told[1]


def test_a_push_that_goes_back_in_time_is_refused(three):
    push = '{"push": %d, "model": 0, "ids": [1], "delay": 0}'
    assert closes(three, HELLO, push % 5, push % 4) == (1007, "push 4 comes after 5")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost.elsewhere.example"},
    ],
)
def test_a_foreign_page_is_refused(three, headers):
    code, reason = closes(three, additional_headers=headers)
    assert code == 1008
    assert "open the page that it serves" in reason


def test_a_name_that_was_pointed_here_is_refused(three):
    for path in ("/", "/page.js"):
        seen = http.client.HTTPConnection("127.0.0.1", three.port)
        seen.request("GET", path, headers={"Host": f"elsewhere.example:{three.port}"})
        answer = seen.getresponse()
        assert answer.status == 421
        assert b"<" not in answer.read()
        seen.close()


def test_a_socket_under_such_a_name_is_refused(three):
    raw = socket.create_connection(("127.0.0.1", three.port))
    name = f"ws://elsewhere.example:{three.port}/socket"
    with (
        connect(name, sock=raw, origin=f"http://elsewhere.example:{three.port}") as ws,
        pytest.raises(ConnectionClosed) as end,
    ):
        ws.recv()
    assert end.value.rcvd.code == 1008
    assert "use its address" in end.value.rcvd.reason


def test_its_own_page_may_speak_to_it_by_any_of_its_names(three):
    for host in (f"127.0.0.1:{three.port}", f"localhost:{three.port}"):
        with connect(f"ws://{host}/socket", origin=f"http://{host}") as ws:
            ws.send(HELLO)
            assert "welcome" in ws.recv()


def get(served, path):
    seen = http.client.HTTPConnection("127.0.0.1", served.port)
    seen.putrequest("GET", path, skip_host=False)
    seen.endheaders()
    answer = seen.getresponse()
    body = answer.read()
    seen.close()
    return answer, body


def test_the_page_and_what_it_names_are_served_and_may_run_nothing_else(three):
    import re

    answer, page = get(three, "/")
    for name in ["", *re.findall(r'(?:src|href)="([^"#]+)"', page.decode())]:
        answer, _ = get(three, "/" + name)
        assert answer.status == 200, name
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"//" not in re.sub(rb"<!.*?>", b"", page)  # no address of another machine


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/..%2fserver.py",
        "/%2e%2e/server.py",
        "/static/page.js",
        "/page.js/..",
        "//etc/passwd",
        "/page.js%00",
        "/..\\server.py",
        "/__init__.py",
        "/page.js/",
        "/.",
    ],
)
def test_no_path_leads_out(three, path):
    assert get(three, path)[0].status == 404


def test_who_is_one_too_many_is_told_so():
    with serving([Served("gru", model())], visitors=2) as served:
        with visiting(served), visiting(served):
            assert closes(served, HELLO) == (1013, "2 visitors are here: come later")
        with visiting(served) as visitor:  # there is room again
            visitor.push(letters(3))


def test_who_says_nothing_is_let_go():
    with serving([Served("gru", model())], patience=0.05) as served:
        assert closes(served) == (1007, "no hello within 0.05 seconds")


def test_who_never_reads_is_let_go_and_others_are_unharmed():
    def talk():
        push = '{"push": %d, "model": 0, "ids": [' + "1," * 499 + '1], "delay": 0}'
        ws.send(HELLO)
        for n in range(1, 100_000):
            ws.send(push % n)

    with (
        serving(
            [Served("gru", model(max_delay=8))], patience=0.2, rate=1e9, total_rate=1e9
        ) as served,
        socket.create_connection(("127.0.0.1", served.port)) as deaf,
    ):
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with (
            connect(served.socket, sock=deaf, max_queue=1, compression=None) as ws,
            visiting(served) as other,
        ):
            with pytest.raises((ConnectionClosed, OSError)):
                talk()
            ids = letters(30)
            assert [other.push([i])[0] for i in ids] == alone(served.host.models[0].model, ids)
            assert len(served.server.visitors) == 1


# Limits of cost: each kind of frame, beside a user who types.


def frame(opcode, data=b"", fin=True):
    """A masked frame of less than 126 bytes; the mask is zero, so the payload is as it stands."""
    return bytes([fin << 7 | opcode, 0x80 | len(data)]) + bytes(4) + data


FLOODS = {
    "pings": frame(9),
    "long pings": frame(9, b"x" * 125),
    "pongs": frame(10),
    "keys": frame(1, b'{"push": 1, "model": 0, "ids": [1], "delay": 0}'),
    "resets": frame(1, b'{"reset": 1, "model": 0}'),
}


def upgraded(served, *sent):
    """A TCP connection whose handshake is done, and on which these frames were sent."""
    raw = served.raw(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    for data in sent:
        raw.sendall(data)
    return raw


HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SLOW = {"rate": 100.0, "burst": 5_000.0, "quiet_rate": 1e6, "quiet_burst": 1e6}
"""A pace of two frames a second after the first hundred."""


def send_without_end(raw):
    while True:
        raw.sendall(b"x")


def got(raw, seconds):
    """What comes until nothing has come for so long."""
    raw.settimeout(seconds)
    parts = b""
    with contextlib.suppress(TimeoutError):
        while part := raw.recv(65_536):
            parts += part
    return parts


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("connections", [1, 3])
def test_a_flood_of_any_kind_of_frame_is_read_slowly_and_others_at_once(flood, connections):
    last = b'{"push": 99, "model": 0, "ids": [1], "delay": 0}'
    data = frame(1, HELLO.encode()) + FLOODS[flood] * 5_000 + frame(1, last)
    with (
        serving([Served("gru", model())], **SLOW) as served,
        contextlib.ExitStack() as stack,
        visiting(served) as other,
    ):
        floods = [stack.enter_context(upgraded(served)) for _ in range(connections)]
        for raw in floods:
            stack.enter_context(sending(raw, data))
        ids = letters(30)
        assert [other.push([i])[0] for i in ids] == alone(served.host.models[0].model, ids)
        for raw in floods:
            answers = got(raw, 0.2)
            assert b"welcome" in answers
            assert b'"push":99' not in answers, "five thousand frames were read at once"


@contextlib.contextmanager
def sending(raw, data):
    """All of it on its way while the block runs, as far as the peer reads."""

    def send():
        with contextlib.suppress(OSError):
            raw.sendall(data)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    raw.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_who_pings_and_never_reads_fills_no_memory():
    with (
        serving([Served("gru", model())], rate=1e9, total_rate=1e9, patience=60.0) as served,
        upgraded(served, frame(1, HELLO.encode())) as raw,
    ):
        assert b"welcome" in raw.recv(4_096)
        (connection,) = served.server.visitors
        ours = connection._transport.get_extra_info("socket")
        for end, buffer in ((raw, socket.SO_RCVBUF), (ours, socket.SO_SNDBUF)):
            end.setsockopt(socket.SOL_SOCKET, buffer, 4_096)
        raw.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            raw.sendall(FLOODS["long pings"] * 100_000)
        assert connection._transport.get_write_buffer_size() < 2 * WRITE


def test_a_message_in_endless_empty_fragments_is_refused(three):
    with upgraded(three, frame(1, HELLO.encode())) as raw:
        assert b"welcome" in raw.recv(4096)
        raw.sendall(frame(1, fin=False) + frame(0, fin=False) * 400)
        assert b"a message in more than 256 fragments" in read_to_end(raw)


def test_a_message_in_some_fragments_is_read(three):
    with visiting(three) as visitor:
        visitor.numbers[0] += 1
        push = json.dumps({"push": visitor.numbers[0], "model": 0, "ids": [1, 2], "delay": 0})
        visitor.ws.send([*push, ""])
        assert visitor.read()["said"] == alone(three.models[0], [1, 2])


def test_a_fragment_that_splits_a_character_is_read_and_half_a_character_is_not(three):
    text = '{"hello": "é"}'.encode()
    with upgraded(three, frame(1, text[:12], fin=False), frame(0, text[12:])) as raw:
        assert b"welcome" in raw.recv(4096)
    with upgraded(three, frame(1, text[:12])) as raw:
        assert b"a frame is no UTF-8" in read_to_end(raw)


def test_one_who_types_does_not_wait_for_what_others_have_spent():
    limits = Limits(rate=1e9, burst=1e9, quiet_rate=1e-9, quiet_burst=100.0)
    total = Bucket(1.0, 1_000.0)
    greedy, typing = Pace(limits, total), Pace(limits, total)
    assert greedy.spend(5_000.0) > 3_000.0
    assert typing.spend(60.0) == 0.0
    assert typing.spend(60.0) > 3_000.0


def test_a_debt_has_an_end():
    total = Bucket(10.0, 10.0, debt=50.0)
    assert total.spend(1e9) == pytest.approx(5.0, abs=0.01)
    assert total.spend(1e9) == pytest.approx(5.0, abs=0.01)


def test_a_model_of_many_delays_takes_fewer_symbols_at_once():
    far = model(max_delay=999)
    with serving([Served("far", far), Served("near", model())]) as served:
        with visiting(served) as visitor:
            assert [m["batch"] for m in visitor.welcome["models"]] == [16, 512]
            ids = letters(16)
            assert visitor.push(ids) == alone(far, ids)
        push = json.dumps({"push": 1, "model": 0, "ids": letters(17), "delay": 0})
        assert closes(served, HELLO, push) == (1007, "ids is no list of 1 to 16 symbols")


# Limits of time and number: each state of a connection.


def read_to_end(raw):
    """All that comes until the server closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := raw.recv(65_536):
            got += part
    return got


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\n", HANDSHAKE[:-2]], ids=range(4))
def test_a_request_that_is_not_finished_is_given_up(sent):
    with serving([Served("gru", model())], patience=0.05) as served, served.raw(sent) as raw:
        assert read_to_end(raw)[:13] == (b"HTTP/1.1 408 " if sent else b"")


def test_a_request_that_trickles_is_given_up_too():
    with (
        serving([Served("gru", model())], patience=0.1) as served,
        served.raw(b"GET / HTTP/1.1\r\nX: ") as raw,
    ):
        raw.settimeout(0.005)
        for _ in range(1_000):
            raw.sendall(b"y")
            with contextlib.suppress(TimeoutError):
                assert raw.recv(12) == b"HTTP/1.1 408"
                return
    raise AssertionError("it trickles still")


def test_connections_that_ask_nothing_give_way_to_those_that_do():
    with (
        serving(
            [Served("gru", model())], visitors=2, unfinished=8, young=0.0, patience=60.0
        ) as served,
        contextlib.ExitStack() as stack,
    ):
        silent = [stack.enter_context(served.raw()) for _ in range(100)]
        assert get(served, "/page.js")[0].status == 200
        with visiting(served) as visitor:
            assert visitor.push(letters(3)) == alone(served.host.models[0].model, letters(3))
        assert {read_to_end(raw)[9:12] for raw in silent[:80]} <= {b"503", b""}
        silent[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in read_to_end(silent[-1])


def test_who_is_closed_and_does_not_leave_is_dropped():
    with (
        serving([Served("gru", model())], closing=0.05, patience=0.05, discarded=10**12) as served,
        upgraded(served, frame(1, b"{}")) as raw,
    ):
        assert b"the first frame is no" in read_to_end(raw)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_without_end(raw)


def test_who_answers_no_ping_is_dropped_and_who_does_stays():
    with (
        serving([Served("gru", model())], ping=0.05) as served,
        visiting(served) as other,
        upgraded(served, frame(1, HELLO.encode())) as raw,
    ):
        assert b"welcome" in read_to_end(raw)
        assert other.push(letters(3)) == alone(served.host.models[0].model, letters(3))


def test_as_many_are_let_in_as_the_system_has_files_for():
    limits = Limits()
    assert within(limits, None) == limits
    assert within(limits, 10_000) == limits
    for files in (1, 2, 50, 900, 2_000, 2_511):
        fewer = within(limits, files)
        assert fewer.visitors >= 1
        assert fewer.unfinished >= 1
        assert fewer.visitors + fewer.unfinished <= max(2, files)


# Requests that are none.

PLAIN = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HANDSHAKE[:-2] + b"X: " + b"y" * 9_000 + b"\r\n\r\n", 431),
        (HANDSHAKE[:-2] + b"X: " + b"y" * 60_000 + b"\r\n\r\n", 431),
        (HANDSHAKE[:-2] + b"X: y\r\n" * 130 + b"\r\n", 431),
        (HANDSHAKE[:-2] + (b"X: " + b"y" * 5_000 + b"\r\n") * 10 + b"\r\n", 431),
        (HANDSHAKE.replace(b"/socket", b"/" + b"s" * 9_000), 414),
        (HANDSHAKE.replace(b"/socket", b"/s\xc3\xa9"), 400),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 12"), 400),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 13\r\nSec-WebSocket-Version: 13"), 400),
        (HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: h2c"), 426),
        (HANDSHAKE.replace(b"GET", b"POST"), 405),
        (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
        (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/9.9"), 400),
        (HANDSHAKE.replace(b"dGhl", b"d\xff\xfe"), 400),
        (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        (HANDSHAKE.replace(b"Host", b"Ho st"), 400),
        (HANDSHAKE.replace(b"\r\n", b"\n"), 400),
        (HANDSHAKE + frame(9) * 3, 400),
        (HANDSHAKE + frame(8), 400),
        (HANDSHAKE + HANDSHAKE, 400),
        (PLAIN + b"Content-Length: 3\r\n\r\nabc", 400),
        (PLAIN + b"Content-Length: -1\r\n\r\n", 400),
        (PLAIN + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (PLAIN + b"\x00: y\r\n\r\n", 400),
        (PLAIN + b"Host: 127.0.0.1\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\n\r\n", 421),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (b"\r\n" * 3, 400),
        (PLAIN + b"\r\n" + PLAIN + b"\r\n", 200),
        (PLAIN.replace(b"1.1\r", b"1.0\r") + b"\r\n", 200),
        (PLAIN.replace(b"GET", b"HEAD") + b"\r\n", 200),
        (PLAIN.replace(b"GET", b"POST") + b"\r\n", 405),
        (PLAIN.replace(b"GET", b"OPTIONS") + b"\r\n", 405),
        (PLAIN.replace(b"GET /", b"OPTIONS *") + b"\r\n", 405),
    ],
    ids=range(34),
)
def test_a_request_of_any_form_is_answered_and_closed(three, request_, status):
    with three.raw(request_) as raw:
        answer = read_to_end(raw)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert b"connection: close" in head.lower()
    assert len(body) == (0 if request_.startswith(b"HEAD") else length)


def test_a_handshake_with_bytes_changed_is_always_answered_or_closed():
    draw = random.Random(0)

    def changed():
        data = bytearray(HANDSHAKE)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(data))
            kind = draw.randrange(3)
            if kind == 0:
                data[at] = draw.randrange(256)
            elif kind == 1:
                del data[at : at + draw.randrange(1, 30)]
            else:
                data[at:at] = draw.randbytes(draw.randrange(1, 30))
        return bytes(data)

    with (
        serving([Served("gru", model())], patience=0.3, closing=0.1) as served,
        contextlib.ExitStack() as stack,
    ):
        opened = [stack.enter_context(served.raw(changed())) for _ in range(300)]
        for raw in opened:
            read_to_end(raw)
        with visiting(served) as visitor:
            assert visitor.push(letters(3)) == alone(served.host.models[0].model, letters(3))
            assert len(served.server.visitors) == 1
    assert not served.server.others


@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_a_reason_fits_its_frame_and_is_cut_between_characters(text):
    cut = close_reason(text)
    assert len(cut.encode()) <= 123
    whole = text.encode(errors="replace").decode()
    assert whole.startswith(cut)
    assert len(cut) == len(whole) or len(whole[: len(cut) + 1].encode()) > 123


@pytest.mark.parametrize("name", ["Host", "Origin"])
def test_a_refusal_that_names_what_is_not_ascii_has_its_code(three, name):
    wrong = HANDSHAKE.replace(b"Host: 127.0.0.1\r\n", b"") if name == "Host" else HANDSHAKE
    wrong = wrong[:-2] + name.encode() + b": " + b"\xe9" * 60 + b"\r\n\r\n"
    with three.raw(wrong) as raw:
        answer = read_to_end(raw).partition(b"\r\n\r\n")[2]
    assert answer[0] == 0x88, "a close frame"
    assert answer[1] == len(answer) - 2 <= 125
    assert int.from_bytes(answer[2:4], "big") == 1008
    assert f"the {name} " + "é" * 40 in answer[4:].decode()


# Who may speak to it.


@pytest.mark.parametrize(
    ("host", "origin", "names", "admitted"),
    [
        ("127.0.0.1:8737", None, (), True),
        ("[::1]:8737", "http://[::1]:8737", (), True),
        ("[::1]", "https://[::1]", (), True),
        ("[::1]:8737", "http://[::2]:8737", (), False),
        ("[fe80::1%25eth0]:8737", None, (), False),
        ("::1", None, (), False),
        ("[::1", None, (), False),
        ("[localhost]", None, (), False),
        ("LOCALHOST:1", None, (), True),
        ("localhost.", None, (), False),
        ("localhost:99999", None, (), False),
        ("localhost:x", None, (), False),
        ("user@localhost", None, (), False),
        ("localhost, elsewhere.example", None, (), False),
        ("local\thost", None, (), False),
        ("", None, (), False),
        ("hub.example", "https://hub.example", (), False),
        ("hub.example", "https://hub.example", ("hub.example",), True),
        ("hub.example:8443", "https://hub.example:8443", ("hub.example",), True),
        ("HUB.example", "https://hub.example", ("hub.example",), True),
        ("127.0.0.1:8737", "https://hub.example", ("hub.example",), True),
        ("127.0.0.1:8737", "https://hub.example:8443", ("hub.example",), True),
        ("127.0.0.1:8737", "https://hub.example.elsewhere.example", ("hub.example",), False),
        ("127.0.0.1:8737", "https://elsewhere.example", ("hub.example",), False),
        ("127.0.0.1:8737", "https://hub.example@elsewhere.example", ("hub.example",), False),
        ("127.0.0.1:8737", "file://hub.example", ("hub.example",), False),
        ("127.0.0.1:8737", "hub.example", ("hub.example",), False),
        ("127.0.0.1:8737", "null", ("hub.example",), False),
        ("not.hub.example", None, ("hub.example",), False),
        ("127.0.0.1:8737", "http://[2001:db8::1]", ("2001:db8::1",), True),
        ("127.0.0.1:8737", "http://[2001:DB8:0::1]:80", ("2001:db8::1",), True),
        ("a.example", None, ("hub.example", "a.example"), True),
    ],
)
def test_a_page_is_admitted_by_host_and_origin(host, origin, names, admitted):
    guard = Guard(map(host_name, names))
    headers = Headers([("Host", host)] + ([("Origin", origin)] if origin is not None else []))
    assert (guard.foreign(headers) is None) == admitted


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("hub.example", "hub.example"),
        ("HUB.Example", "hub.example"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("[::1]", "::1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("10.0.0.5", "10.0.0.5"),
        ("my_hub", "my_hub"),
    ],
)
def test_a_name_is_kept_as_browsers_send_it(given, name):
    assert host_name(given) == name


@pytest.mark.parametrize(
    "given",
    ["", ".", "*", "*.example", "https://hub.example", "hub.example:8000", "hub.example/x", "a..b"],
)
def test_what_is_no_name_is_refused(given):
    with pytest.raises(SettingError, match="which is no host name"):
        host_name(given)


def test_a_page_behind_a_proxy_is_let_in_by_name():
    origin = "https://hub.example"
    with serving([Served("gru", model())], names=["hub.example"]) as served:
        for host in ("hub.example", f"127.0.0.1:{served.port}"):
            raw = socket.create_connection(("127.0.0.1", served.port))
            with connect(f"ws://{host}/socket", sock=raw, origin=origin) as ws:
                ws.send(HELLO)
                assert "welcome" in ws.recv()
        seen = http.client.HTTPConnection("127.0.0.1", served.port)
        seen.request("GET", "/", headers={"Host": "hub.example"})
        answer = seen.getresponse()
        assert answer.status == 200
        assert "wss://hub.example:*" in answer.headers["content-security-policy"]
        assert answer.read().startswith(b"<!doctype html>")
        seen.close()


# Keys and texts.


def test_a_key_is_read_between_two_pieces_of_a_text_and_texts_take_turns():
    class Records(Served):
        def answers(self, works):
            passes.append([len(work.ids) for work in works])
            if len(passes) == 1:  # while the first piece is read, a key arrives
                loop.call_soon_threadsafe(lambda: keys.append(loop.create_task(key())))
            return super().answers(works)

    async def key():
        return (await desk.answer(0, Work(None, (1,), 0))).said

    async def read():
        nonlocal loop
        loop = asyncio.get_running_loop()
        async with desk.open():
            texts = [desk.answer(0, Work(None, tuple(ids), 0)) for ids in (long, short)]
            answers = await asyncio.gather(*texts)
            assert await keys[0] == alone(served.model, [1])
        return answers

    loop, passes, keys, long, short = None, [], [], letters(300), letters(70)
    served = Records("gru", model())
    desk = Desk([served])
    for ids, answer in zip((long, short), asyncio.run(read()), strict=True):
        assert answer.said == alone(served.model, ids)
        assert len(answer.scale) == 64
    assert passes == [[44], [1], [6], [64], [64], [64], [64], [64]]


# A model, and a server, that fail.


def test_a_model_that_fails_closes_one_connection_and_says_so_once(capfd):
    class Breaks(Served):
        def answers(self, works):
            if len(works[0].ids) == 2:
                raise RuntimeError("no memory\nis left")
            return super().answers(works)

    push = '{"push": 1, "model": 0, "ids": [1, 1], "delay": 0}'
    with serving([Breaks("gru", model())]) as served:
        for _ in range(30):
            assert closes(served, HELLO, push) == (1011, "the server failed to answer")
        with visiting(served) as visitor:
            assert visitor.push(letters(3)) == alone(served.host.models[0].model, letters(3))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "echospan: the server had a fault (RuntimeError: no memory)"
    assert len(lines) == 21


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("third", [1.0, float("nan")])
def test_what_is_no_number_does_not_reach_json(weight, third):
    diverged = model("rnn")
    with torch.no_grad():
        diverged.core.weight_hh_l0.fill_(weight)
        diverged.readouts.weight.fill_(-1.0)  # all logits are the lowest, but that of symbol 3
        diverged.readouts.weight[3::7] = third
    with serving([Served("rnn", diverged)]) as served, visiting(served) as visitor:
        visitor.send(letters(9))
        text = visitor.ws.recv()
    answer = json.loads(text, parse_constant=pytest.fail)
    with torch.inference_mode():
        said = diverged(torch.tensor([letters(9)]))[0][0].argmax(-1).tolist()
    assert answer["said"] == said
    assert all(0 <= s <= 1000 for step in answer["sure"] for s in step)


@pytest.mark.parametrize(
    ("recall", "shown"),
    [
        ([1.0, 0.5, 0.25, 0.0], [1.0, 0.5, 0.25, 0.0]),
        ([1, 1, 1, 1], [1.0, 1.0, 1.0, 1.0]),
        (None, None),
        ([], None),
        ([1.0] * 3, None),
        ([1.0] * 300_000, None),
        ([7.0, 1.0, 1.0, 1.0], None),
        ([1.0, -0.1, 1.0, 1.0], None),
        ([1.0, float("nan"), 1.0, 1.0], None),
        ([1.0, float("inf"), 1.0, 1.0], None),
    ],
)
def test_recall_is_shown_only_where_it_is_one(recall, shown):
    assert Served("gru", model(), recall).told()["recall"] == shown
    assert pack(model(), "gru", recall)["recall"] == shown


def test_who_is_here_when_the_server_ends_is_told():
    with serving([Served("gru", model())]) as served, connect(served.socket) as ws:
        ws.send(HELLO)
        ws.recv()
        served.server.stop()
        with pytest.raises(ConnectionClosed) as end:
            ws.recv()
        assert (end.value.rcvd.code, end.value.rcvd.reason) == (1012, "the server has ended")


def test_hundreds_may_sit_idle():
    async def idle(served):
        async with contextlib.AsyncExitStack() as stack:
            rooms = [await stack.enter_async_context(aconnect(served.socket)) for _ in range(300)]
            for ws in rooms:
                await ws.send(HELLO)
            heard = [await ws.recv() for ws in rooms]
            return len(heard), await asyncio.to_thread(one_more, served)

    def one_more(served):
        with visiting(served) as visitor:
            return visitor.push(letters(3))

    with serving([Served("gru", model())]) as served:
        count, said = asyncio.run(idle(served))
    assert count == 300
    assert said == alone(served.host.models[0].model, letters(3))


def test_models_that_share_no_letters_are_not_served_together():
    with pytest.raises(SettingError, match="no two characters in common"):
        Server([Served("letters", model()), Served("bits", model(alphabet="01"))])


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "no run folder is named"),
        (["/nowhere"], "there is no run folder /nowhere"),
        (["RUN", "--port", "70000"], "--port is 70000"),
        (["RUN", "--port", "TAKEN"], "cannot be had (address already in use); name another"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(fixed_run, capsys, args, sentence):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stands_for = {"RUN": str(fixed_run), "TAKEN": str(taken.getsockname()[1])}
        with pytest.raises(SystemExit) as end:
            main(["serve", *(stands_for.get(a, a) for a in args)])
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


@contextlib.contextmanager
def command(run, *flags, before=""):
    """The command, its port, and what ends it: `before` is said to the shell first."""
    words = [sys.executable, "-m", "echospan", "serve", str(run), "--port", "0", *flags]
    with subprocess.Popen(
        ["sh", "-c", f'{before}; exec "$@"' if before else 'exec "$@"', "sh", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as running:
        try:
            line = running.stdout.readline()
            assert line.startswith("http://127.0.0.1:")
            running.port = int(line.split(":")[2].split("/")[0])
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_its_address_and_a_signal_ends_it(fixed_run, number):
    with command(fixed_run) as running:
        with (
            connect(f"ws://127.0.0.1:{running.port}/socket") as ws,
            socket.create_connection(("127.0.0.1", running.port)) as hanging,
            socket.create_connection(("127.0.0.1", running.port)) as silent,
        ):
            hanging.sendall(HANDSHAKE[:-2] + b"X: " + b"y" * 9_000)
            silent.sendall(b"GET ")
            ws.send(HELLO)
            (told,) = json.loads(ws.recv())["models"]
            running.send_signal(number)
            with pytest.raises(ConnectionClosed) as end:
                ws.recv()
            assert end.value.rcvd.code == 1012
        _, err = running.communicate(timeout=30)
    assert told["name"] == "fixed"
    assert told["recall"][4] > 0.99
    assert err == "Ctrl-C ends it\n"
    assert running.returncode == 0


def test_a_system_that_runs_out_of_files_costs_the_oldest_connection_that_asks_nothing(fixed_run):
    import resource

    with command(fixed_run) as running, contextlib.ExitStack() as stack:
        here = len(os.listdir(f"/proc/{running.pid}/fd"))  # noqa: PTH208
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (here + 5, here + 5))
        for _ in range(30):
            raw = socket.create_connection(("127.0.0.1", running.port), timeout=30)
            stack.enter_context(raw)
        raw.sendall(b"GET /page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in read_to_end(raw)
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=30)
    assert err == "Ctrl-C ends it\n"
    assert running.returncode == 0


def test_a_name_that_cannot_be_printed_is_served_and_exported(fixed_run, tmp_path):
    named = tmp_path / "rés\x1b[31m<"
    shutil.copytree(fixed_run, named)
    with command(named, before="export PYTHONIOENCODING=ascii") as running:
        with connect(f"ws://127.0.0.1:{running.port}/socket") as ws:
            ws.send(HELLO)
            (told,) = json.loads(ws.recv())["models"]
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert told["name"] == "rés\N{REPLACEMENT CHARACTER}[31m<"
    assert err == "Ctrl-C ends it\n"
    with pytest.raises(SystemExit) as end:
        main(["export", str(named), "--format", "html", "-o", str(tmp_path / "echo.html")])
    assert end.value.code == 0
    assert told["name"].replace("<", "&lt;") in (tmp_path / "echo.html").read_text()


def test_where_the_system_allows_few_files_fewer_are_let_in_and_the_rest_is_told(fixed_run):
    def come():
        ws = stack.enter_context(connect(f"ws://127.0.0.1:{running.port}/socket"))
        try:
            ws.send(HELLO)
            return "welcome" in ws.recv()
        except ConnectionClosed as end:
            return end.rcvd.code

    with command(fixed_run, before="ulimit -n 120") as running:
        with contextlib.ExitStack() as stack:
            came = [come() for _ in range(150)]
        with contextlib.ExitStack() as stack:
            assert come() is True  # once they have left
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    visitors = came.index(1013)
    assert 1 <= visitors < 60
    assert came == [True] * visitors + [1013] * (150 - visitors)
    assert err.splitlines() == [
        f"open to {visitors} visitors at a time: the system allows no more open files (ulimit -n)",
        "Ctrl-C ends it",
    ]
    assert running.returncode == 0
