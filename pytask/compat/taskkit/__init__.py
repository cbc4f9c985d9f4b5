"""taskkit's words: a handler for the tasks of groups, and a kit that starts processes and makes tasks.

A group is the queue `queue_name_of(group)`. Every task is a record of the one task `taskkit`, whose data hold the
group, the name and what the handler's `encode_data` made; the output is what its `encode_result` made. Both are
bytes: they stand there as text where they are UTF-8, else as `{"base64": ...}`.
"""

from pytask.compat.taskkit.handling import DiscardTask as DiscardTask
from pytask.compat.taskkit.handling import Task as Task
from pytask.compat.taskkit.handling import TaskHandler as TaskHandler
from pytask.compat.taskkit.kit import Kit as Kit
from pytask.compat.taskkit.kit import make_kit as make_kit
from pytask.compat.taskkit.result import Failed as Failed
from pytask.compat.taskkit.result import NotFound as NotFound
from pytask.compat.taskkit.result import Result as Result
from pytask.compat.taskkit.result import ResultGetTimedOut as ResultGetTimedOut
from pytask.compat.taskkit.schedules import RegularSchedule as RegularSchedule
from pytask.compat.taskkit.schedules import ScheduleEntriesCompat as ScheduleEntriesCompat
from pytask.compat.taskkit.schedules import ScheduleEntriesCompatMapping as ScheduleEntriesCompatMapping
from pytask.compat.taskkit.schedules import ScheduleEntry as ScheduleEntry
from pytask.compat.taskkit.schedules import ScheduleEntryCompat as ScheduleEntryCompat
from pytask.compat.taskkit.schedules import ScheduleEntryDict as ScheduleEntryDict
