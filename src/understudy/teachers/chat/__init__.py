"""Teachers one can only talk to: an OpenAI-compatible endpoint, or a local model behind the same words."""

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
    "ChatError",
    "ChatSampling",
    "ChatTeacher",
    "Conversation",
    "Logprobs",
    "Message",
    "Reply",
    "Schema",
    "in_order",
    "user",
]
