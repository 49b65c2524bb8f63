"""headrace: a Kubernetes-native task queue. This package is what applications and workers import."""

from headrace.app import App
from headrace.backoff import Retry
from headrace.batches import Batch
from headrace.context import Ctx
from headrace.decorator import Task
from headrace.errors import (
    BadDefinition,
    BadSetting,
    ConfigError,
    DurabilityUnconfirmed,
    FieldError,
    HeadraceError,
    InvalidFilter,
    InvalidPayload,
    InvalidRequest,
    InvalidResult,
    InvalidTask,
    Permanent,
    QueueFull,
    ResultTimeout,
    RetryAfter,
    StoreFull,
    StoreTimeout,
    StoreUnavailable,
    TaskCancelled,
    TaskConflict,
    TaskExpired,
    TaskFailed,
    TooLarge,
    TooManyBulks,
    UnknownBulk,
    UnknownQueue,
    UnknownSetting,
    UnknownTask,
    UnknownType,
    WrongCaller,
    WrongCount,
    WrongState,
)
from headrace.handle import Handle
from headrace.middleware import Middleware
from headrace.submission import TaskCall, Unique
from headrace.task import Priority, Progress, State
from headrace.taskdef import TaskDef

__version__ = "0.1.0"

__all__ = [
    "App",
    "BadDefinition",
    "BadSetting",
    "Batch",
    "ConfigError",
    "Ctx",
    "DurabilityUnconfirmed",
    "FieldError",
    "Handle",
    "HeadraceError",
    "InvalidFilter",
    "InvalidPayload",
    "InvalidRequest",
    "InvalidResult",
    "InvalidTask",
    "Middleware",
    "Permanent",
    "Priority",
    "Progress",
    "QueueFull",
    "ResultTimeout",
    "Retry",
    "RetryAfter",
    "State",
    "StoreFull",
    "StoreTimeout",
    "StoreUnavailable",
    "Task",
    "TaskCall",
    "TaskCancelled",
    "TaskConflict",
    "TaskDef",
    "TaskExpired",
    "TaskFailed",
    "TooLarge",
    "TooManyBulks",
    "Unique",
    "UnknownBulk",
    "UnknownQueue",
    "UnknownSetting",
    "UnknownTask",
    "UnknownType",
    "WrongCaller",
    "WrongCount",
    "WrongState",
    "__version__",
]
