"""A work chain small enough to watch the rolling window at work."""

from __future__ import annotations

from aiida import orm
from aiida.engine import while_
from aiida.plugins import CalculationFactory

from aiida_mofmace.workflows.window import RollingWindow


class NapsWorkChain(RollingWindow):
    """Short jobs, at most ``max_concurrent`` at a time; what each does before it ends stands in ``scripts``."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input("code", valid_type=orm.InstalledCode)
        spec.input("scripts", valid_type=orm.List)
        spec.input("max_concurrent", valid_type=orm.Int)
        spec.output("order", valid_type=orm.List)
        spec.outline(cls.setup, while_(cls.should_run_naps)(cls.run_naps), cls.results)

    def setup(self):
        self.ctx.order = []
        keys = [f"nap_{index:02d}" for index in range(len(self.inputs.scripts))]
        self.open_window(keys, self.inputs.max_concurrent.value)

    def should_run_naps(self):
        return self.window_is_open()

    def run_naps(self):
        return self.advance_window(self.submit_nap, self.note_end)

    def submit_nap(self, key):
        builder = CalculationFactory("core.arithmetic.add").get_builder()
        builder.code = self.inputs.code
        builder.x = builder.y = orm.Int(1)
        builder.metadata.options.prepend_text = self.inputs.scripts[int(key[4:])]
        builder.metadata.call_link_label = key
        return self.submit(builder)

    def note_end(self, key, node):
        assert node.is_finished_ok
        self.ctx.order.append(key)

    def results(self):
        assert sorted(self.window_results()) == sorted(self.ctx.order)
        self.out("order", orm.List(list(self.ctx.order)).store())
