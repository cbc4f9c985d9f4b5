"""What an app offers for workflows: starting one, a group or a chain, without a word of the helpers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytask.handle import WorkflowHandle
    from pytask.helpers import PyTaskHelpers


class AppWorkflows:
    """The part of an app that starts workflows. The options are those of `helpers.start_workflow`."""

    if TYPE_CHECKING:

        @property
        def helpers(self) -> PyTaskHelpers:
            """Of the app."""

    def start_workflow(self, tasks: Any, /, **options: Any) -> WorkflowHandle:
        """Start tasks in stages, or tasks that say for whom they wait; see `helpers.start_workflow`.

        ::

            handle = task_app.start_workflow([[fetch, fetch], [merge]], title="Nightly")
            print(handle.get(timeout=600))
        """
        return self.helpers.start_workflow(tasks, **options)

    def start_group(self, tasks: Iterable[Any], /, **options: Any) -> WorkflowHandle:
        """Start tasks that run beside each other; the output is the list of theirs."""
        return self.helpers.start_group(tasks, **options)

    def start_chain(self, tasks: Iterable[Any], /, **options: Any) -> WorkflowHandle:
        """Start tasks that run one after the other; the output is that of the last."""
        return self.helpers.start_chain(tasks, **options)
