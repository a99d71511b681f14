"""Watches every tensor that is made, for the tests of what is never to be held whole.

Loads torch only when a function is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def tensors_made() -> Iterator[list[tuple[int, ...]]]:
    """Collect the shape of every tensor computed meanwhile, going forward and backward.

    What only looks at another's values, a view or a result written in place, is left out.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    shapes: list[tuple[int, ...]] = []

    class Watch(TorchDispatchMode):
        """Looks at the results of every operation."""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            """Run the operation and take note of storages that were not there before."""
            found = func(*args, **(kwargs or {}))
            given = {
                one.untyped_storage().data_ptr()
                for one in tree_leaves((args, kwargs))
                if hasattr(one, "untyped_storage")
            }
            shapes.extend(
                tuple(one.shape)
                for one in tree_leaves(found)
                if hasattr(one, "untyped_storage") and one.untyped_storage().data_ptr() not in given
            )
            return found

    with Watch():
        yield shapes
