"""Embedded teachers: llama.cpp in a child process that this one starts, watches and kills.

The server is an endpoint like any other. A hostile GGUF file or JSON schema can crash or hang llama.cpp (its grammar and its
chat templates are interpreters). Only the child process is affected: it is ended and restarted on the same port.

Images for a local student that sees are decoded with bounded memory and fitted here, so that llama.cpp only reads patches. None
is downloaded or opened: an image is in its message, as a `data:` URL.
"""

import asyncio
import json
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from textwrap import shorten
from time import clock_gettime, monotonic
from typing import Any, NamedTuple

import aiohttp

from core.config.teachers import MTP_DRAFT, NGRAM_DRAFT, TeacherConfig
from core.errors import ProviderError
from core.openmp import SPIN_VARIABLE, choose_llama_spins
from core.sample import Message
from core.secrets import SECRET_NAME, redact_text
from core.shared_options import DRAFT_TOKENS, EMBEDDER_FILE, PROJECTOR_FILE
from core.storage.image_files import (
    MAX_PIXELS,
    UnreadableImage,
    decode_image_url,
    find_images_problem,
    fit_image,
    format_image_url,
)
from core.weights.gguf_files import ImageLimits, read_image_limits
from teachers.base import PROCESSOR_SECONDS, CallFailed, ChargeAccount, Teacher, TeacherQuestion, TeacherReply
from teachers.drafts import describe_large_draft, find_draft_problem, find_draft_weights, watch_draft
from teachers.local_weights import NOTE_SECONDS, STUDENT_FILE, find_projector
from teachers.server_guard import StartedServer, start_guarded, stop_guarded

SERVER_PROGRAM = Path(__file__).with_name("llama_server.py")
LOAD_SECONDS = 600.0
"""Maximum time to load: 60 GB from a disk with 100 MB/s. A process that takes longer hangs, and is killed."""
WATCH_SECONDS = 5.0
"""Between two checks that llama.cpp still processes its queue."""
MAX_START_ATTEMPTS = 4
"""Consecutive restarts that may fail before giving up."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a restart; doubling while the process runs for less than `STABLE_SECONDS`."""
STABLE_SECONDS = 60.0
MIN_MEMORY_BYTES = 2**30
"""Memory that the process may always use, even if less is free."""

GGML_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}
"""ggml's numbers of the types that a KV cache may have."""
NGRAM_TOKENS = 3
"""Tokens that an n-gram draft looks up in the earlier text."""
ERRORS_ONLY, LOADING_DETAILS = 1, 4
"""llama.cpp's log thresholds. The second adds sizes of buffers and caches, and no text of a prompt."""
VERBOSE_LINE = re.compile(r"[\d.]+ [TDIW] ")
"""A line of the log that is no error."""
LOG_LINE = re.compile(r"^(?:[\d.]+ E )?\s*(?:guard: )?(?:error: )?")
LOAD_ERROR = re.compile(r"error loading model: (?!llama_model_loader: failed to load model from)(.+)")
GENERIC_ERROR = re.compile(r"Failed to init server|srv +init: exiting due to")
"""llama.cpp's messages after any failure; the first other line of its log is more specific."""
TAIL = 16_384
PASSED_VARIABLES = re.compile(
    r"PATH|HOME|LANG|LC_.*|TMPDIR|TZ|PYTHON(?:PATH|HOME|USERBASE)|LD_LIBRARY_PATH|VIRTUAL_ENV|(?:G?OMP|CUDA|GGML|HIP|HSA|ROCR|VK|NVIDIA)_.*"
)
"""Environment variables that llama.cpp needs; no keys."""


@asynccontextmanager
async def start_local_server(
    config: TeacherConfig, weights: Path, note: Callable[[str], None]
) -> AsyncIterator[StartedServer]:
    """Start llama.cpp with `weights` on a free local port and yield its address; it stops at the end of the block.

    Raises:
        ProviderError: if the weights cannot be loaded, or the draft cannot be used.
    """
    settings = llama_settings(
        str(weights), config.max_concurrent, config.slot_tokens, gpu_layers=config.gpu_layers, threads=config.threads
    )
    if projector := find_projector(weights):
        settings |= projector_settings(projector, read_projector_limits(config.model, projector))
    elif STUDENT_FILE.fullmatch(weights.name) and weights.with_name(EMBEDDER_FILE).is_file():
        raise ProviderError(f"{config.model}: {PROJECTOR_FILE} is missing next to it; export the student again")
    if config.draft is None:
        async with run_llama_server(config.model, settings, note, config.timeout_seconds) as server:
            yield server.server
        return
    if problem := find_draft_problem(config, weights):
        raise ProviderError(f"{config.model}: draft: {problem}")
    draft = find_draft_weights(config.draft_path) if config.draft_path else config.draft
    if isinstance(draft, Path) and (warning := describe_large_draft(draft, weights)):
        note(f"{config.model}: {warning}")
    settings |= draft_settings(draft, gpu_layers=config.gpu_layers, threads=config.threads)
    async with (
        run_llama_server(config.model, settings, note, config.timeout_seconds) as server,
        watch_draft(config.model, server.server, note, is_model=draft != NGRAM_DRAFT),
    ):
        yield server.server


