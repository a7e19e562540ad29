"""A teacher that answers from a recording: the whole pipeline on real replies, without a model. Knows no family."""

from pathlib import Path

from core.config.teachers import TeacherConfig
from core.sample import conversation_digest, json_digest
from core.storage.atomic_files import hash_file
from core.storage.recording import RecordedReply, read_recording
from teachers.base import CallFailed, CallKey, ChargeAccount, TeacherQuestion, TeacherReply
from teachers.rate_limiter import RateLimiter

Place = tuple[str, str, int, int]
"""Of a call: the digest of its sample's seed, agent, revision and attempt."""
SampleReplies = dict[int, RecordedReply]
"""Replies by the index of their sample."""


class ReplayTeacher:
    """`fake/replay:FILE`: the recorded reply to the same request; if prompts have changed since, the reply to the same agent at
    the same revision and attempt of a sample with the same seed.
    """

    def __init__(self, config: TeacherConfig) -> None:
        """Raises UsageError if the file is no recording."""
        self.model = config.model
        self.slots = config.max_concurrent
        self._path: Path = config.recording_file
        recorded = read_recording(self._path)
        self.manner = f"replay {hash_file(self._path)}"
        self._limiter = RateLimiter(config.max_concurrent)
        self._by_request: dict[str, dict[Place, SampleReplies]] = {}
        self._by_place: dict[Place, SampleReplies] = {}
        for number, sample in enumerate(recorded):
            seed, index = json_digest(sample.seed), number if sample.sample is None else sample.sample
            for reply in sample.replies:
                place = (seed, reply.agent, reply.revision, reply.attempt)
                self._by_request.setdefault(reply.request, {}).setdefault(place, {}).setdefault(index, reply)
                self._by_place.setdefault(place, {}).setdefault(index, reply)

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        async with self._limiter.admit(rank), account.charge(question) as charge:
            recorded = self._find(question)
            if recorded is None:
                charge.waive(sent=False)
                raise CallFailed(f"{self._path.name} has no reply for {_describe_call(question.key)}")
            charge.usage = recorded.usage
            return TeacherReply(text=recorded.reply, finished=True, usage=recorded.usage, reasoning=recorded.reasoning)

    def _find(self, question: TeacherQuestion) -> RecordedReply | None:
        key = question.key
        place = (key.seed, key.agent, key.revision, key.attempt) if key else None
        if same := self._by_request.get(conversation_digest(question.messages)):
            return _choose(same.get(place) if place in same else next(iter(same.values())), key)
        return _choose(self._by_place.get(place), key) if place else None

    def release(self) -> None:
        self._limiter.admit_all()


def _choose(replies: SampleReplies | None, key: CallKey | None) -> RecordedReply | None:
    """Of several samples with equal seeds, that with the call's index, else one by its position among them."""
    if not replies:
        return None
    if key is None or key.sample in replies:
        return replies[key.sample] if key else next(iter(replies.values()))
    return list(replies.values())[key.sample % len(replies)]


def _describe_call(key: CallKey | None) -> str:
    if key is None:
        return "this request"
    return f"sample {key.sample}: {key.agent}, revision {key.revision}, attempt {key.attempt}"
