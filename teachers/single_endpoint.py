"""The base of teachers at one endpoint: slots, rates, retries, outages and charges of their calls. Knows no protocol."""

from abc import ABC, abstractmethod

from core.config.teachers import TeacherConfig
from teachers.base import CallCharge, ChargeAccount, TeacherQuestion, TeacherReply
from teachers.endpoint_calls import EndpointCalls


class SingleEndpointTeacher(ABC):
    """A teacher that only has to send one try of a call."""

    manner = ""
    """As `Teacher.manner`."""

    def __init__(self, config: TeacherConfig, url: str, name: str) -> None:
        """`name` is the endpoint's own name for the model."""
        self.model = config.model
        self.slots = config.max_concurrent
        self.config = config
        self._calls = EndpointCalls(config, url, name)

    @abstractmethod
    async def _send_once(self, question: TeacherQuestion, charge: CallCharge) -> TeacherReply:
        """The reply of one try, whose usage is charged. May waive the charge of a try that costs nothing.

        Raises:
            FailedTry: if there is no usable reply.
            ProviderError: if no call can succeed.
        """

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        async def send(charge: CallCharge) -> TeacherReply:
            reply = await self._send_once(question, charge)
            # Without token counts, the maximum that was set aside stays charged.
            if reply.usage.prompt_tokens:
                charge.usage = reply.usage
            return reply

        return await self._calls.complete(send, rank, account, question)

    def release(self) -> None:
        self._calls.release()