def llama_settings(
    weights: str, slots: int, slot_tokens: int, *, gpu_layers: int | None = None, threads: int | None = None,
    cache_type: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """llama.cpp's parameters, by their dotted names."""
    threads = threads or len(os.sched_getaffinity(0))
    settings = {
        "model.path": weights,
        "n_parallel": slots,
        "n_ctx": slots * slot_tokens,
        "cpuparams.n_threads": threads,
        "cpuparams_batch.n_threads": threads,
        "warmup": False,
        "cache_ram_mib": 0,  # each slot keeps its prompt's prefix; the default cache of 8 GiB would only use memory
    }
    if gpu_layers is not None:
        settings["n_gpu_layers"] = gpu_layers
    if cache_type is not None:
        settings |= {"cache_type_k": GGML_TYPES[cache_type], "cache_type_v": GGML_TYPES[cache_type]}
    return settings


def read_projector_limits(who: str, projector: Path) -> ImageLimits:
    """Raises ProviderError if the file is no embedder of images of a student, or the extra `pictures` is missing."""
    if problem := find_images_problem():
        raise ProviderError(f"{who}: a student that sees {problem}")
    try:
        return read_image_limits(projector)
    except (ValueError, OSError) as error:
        raise ProviderError(f"{who}: {projector}: {error}; export the student again") from None


def projector_settings(projector: Path, limits: ImageLimits) -> dict[str, Any]:
    """llama.cpp's parameters of an embedder of images; its own limits would enlarge small images."""
    return {
        "mmproj.path": str(projector),
        "mmproj_use_gpu": False,
        "image_min_tokens": 1,
        "image_max_tokens": limits.max_tokens,
    }


def draft_settings(
    draft: Path | str, tokens: int = DRAFT_TOKENS, *, gpu_layers: int | None = None, threads: int | None = None
) -> dict[str, Any]:
    """llama.cpp's parameters of a draft that proposes `tokens` tokens: the model in a file, `ngram` or `mtp`.

    With `mtp`, a file without such a layer cannot be loaded.
    """
    if draft == NGRAM_DRAFT:
        kind = {
            "speculative.types": ["COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE"],
            "speculative.ngram_simple.size_n": NGRAM_TOKENS,
            "speculative.ngram_simple.size_m": tokens,
        }
    elif draft == MTP_DRAFT:
        kind = {
            "load_mtp": True,
            "speculative.types": ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"],
            "speculative.draft.n_max": tokens,
            "speculative.draft.p_min": 0.0,  # each proposal has all tokens
        }
    else:
        threads = threads or len(os.sched_getaffinity(0))
        kind = {
            "speculative.types": ["COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE"],
            "speculative.draft.mparams.path": str(draft),
            "speculative.draft.n_max": tokens,
            "speculative.draft.p_min": 0.0,  # each proposal has all tokens
            "speculative.draft.cpuparams.n_threads": threads,
            "speculative.draft.cpuparams_batch.n_threads": threads,
        }
        if gpu_layers is not None:
            kind["speculative.draft.n_gpu_layers"] = gpu_layers
    return {**kind, "endpoint_metrics": True}  # where `teachers.drafts` reads what became of the proposals


class LoadedServer(NamedTuple):
    """The report of the process once it has loaded the weights."""

    address: str
    pid: int
    memory: int
    """Bytes of memory in use before loading."""
    seconds: float
    """Processor seconds that loading took."""

    @property
    def served_seconds(self) -> float:
        """Processor seconds of all its threads since then. Raises OSError if the process has ended."""
        return (
            clock_gettime(~self.pid << 3 | 2) - self.seconds
        )  # the clock of a process, as clock_getcpuclockid names it


@asynccontextmanager
async def run_llama_server(
    who: str,
    settings: Mapping[str, Any],
    note: Callable[[str], None],
    patience: float,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator["LlamaServer"]:
    """A process of llama.cpp with `settings`; it is watched, and restarted if it ends or hangs.

    Args:
        who: its name in messages.
        settings: from `llama_settings`, possibly with more.
        note: called with messages about the process.
        patience: seconds without progress of its queue after which it counts as hung: at least the timeout of a call.
        environment: variables of the process, in addition to inherited ones.

    Raises:
        ProviderError: if the weights cannot be loaded.
    """
    with socket.socket() as reserved, tempfile.TemporaryFile() as log:
        # Reserved between two processes too, so that no other user of the machine can take the port and read the prompts.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        server = LlamaServer(who, settings, note, reserved.getsockname()[1], log.fileno(), environment or {})
        try:
            await server.start()
            watch = asyncio.create_task(server.keep_running(patience))
            try:
                yield server
            finally:
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch
        finally:
            await server.stop()


class LlamaServer:
    """A llama.cpp process and its restarts, all on the same port."""

    def __init__(
        self,
        who: str,
        settings: Mapping[str, Any],
        note: Callable[[str], None],
        port: int,
        log: int,
        environment: Mapping[str, str],
    ) -> None:
        self.fault: str | None = None
        """Why its process ended, until the next process has loaded."""
        self.server = StartedServer(f"http://127.0.0.1:{port}/v1", secrets.token_urlsafe(), lambda: self.fault)
        self.loaded: LoadedServer | None = None
        self._who = who
        self._note = note
        self._log = log
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        origin = self.server.url.removesuffix("/v1")
        self._settings = {
            **settings,
            "port": port,
            "reuse_port": True,
            "api_keys": [self.server.key],
            "cors_origins": origin,
            "cors_credentials": False,
            "ui": False,
            "endpoint_slots": True,
            "verbosity": settings.get("verbosity", ERRORS_ONLY),
        }

    async def start(self) -> None:
        """Raises ProviderError if the weights cannot be loaded."""
        os.ftruncate(self._log, 0)
        os.lseek(self._log, 0, os.SEEK_SET)  # processes share the file offset, and would write after a hole
        command = [sys.executable, "-P", str(SERVER_PROGRAM)]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if PASSED_VARIABLES.fullmatch(name) and not SECRET_NAME.search(name)
        }
        environment = {**inherited, SPIN_VARIABLE: choose_llama_spins(), **self._environment}
        process = await start_guarded(command, log=self._log, environment=environment, piped=True)
        self._process = process
        assert process.stdin, "it is piped"
        assert process.stdout, "it is piped"
        request = {"memory": available_memory(), "settings": self._settings}
        with suppress(ConnectionError):  # it may have ended already
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()

        began = monotonic()
        line = asyncio.ensure_future(process.stdout.readline())
        try:
            while not (await asyncio.wait([line], timeout=min(NOTE_SECONDS, LOAD_SECONDS)))[0]:
                if (seconds := monotonic() - began) >= LOAD_SECONDS:
                    raise ProviderError(
                        f"{self._who}: not loaded after {LOAD_SECONDS:g} s and given up; a chat template that never ends, or "
                        f"weights that are too large for this machine? {self._log_error()}".rstrip()
                    )
                self._note(f"{self._who}: loading, {seconds:.0f} s")
            report = await line
        finally:
            line.cancel()

        if not report:
            await process.wait()
            raise ProviderError(
                f"{self._who}: llama.cpp cannot load it: {self._log_error() or 'it ended without a word'}"
            )
        self.loaded = LoadedServer(**json.loads(report))

    async def stop(self) -> None:
        if self._process:
            with suppress(OSError):  # a process that has crashed is not counted
                PROCESSOR_SECONDS[self._who] += self.loaded.served_seconds if self.loaded else 0.0
            await stop_guarded(self._process)
            self._process = None

    def read_log(self) -> str:
        """What llama.cpp has logged since its last start."""
        return os.pread(self._log, os.fstat(self._log).st_size, 0).decode("utf-8", "replace")

    async def keep_running(self, patience: float) -> None:
        """Restart the process whenever it ends or hangs, until `MAX_START_ATTEMPTS` starts in a row fail."""
        pause = FIRST_PAUSE
        while True:
            began = monotonic()
            fault = await self._wait_for_fault(patience)
            self.fault = f"{self._who}: {fault}; llama.cpp is started again"
            await self.stop()
            if monotonic() - began > STABLE_SECONDS:
                pause = FIRST_PAUSE
            self._note(self.fault)
            for left in reversed(range(MAX_START_ATTEMPTS)):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    await self.start()
                    self.fault = None
                    break
                except (ProviderError, OSError, ValueError) as error:  # no files or memory left; a report cut off
                    await self.stop()
                    self.fault = str(error) if left else f"{error}; given up after {MAX_START_ATTEMPTS} starts"
                    self._note(self.fault)
                    if not left:
                        return

    async def _wait_for_fault(self, patience: float) -> str:
        """Wait until the process ends or hangs; returns the reason."""
        assert self._process
        ended = asyncio.ensure_future(self._process.wait())
        headers = {"Authorization": f"Bearer {self.server.key}"}
        try:
            async with aiohttp.ClientSession(headers=headers) as session:
                while not (await asyncio.wait([ended], timeout=WATCH_SECONDS))[0]:
                    check = asyncio.ensure_future(self._queue_moves(session, patience))
                    await asyncio.wait([ended, check], return_when=asyncio.FIRST_COMPLETED)
                    if check.done() and not check.result():
                        return f"it did nothing for {patience:g} s"
                    check.cancel()
        finally:
            ended.cancel()
        return f"it ended: {self._log_error() or 'without a word'}"

    async def _queue_moves(self, session: aiohttp.ClientSession, patience: float) -> bool:
        """Whether its queue makes progress: requests to `/slots` pass through the queue, requests to `/health` do not."""
        url = f"{self.server.url.removesuffix('/v1')}/slots"
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=patience)) as response:
                await response.read()
        except TimeoutError:
            return False
        except aiohttp.ClientError:
            return True  # it ended, or the next check detects that it hangs
        return True

    def _log_error(self) -> str:
        end = os.fstat(self._log).st_size
        return _find_logged_error(os.pread(self._log, TAIL, max(0, end - TAIL)).decode("utf-8", "replace"))


