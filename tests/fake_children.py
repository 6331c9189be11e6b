"""Children of a real supervisor without anything to serve: `api FD` and `worker FD`.

The API process takes commands as JSON lines on its listening socket; the worker takes them on
its links. Each order that the API process gets is reported as the state of a model "orders".
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import msgspec

from atomserve import control
from atomserve.engine.options import Options


class FakeApi:
    def __init__(self, configure: control.Configure, sock: socket.socket) -> None:
        self.configure = configure
        self.channel: control.Channel[control.Order] = control.Channel(sock, control.Order)
        self.states: dict[str, str] = {}
        self.links: dict[tuple[str, int, int], tuple[Any, Any, socket.socket]] = {}
        self.unlinked: set[int] = set()
        self.expected = configure.expected
        self.surveys: dict[int, asyncio.Future[Any]] = {}
        self.ready = False
        self.document: dict[str, Any] = {"api": 1}

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.channel.deliver)
            for fd in self.configure.listeners:
                await asyncio.start_server(self.serve, sock=socket.socket(fileno=fd))
            self.channel.post(control.Serving())
            self.tell({"order": "Configure", "sources": len(self.configure.sources)})
            async for order in self.channel:
                await self.obey(order)
            os._exit(1)

    def tell(self, facts: dict[str, Any]) -> None:
        self.channel.post(control.ModelChanged("orders", facts["order"], json.dumps(facts)))

    async def obey(self, order: control.Order) -> None:
        facts = {"order": type(order).__name__}
        match order:
            case control.Drain() | control.Stop():
                self.channel.post(control.Drained(0))
                await self.channel.flush()
                os._exit(0)
            case control.ModelState(model, state, detail):
                self.states[model] = state
                facts |= {"model": model, "state": state, "detail": detail[:80]}
            case control.Host():
                self.expected -= 1
            case control.Link(model, slot, pid):
                sockets = [socket.socket(fileno=fd) for fd in self.channel.descriptors(2)]
                kinds = [sock.type.name for sock in sockets]
                stream = await asyncio.open_connection(sock=sockets[0])
                self.links[model, slot, pid] = (*stream, sockets[1])
                facts |= {"model": model, "slot": slot, "pid": pid, "kinds": kinds}
            case control.Unlink(model, pid):
                facts |= {"model": model, "pid": pid}
                self.unlinked.add(pid)
                if not os.environ.get("KEEP_LINKS"):
                    self.close(pid)
            case control.Lost(model, pid):
                facts |= {"model": model, "pid": pid}
                self.close(pid)
            case control.Survey(number):
                document = msgspec.Raw(msgspec.json.encode(self.document))
                self.channel.post(control.Surveyed(number, document))
                if "models" not in self.document:
                    return
            case control.Surveyed(number, document):
                self.surveys.pop(number).set_result([number, msgspec.json.decode(document)])
                return
        self.tell(facts)
        self.tell_readiness()

    def close(self, pid: int) -> None:
        for key in [key for key in self.links if key[2] == pid]:
            _, writer, side = self.links.pop(key)
            writer.close()
            side.close()

    def tell_readiness(self) -> None:
        states = list(self.states.values())
        ready = len(states) == self.expected and set(states) <= {"ready"}
        if ready != self.ready:
            self.ready = ready
            self.channel.post(control.Ready() if ready else control.NotReady())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            answer = await self.do(**json.loads(line))
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def do(self, do: str, **facts: Any) -> Any:
        return await getattr(self, f"do_{do}")(**facts)

    async def do_links(self) -> Any:
        return sorted(self.links)

    async def do_hung(self, **facts: Any) -> None:
        self.channel.post(control.Condemned(**facts))

    async def do_be(self, **document: Any) -> None:
        """Answer surveys by ``document`` from now on."""
        self.document = document

    async def do_excuse(self, **facts: Any) -> None:
        self.channel.post(control.Excused(**facts))

    async def do_survey(self, number: int) -> Any:
        answer = self.surveys[number] = asyncio.get_running_loop().create_future()
        self.channel.post(control.Survey(number))
        return await answer

    async def do_call(self, link: tuple[str, int, int], **facts: Any) -> Any:
        found = self.links.get(tuple(link))  # type: ignore[arg-type]
        if found is None:
            return None
        reader, writer, _ = found
        writer.write(json.dumps(facts).encode() + b"\n")
        try:
            return json.loads(await reader.readline() or "null")
        except ConnectionError:
            return None


class FakeWorker:
    def __init__(self, configure: control.ConfigureWorker, sock: socket.socket) -> None:
        self.configure = configure
        self.plan = json.loads(configure.source["target"])
        if folder := self.plan.get("folder"):  # what this start, of all starts, shall do
            starts = Path(folder) / "starts"
            with starts.open("a") as lines:
                lines.write(f"{os.getpid()} {configure.deal}\n")
            number = len(starts.read_text().splitlines())
            self.plan |= self.plan.get("starts", {}).get(str(number), {})
        self.channel: control.Channel[control.Order] = control.Channel(sock, control.Order)
        self.open = 0
        self.retired = False

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.channel.deliver)
            tasks.start_soon(self.load)
            async for order in self.channel:
                match order:
                    case control.Link():
                        self.open += 1
                        stream, packets = self.channel.descriptors(2)
                        threading.Thread(target=self.serve, args=(stream, packets)).start()
                    case control.Retire():
                        self.retired = True
                        self.check_end()
                    case control.Survey(number):
                        told = {"requests": self.configure.deal, "busy": 0, "answer_bytes": 0}
                        document = msgspec.json.encode(told)
                        self.channel.post(control.Surveyed(number, msgspec.Raw(document)))
                    case control.Stop():
                        os._exit(0)
            os._exit(1)

    async def load(self) -> None:
        plan = self.plan
        if "fatal" in plan:
            await self.say(control.Fatal(plan["fatal"], 2))
            os._exit(2)
        if "exit_import" in plan:
            os._exit(plan["exit_import"])
        await anyio.sleep(plan.get("import", 0))
        model = plan.get("model") or self.configure.source["name"]
        options = msgspec.convert(plan.get("options", {}), Options)
        await self.say(
            control.Described(model, msgspec.Raw(b'{"of":"%s"}' % model.encode()), options)
        )
        for stream, text in plan.get("writes", []):
            os.write(stream, text.encode("latin-1"))
        if plan.get("deaf"):
            time.sleep(3600)
        await anyio.sleep(plan.get("load", 0))
        if "broken" in plan:
            text = plan["broken"]  # or a text and the size that it shall be repeated to
            if isinstance(text, list):
                text = text[0] * (text[1] // len(text[0]))
            await self.say(control.Broken(text))
            os._exit(1)
        if "exit_load" in plan:
            os._exit(plan["exit_load"])
        await self.say(control.Loaded(0.1))
        if "exit_loaded" in plan:
            os._exit(plan["exit_loaded"])

    async def say(self, message: Any) -> None:
        self.channel.post(message)
        await self.channel.flush()

    def check_end(self) -> None:
        if self.retired and not self.open:
            time.sleep(self.plan.get("unload", 0))
            os._exit(0)

    def serve(self, stream: int, packets: int) -> None:
        with socket.socket(fileno=stream) as sock, sock.makefile("rw") as lines:
            for line in lines:
                print(json.dumps(self.do(**json.loads(line))), file=lines, flush=True)
        os.close(packets)
        self.open -= 1
        self.check_end()

    def do(self, act: str, **facts: Any) -> Any:
        if act == "pid":
            return [os.getpid(), self.configure.deal, self.configure.parent]
        if act == "exit":
            os._exit(facts["code"])
        if act == "kill":
            signal.raise_signal(facts["number"])
        if act == "write":
            for _ in range(facts.get("times", 1)):
                os.write(facts["stream"], facts["text"].encode("latin-1"))
        if act == "tired":
            tired = control.Tired("max_requests")
            self.loop.call_soon_threadsafe(self.channel.post, tired)
        if act == "log":
            os.write(self.configure.log, b"a line of its own\n")
        if act == "hang":
            time.sleep(3600)
        if act == "stray" and os.fork() == 0:
            os.setsid()  # beyond the reach of whoever kills the group, and with every descriptor
            time.sleep(facts["seconds"])
            os._exit(0)
        return os.getpid()


def main(kind: str, fd: int) -> None:
    faulthandler.enable()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    sock = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    if kind == "api":
        configure = control.read_first(sock, control.Configure)

        async def serve() -> None:
            await FakeApi(configure, sock).run()

        anyio.run(serve)
    else:
        worker = FakeWorker(control.read_first(sock, control.ConfigureWorker), sock)
        anyio.run(worker.run)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
