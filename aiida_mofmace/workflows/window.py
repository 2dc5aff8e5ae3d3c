"""A rolling window of sub-processes: never more than so many at once, and a free slot is filled at once.

AiiDA's own waiting is for all sub-processes of a step together, and a local scheduler starts whatever it is given. A
work chain with many sub-processes derives from :class:`RollingWindow` and writes its loop as::

    spec.outline(
        cls.setup,                                   # self.open_window(keys, max_concurrent)
        while_(cls.should_run_labels)(cls.run_labels),  # self.window_is_open / self.advance_window(self.submit_label)
        cls.inspect_labels,                          # self.window_results()
    )
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

from aiida.common import AttributeDict
from aiida.common.links import LinkType
from aiida.engine import ToContext, WorkChain
from aiida.engine.processes.workchains.awaitable import Awaitable, AwaitableAction, AwaitableTarget
from aiida.orm import ProcessNode, QueryBuilder, load_node
from plumpy.process_states import ProcessState
from plumpy.utils import AttributesFrozendict

__all__ = ["RollingWindow"]

_WAITING = "window_waiting"


class RollingWindow(WorkChain):
    """A work chain that resumes as soon as any of its running sub-processes ends, not only when all have.

    What runs and what has ended stands in the context by PK and is read from the database at every step, so a work
    chain that a daemon takes up again after a crash goes on where it was. Each key is also the ``call_link_label`` that
    the submitted process must carry: a sub-process that was submitted just before a crash is found by it and not
    submitted twice.

    A checkpoint is written twice for every sub-process, and a thousand names take long as YAML: the window is packed,
    and of the inputs those in :attr:`linked_namespaces` stand in the provenance graph alone.
    """

    #: Namespaces of input nodes that may be large.
    linked_namespaces: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._subscribed: set[int] = set()

    def encode_input_args(self, inputs: Mapping[str, Any]) -> str:
        """Return inputs for a checkpoint, without those that the links of the process tell."""
        return super().encode_input_args({name: inputs[name] for name in inputs if name not in self.linked_namespaces})

    def save_instance_state(self, out_state: Any, save_context: Any) -> None:
        """Save for a checkpoint, the window packed."""
        super().save_instance_state(out_state, save_context)  # type: ignore[no-untyped-call]
        if "window" in self.ctx:
            packed = zlib.compress(json.dumps(self.ctx.window).encode())
            out_state[self._CONTEXT] = AttributeDict({**self.ctx, "window": packed})

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        """Restore from a checkpoint; nobody listens to the sub-processes yet in this interpreter."""
        self._subscribed = set()
        super().load_instance_state(saved_state, load_context)  # type: ignore[no-untyped-call]
        if isinstance(self.ctx.get("window"), bytes):
            self.ctx.window = json.loads(zlib.decompress(self.ctx.window))
        if self.linked_namespaces:
            known = self.node.base.links.get_incoming(link_type=LinkType.INPUT_WORK).nested()
            linked = {name: AttributesFrozendict(known[name]) for name in self.linked_namespaces if name in known}
            self._raw_inputs = AttributesFrozendict({**(self.raw_inputs or {}), **linked})
            self._parsed_inputs = AttributesFrozendict({**(self.inputs or {}), **linked})

    def open_window(self, keys: Iterable[str], max_concurrent: int) -> None:
        """Start a new window; a former one is forgotten.

        :param keys: one unique key per sub-process, in order of submission
        :param max_concurrent: the most sub-processes that may be running at once, at least 1
        """
        size = max(1, int(max_concurrent))
        self.ctx.window = {"queue": list(keys), "running": {}, "finished": {}, "size": size}

    def enqueue(self, key: str, first: bool = False) -> None:
        """Put one more key at the end of the queue, or before all others."""
        queue = self.ctx.window["queue"]
        queue.insert(0 if first else len(queue), key)

    def close_window(self) -> None:
        """Submit nothing more; what is running is still waited for."""
        self.ctx.window["queue"].clear()

    def window_is_open(self) -> bool:
        """Whether anything is still to be submitted or waited for."""
        return bool(self.ctx.window["queue"] or self.ctx.window["running"])

    def advance_window(
        self, submit: Callable[[str], ProcessNode], on_finished: Callable[[str, ProcessNode], None] | None = None
    ) -> dict[str, Any]:
        """Take in what has ended, fill the free slots and return what to wait for: the last act of a step.

        :param submit: submits the sub-process of a key, with the key as its ``call_link_label``
        :param on_finished: is told key and node of each sub-process that has ended; may call :meth:`enqueue`
        """
        window = self.ctx.window
        ended = _ended(window["running"].values())
        for key, pk in list(window["running"].items()):
            if pk in ended:
                window["finished"][key] = window["running"].pop(key)
                self.ctx.get(_WAITING, {}).pop(key, None)
                if on_finished is not None:
                    on_finished(key, cast(ProcessNode, load_node(pk)))
        while window["queue"] and len(window["running"]) < window["size"]:
            key = window["queue"][0]
            node = self._find_orphan(key) or submit(key)
            window["running"][key] = node.pk
            window["queue"].pop(0)
        self.ctx[_WAITING] = AttributeDict()
        return ToContext(**{f"{_WAITING}.{key}": _awaitable(pk) for key, pk in window["running"].items()})

    def window_results(self) -> dict[str, ProcessNode]:
        """Nodes of the sub-processes that have ended, by key in alphabetical order."""
        finished = self.ctx.window["finished"]
        return {key: cast(ProcessNode, load_node(finished[key])) for key in sorted(finished)}

    def update_outputs(self) -> None:
        """Link new outputs, if any: AiiDA asks the database for the known ones at every change of state."""
        if self.outputs:
            super().update_outputs()

    def _find_orphan(self, key: str) -> ProcessNode | None:
        """Return a sub-process with this label that a crash between submission and checkpoint left unrecorded.

        One that was killed before it had a checkpoint of its own will never run: it has no state yet, or is CREATED.
        """
        stillborn = (None, ProcessState.CREATED)
        link_types = (LinkType.CALL_CALC, LinkType.CALL_WORK)
        known = {*self.ctx.window["running"].values(), *self.ctx.window["finished"].values()}
        called = self.node.base.links.get_outgoing(link_type=link_types, link_label_filter=key).all_nodes()
        for node in called:
            if isinstance(node, ProcessNode) and node.pk not in known and node.process_state not in stillborn:
                return node
        return None

    def _action_awaitables(self) -> None:
        """Listen to the sub-processes that nobody listens to yet, and answer those that ended in the meantime."""
        waiting = list(self._awaitables)
        self._awaitables = [awaitable for awaitable in waiting if awaitable.pk not in self._subscribed]
        self._subscribed.update(awaitable.pk for awaitable in self._awaitables)
        super()._action_awaitables()
        known = [awaitable for awaitable in waiting if awaitable not in self._awaitables]
        self._awaitables = waiting
        super()._update_process_status()
        ended = _ended(awaitable.pk for awaitable in known)
        for awaitable in known:
            if awaitable.pk in ended:
                self.call_soon(self._on_awaitable_finished, awaitable)

    def _update_process_status(self) -> None:
        """Write what is waited for when the waiting begins, not once for each sub-process of a step."""
        if self.state != ProcessState.RUNNING:
            super()._update_process_status()

    def _on_awaitable_finished(self, awaitable: Awaitable) -> None:
        """Resume at the first sub-process that ends; an answer that came twice or during a step is of no account."""
        waiting = [known for known in self._awaitables if known.pk == awaitable.pk]
        if not waiting:
            return
        super()._on_awaitable_finished(waiting[0])
        if self.state == ProcessState.WAITING and awaitable.key.startswith(_WAITING):
            self.resume()


def _ended(pks: Iterable[int]) -> set[int]:
    """Return those of the processes that have ended, with one query."""
    states = [state.value for state in (ProcessState.FINISHED, ProcessState.EXCEPTED, ProcessState.KILLED)]
    wanted = list(pks)
    if not wanted:
        return set()
    filters = {"id": {"in": wanted}, "attributes.process_state": {"in": states}}
    return set(QueryBuilder().append(ProcessNode, filters=filters, project="id").all(flat=True))


def _awaitable(pk: int) -> Awaitable:
    """Return what AiiDA waits for, without loading the process."""
    return Awaitable(pk=pk, action=AwaitableAction.ASSIGN, target=AwaitableTarget.PROCESS, outputs=False)