def _find_logged_error(log: str) -> str:
    """The reason of a failure in llama.cpp's log, in one line; empty if there is none."""
    if errors := LOAD_ERROR.findall(log):
        return _shorten_line(errors[-1])
    lines = [LOG_LINE.sub("", line) for line in log.splitlines() if line.strip() and not VERBOSE_LINE.match(line)]
    specific = [line for line in lines if not GENERIC_ERROR.match(line)]
    if len(specific) < len(
        lines
    ):  # the first reason led to the others; llama.cpp's thread may write all after our own line
        return _shorten_line((specific or lines)[0])
    return _shorten_line(lines[-1]) if lines else ""


def _shorten_line(text: str) -> str:
    return shorten(redact_text(text), 300, placeholder=" …").rstrip(".")


def available_memory() -> int:
    """Free bytes of the machine or of this control group, whichever is less."""
    machine = Path("/proc/meminfo").read_text(encoding="ascii")
    free = [int(machine.partition("MemAvailable:")[2].split()[0]) * 1024]
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such group, or `max`
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        # Cached files count as used, but are evicted when needed.
        free.append(limit - used + int(cached[1] if cached else 0))
    return max(MIN_MEMORY_BYTES, min(free))


# Images


MAX_DECODERS = 2
"""Images that one process decodes at once: each may take 800 MB, and one of a client 400 MB."""
CLIENT_PIXELS = 25_000_000
"""Width times height of the largest image in a client's request, which a kilobyte can have."""


