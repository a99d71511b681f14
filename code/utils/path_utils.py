"""Where the project's files lie, for notebooks: `from utils.path_utils import project_path`.

Re-exports only. Run folders of a notebook's own: `RunPaths.alone(project_path("outputs/mine"))`.
"""

from dialsum.paths import PROJECT_ROOT, BatchPaths, RunPaths, project_path, shown

__all__ = ["PROJECT_ROOT", "BatchPaths", "RunPaths", "project_path", "shown"]
