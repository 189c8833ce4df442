"""For the reference: what is internal is left out; parameters that share a line of the docstring have each its type."""

from __future__ import annotations

from typing import Any

import griffe


class OwnTypes(griffe.Extension):
    """Griffe gives all names of ``pre, post`` what the first of them has."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:  # noqa: ARG002
        """Mend a function."""
        _mend(func, func.parameters)

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:  # noqa: ARG002
        """Leave out what services do for each other."""
        for name, member in list(cls.members.items()):
            if any(str(decorator.value) == "internal" for decorator in getattr(member, "decorators", ())):
                del cls.members[name]

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:  # noqa: ARG002
        """Mend a class, whose docstring tells of its constructor."""
        _mend(cls, cls.parameters)


def _mend(thing: griffe.Object, parameters: griffe.Parameters) -> None:
    for section in thing.docstring.parsed if thing.docstring else ():
        if section.kind is griffe.DocstringSectionKind.parameters:
            for told in section.value:
                if told.name in parameters:
                    told.annotation, told.value = parameters[told.name].annotation, parameters[told.name].default