def fit_message_images(message: Message, limits: ImageLimits, max_pixels: int = MAX_PIXELS) -> Message:
    """Raises UnreadableImage if an image is not in the message, or cannot be decoded."""
    fitted = [fit_image(decode_image_url(url), limits.patch, limits.size, max_pixels) for url in message.images]
    return message.model_copy(update={"images": tuple(format_image_url(image.png) for image in fitted)})


class SeeingTeacher:
    """Fits the images of each question."""

    def __init__(self, teacher: Teacher, limits: ImageLimits) -> None:
        self.model, self.slots, self.manner = teacher.model, teacher.slots, teacher.manner
        self._teacher, self._limits = teacher, limits
        self._decoders = asyncio.Semaphore(MAX_DECODERS)

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        if any(message.images for message in question.messages):
            try:
                async with self._decoders:
                    messages = await asyncio.to_thread(self._fit, question.messages)
            except UnreadableImage as fault:
                raise CallFailed(f"{self.model}: an image {fault}") from None
            question = question.model_copy(update={"messages": messages})
        return await self._teacher.reply(question, rank, account)

    def _fit(self, messages: Sequence[Message]) -> list[Message]:
        return [fit_message_images(message, self._limits) for message in messages]

    def release(self) -> None:
        self._teacher.release()
