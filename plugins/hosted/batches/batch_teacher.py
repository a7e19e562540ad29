"""A teacher whose questions are collected, sent as batches, and answered when a batch has ended. Knows no provider's endpoints.

A batch outlives the process: it is in the journal before it is sent, and the next process with the same journal finds it again,
even if this one was killed before it learned the batch's id. So a request is paid once.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from core.config.teachers import TeacherConfig
from core.errors import ProviderError, StillhouseError
from core.runs.batch_records import BatchRecord
from core.sample import text_digest
from core.stop_signal import RunStopped
from core.storage.atomic_files import write_atomically
from plugins.hosted.batches.batch_api import (
    LONGEST_RESULT,
    BatchApi,
    BatchJournal,
    BatchStatus,
    ExpiredRequest,
    LostBatch,
    RequestResult,
    find_longest_pause,
    read_result_lines,
    update_record,
)
from teachers.base import CallFailed, ChargeAccount, Teacher, TeacherQuestion, TeacherReply
from teachers.endpoint_calls import MAX_FAILURES_IN_ROW, FailedTry, FailureCause
from teachers.protocols import CollectingTeacher

FIRST_POLL_SECONDS = 1.0
POLL_GROWTH = 1.5
REPORTED_SHARE = 0.1
"""A batch in progress is reported whenever another tenth of its requests has ended."""
MAX_FAILED_CHECKS = 10
"""In a row; then the run stops, and a resumed run finds the batch again."""
COMPLETED_STATES = {"completed", "ended"}
"""Of batches whose requests were all processed: one without a result may have been paid."""
RESULTS_PER_STEP = 500
"""Results that are handed out before other tasks run."""

logger = logging.getLogger("stillhouse")


class _StoredResult(NamedTuple):
    """Where the successful result of a request is that no call has used yet in this process."""

    file: Path
    offset: int


class BatchTeacher(CollectingTeacher):
    """Wraps the teacher of the same model, which replies directly if the recipe does not ask for batches (any more)."""

    def __init__(self, config: TeacherConfig, api: BatchApi, direct: Teacher, journal: BatchJournal) -> None:
        super().__init__()
        self.model, self.manner = config.model, direct.manner
        self.collects = config.batch
        self.slots = min(config.batch_size, api.max_requests) if config.batch else direct.slots
        self._config, self._api, self._direct, self._journal = config, api, direct, journal
        self._collected: dict[str, bytes] = {}
        """Requests to send, by custom id."""
        self._collected_bytes = 0
        self._futures: dict[str, asyncio.Future[RequestResult]] = {}
        """Calls that wait for a result, by custom id."""
        self._batch_of: dict[str, BatchRecord] = {}
        """Requests that are sent or about to be, by custom id."""
        self._open: dict[str, BatchRecord] = {}
        """Batches that have not ended, by tag."""
        self._faults: dict[str, Exception] = {}
        """Why this process cannot get the results of a batch, by tag."""
        self._stored: dict[str, _StoredResult] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    @property
    def collected(self) -> int:
        return len(self._collected)

    async def open_journal(self) -> None:
        """Resume the batches of earlier processes.

        Raises:
            StillhouseError: if the journal cannot be read, or the provider cannot be asked for a batch.
        """
        for record in self._journal.read_records():
            if self._journal.is_ended(record):
                for offset, line in read_result_lines(self._journal.results_file(record)):
                    self._store_result(self._journal.results_file(record), offset, self._api.read_result(line))
                continue
            if not record.id:
                found = await self._find(record)
                if found is None:
                    self._journal.remove(record)  # its requests are collected again for another batch
                    continue
                record = update_record(record, found)
                self._journal.save(record)
            self._start(record)

    async def _find(self, record: BatchRecord) -> BatchStatus | None:
        try:
            return await self._api.find(record.tag, len(record.custom_ids), record.written)
        except CallFailed as error:
            raise ProviderError(
                f"{self.model}: cannot list its batches, so that one of an earlier process may be lost: {error}; "
                "resume when it answers"
            ) from None

    def _store_result(self, file: Path, offset: int, result: RequestResult | None) -> None:
        if result and result.body is not None:
            self._stored.setdefault(result.custom_id, _StoredResult(file, offset))

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        custom_id = text_digest(f"{self.model}\n{self.manner}\n{question.canonical}", length=32)
        tries = 0
        while True:
            if not self.collects and custom_id not in self._stored and custom_id not in self._batch_of:
                account.waive(custom_id)
                return await self._direct.reply(question, rank, account)
            try:
                return await self._try(custom_id, question, account)
            except FailedTry as failure:
                tries += 1
                final = failure.cause in (FailureCause.request, FailureCause.length)
                if final or tries > self._config.max_retries:
                    raise CallFailed(str(failure)) from None

    async def _try(self, custom_id: str, question: TeacherQuestion, account: ChargeAccount) -> TeacherReply:
        """One request in one batch. Raises FailedTry."""
        async with account.charge(question, custom_id) as charge:
            try:
                result = await self._obtain_result(custom_id, question)
            except BaseException:  # the run stops, or is cut off
                if custom_id in self._batch_of:
                    charge.keep()
                else:
                    charge.waive(sent=False)
                raise
            if result.body is None:
                assert result.failure, "a result is a response or a failure"
                if not isinstance(result.failure, _MissingResult):
                    charge.waive()
                raise result.failure
            reply = self._api.parse_reply(result.body, question)
            if reply.usage.prompt_tokens:
                charge.usage = reply.usage
            return reply

    async def _obtain_result(self, custom_id: str, question: TeacherQuestion) -> RequestResult:
        """The result of a request: stored before, of a batch that was sent before, or of a new one."""
        if stored := self._stored.pop(custom_id, None):
            with stored.file.open("rb") as file:
                file.seek(stored.offset)
                if result := self._api.read_result(file.readline()):
                    return result
        if self._stopped:
            raise RunStopped
        record = self._batch_of.get(custom_id)
        if record and record.tag in self._faults:
            raise self._faults[record.tag]
        future = self._futures.get(custom_id)
        if future is None:
            future = self._futures[custom_id] = asyncio.get_running_loop().create_future()
            if record is None:
                self._collect(custom_id, self._api.build_line(custom_id, question))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if line := self._collected.pop(custom_id, None):
                self._collected_bytes -= len(line)
                self._futures.pop(custom_id, None)
            raise

    def _collect(self, custom_id: str, line: bytes) -> None:
        if self._collected_bytes + len(line) > self._api.max_bytes:
            self.send_collected()
        self._collected[custom_id] = line
        self._collected_bytes += len(line)
        if len(self._collected) >= self.slots:
            self.send_collected()
        self.on_collected()

    def send_collected(self) -> None:
        if not self._collected or self._stopped:
            return
        lines, self._collected, self._collected_bytes = self._collected, {}, 0
        try:
            self._start(self._journal.write_requests(self.model, lines))
        except StillhouseError as error:
            self._end_calls(lines, error)

    def _end_calls(self, custom_ids: Iterable[str], fault: Exception) -> int:
        """Raise `fault` in the calls that wait for these requests. Returns their number."""
        waiting = [future for custom_id in custom_ids if (future := self._futures.pop(custom_id, None))]
        for future in waiting:
            future.set_exception(fault)
            future.exception()  # marks the error as retrieved: a call may be cut off
        return len(waiting)

    def _start(self, record: BatchRecord) -> None:
        self._open[record.tag] = record
        self._batch_of.update(dict.fromkeys(record.custom_ids, record))
        task = asyncio.create_task(self._complete(record.tag))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _complete(self, tag: str) -> None:
        """Send a batch if it was not, wait for its end, and hand out its results."""
        record = self._open[tag]
        try:
            if record.id:
                status = await self._api.check(record.id)
            else:
                status = await self._api.submit(tag, self._journal.requests_file(record))
            self._report(tag, status, first=True)
            status = await self._wait_for_end(tag, status)
            with write_atomically(self._journal.results_file(record)) as partial:
                await self._api.fetch(status, partial, len(record.custom_ids) * LONGEST_RESULT)
            await self._deliver(self._open.pop(tag), status)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a bug too: those who wait must end
            self._fail(self._open.pop(tag, record), self._explain(error, record))

    def _explain(self, error: Exception, record: BatchRecord) -> Exception:
        if isinstance(error, CallFailed):
            return ProviderError(f"{self.model}: {error}")
        if isinstance(error, LostBatch):
            file = self._journal.record_file(record)
            return ProviderError(f"{error}; to send its requests again and pay for them again, remove {file}")
        return error

    async def _wait_for_end(self, tag: str, status: BatchStatus) -> BatchStatus:
        longest = find_longest_pause()
        seconds, failed_checks = min(FIRST_POLL_SECONDS, longest), 0
        while not status.ended:
            await asyncio.sleep(seconds)
            seconds = min(longest, seconds * POLL_GROWTH)
            try:
                status, failed_checks = await self._api.check(status.id), 0
            except CallFailed as error:
                failed_checks += 1
                if failed_checks >= MAX_FAILED_CHECKS:
                    raise
                logger.warning("batch %s: cannot be checked: %s", status.id, error)
                continue
            self._report(tag, status)
        return status

    def _report(self, tag: str, status: BatchStatus, *, first: bool = False) -> None:
        """Record and log a change of a batch."""
        before = self._open[tag]
        record = update_record(before, status)
        step = REPORTED_SHARE * len(record.custom_ids)
        if first or record.state != before.state or record.done - before.done >= step:
            self._open[tag] = record
            self._journal.save(record)
            logger.info("batch %s: %s", record.id, record.describe())

    async def _deliver(self, record: BatchRecord, status: BatchStatus) -> None:
        """Hand out the results of a batch that has ended. Results that no call waits for yet are kept."""
        self.delivering += 1
        try:
            results = self._read_results(record)
            failures = [result.failure for result in results.values() if result.failure]
            fault = self._find_fault(record, status, failures)
            for number, custom_id in enumerate(record.custom_ids):
                self._batch_of.pop(custom_id, None)
                result = results.get(custom_id) or _explain_missing_result(custom_id, status)
                if result.body is None and fault:
                    self._end_calls([custom_id], fault)
                elif future := self._futures.pop(custom_id, None):
                    self._stored.pop(custom_id, None)
                    future.set_result(result)
                if number % RESULTS_PER_STEP == RESULTS_PER_STEP - 1:
                    await asyncio.sleep(0)
        finally:
            self.delivering -= 1
            self.on_collected()

    def _read_results(self, record: BatchRecord) -> dict[str, RequestResult]:
        """The results by custom id: a success rather than a failure, and the first of several."""
        expected, results, ignored = set(record.custom_ids), dict[str, RequestResult](), Counter[str]()
        file = self._journal.results_file(record)
        for offset, line in read_result_lines(file):
            result = self._api.read_result(line)
            if result is None:
                ignored["unreadable"] += 1
            elif result.custom_id not in expected:
                ignored["for unknown requests"] += 1
            elif result.custom_id in results and (results[result.custom_id].body is not None or result.body is None):
                ignored["repeated"] += 1
            else:
                results[result.custom_id] = result
                self._store_result(file, offset, result)
        if ignored:
            counts = ", ".join(f"{count:,} {what}" for what, count in ignored.items())
            logger.warning("batch %s: result lines ignored: %s", record.id, counts)
        return results

    def _find_fault(
        self, record: BatchRecord, status: BatchStatus, failures: list[FailedTry | ProviderError]
    ) -> Exception | None:
        """Why the run must stop, rather than send the requests without a result again."""
        if status.problem:
            return ProviderError(f"{self.model}: batch {record.id}: {status.problem}")
        if refused := [failure for failure in failures if isinstance(failure, ProviderError)]:
            return refused[0]
        counted = [
            failure
            for failure in failures
            if not isinstance(failure, ExpiredRequest)
            and isinstance(failure, FailedTry)
            and failure.cause is not FailureCause.length
        ]
        if len(counted) == len(record.custom_ids) >= MAX_FAILURES_IN_ROW:
            return ProviderError(
                f"{self.model}: all {len(counted):,} requests of batch {record.id} failed, the first: {counted[0]}; "
                "correct the recipe or try again later"
            )
        return None

    def _fail(self, record: BatchRecord, fault: Exception) -> None:
        """Raise `fault` in the calls that wait for this batch. The batch stays in the journal."""
        self._faults[record.tag] = fault
        if not self._end_calls(record.custom_ids, fault):
            logger.warning("batch %s: %s", record.name, fault)

    def describe(self) -> str:
        return "; ".join(f"batch {record.name}: {record.describe()}" for record in self._open.values())

    def release(self) -> None:
        """End all waiting calls: batches stay sent, and a resumed run gets their results."""
        if self._stopped:
            return
        self._stopped = True
        self._direct.release()
        for record in self._open.values():
            logger.warning(
                "batch %s with %s requests stays at %s; --resume gets its results",
                record.name, f"{len(record.custom_ids):,}", self.model,
            )  # fmt: skip
        self._collected.clear()
        self._end_calls(list(self._futures), RunStopped())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _MissingResult(FailedTry):
    """The batch has no result for the request, which may have been paid."""


def _explain_missing_result(custom_id: str, status: BatchStatus) -> RequestResult:
    if status.state in COMPLETED_STATES:
        return RequestResult(custom_id, failure=_MissingResult(f"batch {status.id} has no result for it"))
    return RequestResult(
        custom_id, failure=ExpiredRequest(f"batch {status.id} is {status.state} without a result for it")
    )


@asynccontextmanager
async def open_batch_teacher(
    config: TeacherConfig, api: BatchApi, direct: Teacher, folder: Path
) -> AsyncIterator[BatchTeacher]:
    """A teacher with the batches in `folder`.

    Raises:
        StillhouseError: as `BatchTeacher.open_journal`.
    """
    teacher = BatchTeacher(config, api, direct, BatchJournal(folder))
    try:
        await teacher.open_journal()
        yield teacher
    finally:
        await teacher.close()
