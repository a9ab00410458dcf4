"""The life of one simulated `vllm serve`: bind, load, listen, drain or abort, exit.

As in vLLM the port is bound at once and listens only when the model is loaded, so clients are refused until then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from fairlead_sim.settings import Settings, SettingsError, read_settings
from fairlead_sim.vllm import flags, hub
from fairlead_sim.vllm.app import make_app
from fairlead_sim.vllm.config import ServeConfig, StartupError, make_config
from fairlead_sim.vllm.errors import ENGINE_DEAD_LOG, DrainingError, EngineDeadError
from fairlead_sim.vllm.service import Service

LOG = logging.getLogger("fairlead_sim.vllm")
#: vLLM looks this often whether its engine has died.
WATCHDOG_S = 5.0
#: Open responses get this long to be written out at the end.
FLUSH_S = 2.0
#: What a Python program ends with that KeyboardInterrupt ends.
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """`vllm ARGUMENTS`; the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(levelname)s %(asctime)s [fairlead_sim] %(message)s",
        datefmt="%m-%d %H:%M:%S",
    )
    try:
        settings = read_settings(os.environ)
        listed = flags.load_flags(Path(settings.vllm_flags or flags.FLAGS_FILE))
        config = make_config(flags.parse(arguments, listed), listed, os.environ, settings)
    except SettingsError as error:
        print(f"fairlead-sim: {error}", file=sys.stderr)
        return 2
    except (StartupError, flags.CommandLineError) as error:
        return _fail(str(error))
    try:
        import uvloop

        return uvloop.run(serve(config, settings))
    except StartupError as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    """End as an uncaught exception ends a Python program."""
    print(f"Traceback (most recent call last):\n  (simulated by fairlead-sim)\n{message}", file=sys.stderr)
    return 1


async def serve(config: ServeConfig, settings: Settings) -> int:
    """Load, listen and serve until a signal or the engine's death; the exit code. Raises StartupError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    LOG.info("vLLM API server version %s (simulated), model %s", config.version, config.model)
    if config.without_effect:
        LOG.info("accepted without effect here: %s", " ".join(config.without_effect))
    listener = _bind(config)
    try:
        hub.check_model(config, settings)
        duration_s = hub.load_duration_s(config, settings)
        LOG.info("Loading model: takes %.1f s", duration_s)
        if await _happens_within(stop, duration_s):
            print("KeyboardInterrupt: terminated", file=sys.stderr)
            return INTERRUPTED
        if config.headless:
            LOG.info("headless: no API server")
            await stop.wait()
            return 0
        return await _serve_http(config, settings, listener, stop)
    finally:
        listener.close()


def _bind(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise StartupError(f"OSError: [Errno {error.errno}] {error.strerror}") from error
    return listener


async def _happens_within(event: asyncio.Event, duration_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), duration_s)
    except TimeoutError:
        return False
    return True


async def _serve_http(config: ServeConfig, settings: Settings, listener: socket.socket, stop: asyncio.Event) -> int:
    service = Service(config, settings)
    service.engine.start()
    runner = web.AppRunner(
        make_app(service), access_log=None, handler_cancellation=True, shutdown_timeout=FLUSH_S, keepalive_timeout=65
    )
    await runner.setup()
    tls = None
    if config.certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*config.certificate)
    await web.SockSite(runner, listener, ssl_context=tls, backlog=2048).start()
    LOG.info("Application startup complete, listening on %s:%d", *listener.getsockname()[:2])
    death = asyncio.create_task(_watch_for_death(service, settings, stop))
    try:
        await stop.wait()
        if not service.dead:
            await _shut_down(service)
            await asyncio.sleep(settings.teardown_seconds)
    finally:
        death.cancel()
        await runner.cleanup()
        await service.engine.stop()
    LOG.info("Application shutdown complete")
    return 0


async def _shut_down(service: Service) -> None:
    """Abort or drain, as --shutdown-timeout says. `/health` answers 200 all the while."""
    timeout_s = service.config.shutdown_timeout_s
    LOG.info("[shutdown] stopping engine client mode=%s timeout=%ds", "drain" if timeout_s else "abort", timeout_s)
    if timeout_s:
        service.engine.close(DrainingError())
        try:
            await asyncio.wait_for(service.engine.wait_idle(), timeout_s)
        except TimeoutError:
            LOG.warning("[shutdown] %d requests did not finish in time", service.engine.unfinished)
    error = EngineDeadError()
    service.engine.close(DrainingError() if timeout_s else error)
    service.engine.abort_all(error)


async def _watch_for_death(service: Service, settings: Settings, stop: asyncio.Event) -> None:
    """Let the engine die when asked to (setting, or SIGUSR1); vLLM then ends, with exit code 0, at its next look."""
    died = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, died.set)
    if settings.engine_death_after_seconds is not None:
        loop.call_later(settings.engine_death_after_seconds, died.set)
    started_s = loop.time()
    await died.wait()
    LOG.error("EngineDeadError: %s", ENGINE_DEAD_LOG)
    service.die()
    if service.config.keep_alive_on_death:
        return
    await asyncio.sleep(WATCHDOG_S - (loop.time() - started_s) % WATCHDOG_S)
    stop.set()
