"""pybuild: Dockerfile text to a step graph, the graph to snapshots, snapshots to images.

from builder import BuildRequest, build
built = build(BuildRequest(context=".", tags=("myapp:1.0",)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.building import BuildRequest, Built, build

__all__ = ["BuildRequest", "Built", "build"]


def __getattr__(name: str) -> Any:
    """Import the builder only when somebody asks for it: `pybuild --help` must not pay for it."""
    if name in __all__:
        from builder import building

        return getattr(building, name)
    raise AttributeError(name)
