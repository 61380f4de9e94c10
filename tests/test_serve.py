"""The server of the page: each visitor hears what the model says alone, whoever else is there."""

import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys

import pytest
import torch
from websockets.asyncio.client import connect as aconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from echospan import EchoModel, ModelConfig
from echospan.cli import main
from echospan.errors import SettingError
from echospan.web.served import Served
from echospan.web.server import app
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
        "/socket",
        "/__init__.py",
        "/",
    ][:-1],
)
def test_no_path_leads_out(three, path):
    assert get(three, path)[0].status == 404


def test_who_is_one_too_many_is_told_so():
    with serving([Served("gru", model())], connections=2) as served:
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
        serving([Served("gru", model(max_delay=8))], patience=0.2, rate=1e9) as served,
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
            assert served.host.connections == 1


def test_who_floods_with_pings_and_never_reads_is_let_go():
    def flood():
        raw.sendall(
            b"GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        ping = b"\x89\xfd" + bytes(4) + b"x" * 125
        for _ in range(1_000_000):
            raw.sendall(ping * 100)

    with (
        serving([Served("gru", model())], unread=100_000, patience=60.0) as served,
        socket.create_connection(("127.0.0.1", served.port)) as raw,
        pytest.raises((BrokenPipeError, ConnectionResetError)),
    ):
        flood()


def test_who_floods_is_read_slowly_and_others_at_once():
    def answered():
        for _ in range(100):
            flood.ws.recv(timeout=0.2)

    with (
        serving([Served("gru", model())], rate=200.0, burst=200.0) as served,
        visiting(served) as flood,
        visiting(served) as other,
    ):
        for _ in range(100):
            flood.send([1])
        assert len([other.push([i]) for i in letters(3)]) == 3
        with pytest.raises(TimeoutError):
            answered()


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
        app([Served("letters", model()), Served("bits", model(alphabet="01"))])


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


def test_the_command_says_its_address_and_ctrl_c_ends_it(fixed_run):
    command = [sys.executable, "-m", "echospan", "serve", str(fixed_run), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as running:
        line = running.stdout.readline()
        port = int(line.split(":")[2].split("/")[0])
        with connect(f"ws://127.0.0.1:{port}/socket") as ws:
            ws.send(HELLO)
            (told,) = json.loads(ws.recv())["models"]
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert line.startswith("http://127.0.0.1:")
    assert told["name"] == "fixed"
    assert told["recall"][4] > 0.99
    assert err == "Ctrl-C ends it\n"
    assert running.returncode == 0
