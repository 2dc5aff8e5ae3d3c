"""A parser that never raises: an exception would end in the user's own script instead of an exit code."""

from __future__ import annotations

from typing import Any, cast

from aiida.engine import ExitCode
from aiida.parsers import Parser

__all__ = ["CarefulParser"]


class CarefulParser(Parser):
    """A parser whose subclasses parse in :meth:`examine`; whatever goes wrong there becomes an exit code."""

    def parse(self, **_kwargs: Any) -> ExitCode:
        """Parse the retrieved files.

        What they hold counts for more than what the scheduler said: AiiDA would keep its exit code where there is None.
        """
        try:
            return self.examine() or ExitCode(0)
        except Exception as error:
            self.logger.exception("the output could not be parsed")
            return self.failure("ERROR_UNEXPECTED_PARSER_EXCEPTION", message=f"{type(error).__name__}: {error}")

    def examine(self) -> ExitCode | None:
        """Attach outputs and return an exit code, or None for success."""
        raise NotImplementedError

    def failure(self, label: str, **values: Any) -> ExitCode:
        """Return an exit code of the calculation by its label, with the values filled into its message."""
        code = cast(ExitCode, self.exit_codes[label])
        return code.format(**values)
