"""Teachers one can only talk to: an OpenAI-compatible endpoint, or a local model behind the same words."""

from understudy.teachers.chat.client import ChatEndpoint
from understudy.teachers.chat.local import LocalChat
from understudy.teachers.chat.spending import Spending
from understudy.teachers.chat.talk import (
    BudgetSpent,
    ChatError,
    ChatSampling,
    ChatTeacher,
    Conversation,
    Logprobs,
    Message,
    Reply,
    Schema,
    in_order,
    user,
)

__all__ = [
    "BudgetSpent",
    "ChatEndpoint",
    "ChatError",
    "ChatSampling",
    "ChatTeacher",
    "Conversation",
    "LocalChat",
    "Logprobs",
    "Message",
    "Reply",
    "Schema",
    "Spending",
    "in_order",
    "user",
]
